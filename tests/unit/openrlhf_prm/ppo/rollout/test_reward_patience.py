"""A reward that hangs ends the run; one that only waits its turn does not."""

import asyncio
from types import SimpleNamespace

import pytest

from openrlhf_prm.ppo.rollout import reward_patience
from openrlhf_prm.ppo.rollout.reward_patience import RewardOptions, RewardPatience, RewardTimeout

LIMIT = 0.05


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(reward_patience, "time", SimpleNamespace(monotonic=lambda: now.s))
    return now


def test_results_and_errors_come_through():
    async def fails():
        raise ValueError("of the function")

    patience = RewardPatience(LIMIT)
    assert asyncio.run(patience.wait(asyncio.sleep(0, [1.0]))) == [1.0]
    with pytest.raises(ValueError, match="of the function"):
        asyncio.run(patience.wait(fails()))


@pytest.mark.parametrize("others_go_on", [True, False])
def test_silence_is_what_counts(clock, others_go_on):
    async def run():
        patience = RewardPatience(LIMIT)
        answer = asyncio.get_running_loop().create_future()
        waiting = asyncio.ensure_future(patience.wait(answer))
        await asyncio.sleep(0)
        clock.s = 0.8 * LIMIT
        if others_go_on:
            await patience.wait(asyncio.sleep(0))
        clock.s = 1.2 * LIMIT
        if others_go_on:
            await asyncio.sleep(3 * LIMIT)
            assert not waiting.done()
            answer.set_result([1.0])
        return await waiting, answer

    if others_go_on:
        assert asyncio.run(run())[0] == [1.0]
    else:
        with pytest.raises(RewardTimeout, match=r"no reward came for 0.05 s \(--reward.timeout\)"):
            asyncio.run(run())


def test_who_goes_away_takes_the_work_along():
    async def run():
        work = asyncio.ensure_future(asyncio.sleep(999))
        waiting = asyncio.ensure_future(RewardPatience(999).wait(work))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, work, return_exceptions=True)
        return work.cancelled()

    assert asyncio.run(run())


def test_no_time_at_all_is_refused():
    with pytest.raises(ValueError, match="timeout must be above 0"):
        RewardOptions(timeout=0)
