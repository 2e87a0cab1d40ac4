"""What `--reward.remote_url` may be: an outcome reward's name, a user's file, or addresses of reward servers."""

from pathlib import Path

OUTCOME_REWARD_FILES = {
    "math": "outcome.py",
    "exact": "exact_outcome.py",
    "reasoning_gym": "reasoning_gym_outcome.py",
}
"""Name, that of the answer checker -> the file beside this one whose `reward_func` the host loads."""


def outcome_reward(value: str) -> str:
    """The value as the host takes it: the path of a file with `reward_func`, or comma-separated addresses.

    Raises ValueError for anything else, saying what is allowed: a name or a file stands alone.
    """
    if value in OUTCOME_REWARD_FILES:
        return str(Path(__file__).with_name(OUTCOME_REWARD_FILES[value]))
    if value.endswith(".py") and "," not in value:
        if not Path(value).is_file():
            raise ValueError(f"there is no file {value}")
        return str(Path(value).absolute())  # processes of a run may work in another folder
    if all(part.strip().startswith(("http://", "https://")) for part in value.split(",")):
        return value
    raise ValueError(
        f"{value!r} must be one of {', '.join(OUTCOME_REWARD_FILES)}, one FILE.py with reward_func, or addresses "
        "that begin with http:// or https://"
    )
