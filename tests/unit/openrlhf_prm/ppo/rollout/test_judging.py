"""Nothing that hangs is waited for: rewards of branches and attempts, environments of agents."""

import asyncio
from types import SimpleNamespace

import pytest

from openrlhf_prm.ppo.rollout.judging import limit_waiting, verdict
from openrlhf_prm.ppo.rollout.reward_patience import RewardTimeout


class Rewarded:
    """The host's single-turn executor as far as rewards go."""

    reward_func, reward_endpoints = True, ["judge.py"]

    def __init__(self, fetch):
        self.fetch = fetch

    async def _fetch_rewards_via_func(self, queries, prompts, labels):
        return await self.fetch()

    async def _fetch_rewards_via_http(self, queries, prompts, labels):
        raise AssertionError


def hangs():
    return asyncio.sleep(999)


async def fails():
    raise KeyError("label")


@pytest.mark.parametrize(
    ("fetch", "told"), [(hangs, r"RewardTimeout: no reward came for 0.05 s \(--reward.timeout\)"), (fails, "KeyError")]
)
@pytest.mark.parametrize("around", [lambda inner: inner, lambda inner: SimpleNamespace(inner=inner)])
def test_a_reward_that_cannot_be_had_is_named_with_its_prompt(around, fetch, told):
    inner = Rewarded(fetch)
    limit_waiting(around(inner), 0.05)
    with pytest.raises(RuntimeError, match=f"^--reward.remote_url judge.py gave no reward for the prompt 'Q'; {told}"):
        asyncio.run(verdict(inner, "Q a", "a", "Q", "a"))


@pytest.mark.parametrize("hanging", ["reset", "step", None])
def test_an_environment_that_hangs_ends_the_wait(hanging):
    class Agent:
        async def reset(self, states):
            return await hangs() if hanging == "reset" else states

        async def step(self, states):
            return await hangs() if hanging == "step" else {"rewards": states["paid"]}

    executor = SimpleNamespace(agent_instance_cls=Agent)
    limit_waiting(executor, 0.05)

    async def play():
        agent = executor.agent_instance_cls()
        return await agent.step(await agent.reset({"paid": 2.0}))

    if hanging is None:
        assert asyncio.run(play()) == {"rewards": 2.0}
    else:
        with pytest.raises(RewardTimeout, match=r"^no environment answered for 0.05 s \(--reward.timeout\)"):
            asyncio.run(play())


def test_other_executors_are_left_alone():
    executor = SimpleNamespace(execute=hangs)
    limit_waiting(executor, 0.05)
    assert vars(executor) == {"execute": hangs}
