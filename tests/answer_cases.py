r"""The answers of `answer_cases.txt`, one line a reference: `reference :: right | right || wrong | wrong`."""

from pathlib import Path

TABLE = Path(__file__).with_name("answer_cases.txt")


def cases() -> list[tuple[str, str, bool]]:
    """(reference, answer, whether it is right)."""
    rows = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        reference, _, answers = line.partition(" :: ")
        right, _, wrong = answers.partition(" || ")
        rows += [(reference, answer.strip(), True) for answer in right.split(" | ")]
        rows += [(reference, answer.strip(), False) for answer in wrong.split(" | ")]
    return rows
