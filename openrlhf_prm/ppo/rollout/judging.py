"""The outcome reward of a text, from what the host's single-turn executor asks, and how long it is waited for."""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar

from openrlhf_prm.answers.own_response import WRITTEN
from openrlhf_prm.ppo.rollout.reward_patience import RewardPatience

REWARD_FAULT: ContextVar[Exception | None] = ContextVar("reward_fault", default=None)
"""Of the response being judged: why its reward could not be had, which the host logs and forgets."""


async def verdict(executor, text: str, response: str, prompt: str, label: str) -> Mapping:
    """What the reward function or server of `--reward.remote_url` says of a text, prompt and response together, of
    which `response` is the policy's. Runs in a task of its own: others judge other responses at the same time.

    Raises RuntimeError, naming the flag and the prompt, where it says nothing.
    """
    fetch = executor._fetch_rewards_via_func if executor.reward_func else executor._fetch_rewards_via_http
    WRITTEN.set(lambda: response)
    try:
        (answer,) = await fetch([text], [prompt], [label])
    except Exception as error:
        raise no_reward(executor, prompt, error) from error
    return answer


def no_reward(executor, prompt: str, fault: Exception | None) -> RuntimeError:
    """What to say where a reward could not be had."""
    reason = "the rollout actor's log holds the error" if fault is None else f"{type(fault).__name__}: {fault}"
    return RuntimeError(f"{reward_flag(executor)} gave no reward for the prompt {prompt!r}; {reason}")


def reward_flag(executor) -> str:
    """Who gives its outcome rewards."""
    return f"--reward.remote_url {','.join(executor.reward_endpoints)}"


def limit_waiting(executor, limit_s: float) -> None:
    """Ends the wait of an executor for what hangs: the rewards of the host's single-turn executor, or of ours around
    one, and the environment of an agent. What other executors do in their `execute` is their own.
    """
    rewarded = getattr(executor, "inner", executor)
    if hasattr(rewarded, "reward_endpoints"):
        patience = RewardPatience(limit_s)
        for name in ("_fetch_rewards_via_func", "_fetch_rewards_via_http"):
            setattr(rewarded, name, _patient(getattr(rewarded, name), patience))
    elif (agent := getattr(executor, "agent_instance_cls", None)) is not None:
        executor.agent_instance_cls = _patient_agent(agent, RewardPatience(limit_s, "no environment answered"))


def _patient(fetch: Callable[..., Awaitable[list]], patience: RewardPatience) -> Callable[..., Awaitable[list]]:
    """The host's way to fetch rewards, with a limit of time, noting in `REWARD_FAULT` what went wrong."""

    async def patient(*args) -> list:
        REWARD_FAULT.set(None)
        try:
            answers = await patience.wait(fetch(*args))
            for answer in answers:
                if not isinstance(answer, Mapping) or answer.get("rewards") is None:
                    raise ValueError(f'it answered {str(answer)[:200]}, expected a dict with "rewards"')
            return answers
        except Exception as error:
            REWARD_FAULT.set(error)
            raise

    return patient


def _patient_agent(agent: type, patience: RewardPatience) -> type:
    """The agent's class, whose environment is waited for so long."""

    class Patient(agent):
        async def reset(self, *args, **kwargs):
            return await patience.wait(super().reset(*args, **kwargs))

        async def step(self, *args, **kwargs):
            return await patience.wait(super().step(*args, **kwargs))

    return Patient
