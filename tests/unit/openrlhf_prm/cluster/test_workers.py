"""How solutions are put together into calls of the PRM workers. The workers here answer when they are told to."""

import asyncio
import pickle
from types import SimpleNamespace

import pytest

from openrlhf_prm.cluster.workers import ScoringPool


class Worker:
    """Scores a step with its length; each call waits for `release`."""

    def __init__(self):
        self.calls: list[list] = []
        self.release = asyncio.Event()
        self.score_all = SimpleNamespace(remote=self._score_all)

    async def _score_all(self, solutions):
        self.calls.append([question for question, _ in solutions])
        await asyncio.sleep(0)
        await self.release.wait()
        if any(question == "dies" for question, _ in solutions):
            raise RuntimeError("the worker died")
        return [
            ValueError(question) if question == "bad" else [float(len(s)) for s in steps]
            for question, steps in solutions
        ]


async def started(*coroutines) -> list[asyncio.Task]:
    """The coroutines as tasks, in order, each run as far as it comes by itself."""
    tasks = []
    for coroutine in coroutines:
        tasks.append(asyncio.ensure_future(coroutine))
        for _ in range(5):
            await asyncio.sleep(0)
    return tasks


def test_what_waits_goes_out_together():
    async def play():
        pool = ScoringPool([Worker()])
        tasks = await started(*(pool.score(f"q{i}", ["a" * i]) for i in range(6)))
        (worker,) = pool.workers
        assert worker.calls == [["q0"], ["q1"]]
        worker.release.set()
        assert await asyncio.gather(*tasks) == [[float(i)] for i in range(6)]
        assert worker.calls == [["q0"], ["q1"], ["q2", "q3", "q4", "q5"]]
        assert not pool._senders

    asyncio.run(play())


def test_workers_share_a_burst():
    async def play():
        pool = ScoringPool([Worker(), Worker()])
        for worker in pool.workers:
            worker.release.set()
        await asyncio.gather(*(pool.score(f"q{i}", ["a"]) for i in range(12)))
        assert [sum(map(len, worker.calls)) for worker in pool.workers] == [8, 4]

    asyncio.run(play())


def test_a_call_has_a_largest_size(monkeypatch):
    monkeypatch.setattr(ScoringPool, "MOST_SOLUTIONS", 3)

    async def play():
        pool = ScoringPool([Worker()])
        pool.workers[0].release.set()
        assert len(await asyncio.gather(*(pool.score(f"q{i}", ["a"]) for i in range(10)))) == 10
        assert max(map(len, pool.workers[0].calls)) == 3

    asyncio.run(play())


def test_an_error_reaches_its_own_caller_only():
    async def play():
        pool = ScoringPool([Worker()])
        tasks = await started(*(pool.score(q, ["a"]) for q in ("q0", "q1", "bad", "good")))
        pool.workers[0].release.set()
        assert await tasks[3] == [1.0]
        with pytest.raises(ValueError, match="bad"):
            await tasks[2]

    asyncio.run(play())


def test_a_dead_worker_fails_all_of_its_call_and_the_rest_goes_on():
    async def play():
        pool = ScoringPool([Worker()])
        tasks = await started(*(pool.score(q, ["a"]) for q in ("dies", "q1", "q2")))
        pool.workers[0].release.set()
        with pytest.raises(RuntimeError, match="died"):
            await tasks[0]
        assert await asyncio.gather(*tasks[1:]) == [[1.0], [1.0]]

    asyncio.run(play())


def test_a_caller_that_is_cancelled_is_passed_over():
    async def play():
        pool = ScoringPool([Worker()])
        tasks = await started(*(pool.score(f"q{i}", ["a"]) for i in range(4)))
        tasks[2].cancel()
        pool.workers[0].release.set()
        assert await asyncio.gather(tasks[0], tasks[1], tasks[3]) == [[1.0]] * 3
        assert tasks[2].cancelled()

    asyncio.run(play())


def test_no_steps_reach_no_worker_and_the_pool_travels():
    pool = pickle.loads(pickle.dumps(ScoringPool([])))
    assert asyncio.run(pool.score("q", [])) == []
