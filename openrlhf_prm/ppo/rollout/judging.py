"""The outcome reward of a text, from what the host's single-turn executor asks."""

from openrlhf_prm.answers.own_response import WRITTEN


async def verdict(executor, text: str, response: str, prompt: str, label: str) -> dict:
    """What the reward function or server of `--reward.remote_url` says of a text, prompt and response together, of
    which `response` is the policy's. Runs in a task of its own: others judge other responses at the same time.
    """
    fetch = executor._fetch_rewards_via_func if executor.reward_func else executor._fetch_rewards_via_http
    WRITTEN.set(lambda: response)
    (answer,) = await fetch([text], [prompt], [label])
    return answer


def reward_flag(executor) -> str:
    """Who gives its outcome rewards."""
    return f"--reward.remote_url {','.join(executor.reward_endpoints)}"
