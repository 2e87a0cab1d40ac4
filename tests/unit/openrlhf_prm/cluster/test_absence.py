"""Workers that are away, as Ray tells of them."""

import asyncio
from types import SimpleNamespace

import pytest
import ray

from openrlhf_prm.cluster import absence
from openrlhf_prm.cluster.absence import answer_of, answers_of


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(absence, "PAUSE_S", 0.0)
    monkeypatch.setattr(absence, "free", lambda: "nothing is free")


class Worker:
    """Each call takes the next of `answers`: an error, a value, or None for silence. `here`: what a ping finds."""

    def __init__(self, *answers, here=True):
        self.answers, self.here, self.calls = list(answers), here, 0
        self.work = SimpleNamespace(remote=self._work)
        self.ready = SimpleNamespace(remote=self._ready)

    async def _work(self, *args):
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer, args

    async def _ready(self):
        if not self.here:
            await asyncio.Event().wait()
        return True


def gone() -> ray.exceptions.ActorUnavailableError:
    return ray.exceptions.ActorUnavailableError("its node is lost", b"x" * 16)


def test_a_worker_that_is_on_its_way_is_asked_again_and_other_errors_are_raised_at_once():
    worker = Worker(gone(), gone(), "scores")
    assert asyncio.run(answer_of(worker, "work", 1)) == ("scores", (1,)) and worker.calls == 3
    worker = Worker(ValueError("too long"), "scores")
    with pytest.raises(ValueError, match="too long"):
        asyncio.run(answer_of(worker, "work"))
    assert worker.calls == 1


def test_patience_ends_with_what_is_free(monkeypatch, caplog):
    monkeypatch.setattr(absence, "PATIENCE_S", -1.0)
    with pytest.raises(RuntimeError, match="did not come back within -1 s: nothing is free"):
        asyncio.run(answer_of(Worker(gone(), gone()), "work"))


def test_silence_is_said_where_nobody_is_there_and_work_that_takes_long_is_not_asked_again(monkeypatch, caplog):
    monkeypatch.setattr(absence, "LOOK_S", 0.01)

    async def play(worker) -> int:
        waiting = asyncio.ensure_future(answer_of(worker, "work"))
        while not waiting.done() and "does not answer" not in caplog.text and worker.pings < 3:
            await asyncio.sleep(0.01)
        waiting.cancel()
        return worker.calls

    class Pinged(Worker):
        pings = 0

        async def _ready(self):
            self.pings += 1
            return await super()._ready()

    assert asyncio.run(play(Pinged())) == 1 and "does not answer" not in caplog.text
    assert asyncio.run(play(Pinged(here=False))) == 1 and "it starts, or is lost; nothing is free" in caplog.text


def test_all_workers_without_an_event_loop(monkeypatch):
    rounds = iter([gone(), ["a", "b"]])

    def get(waiting):
        assert len(waiting) == 2
        answer = next(rounds)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(absence.ray, "wait", lambda waiting, **_: (waiting, []))
    monkeypatch.setattr(absence.ray, "get", get)
    workers = [SimpleNamespace(usage=SimpleNamespace(remote=object)) for _ in "ab"]
    assert answers_of(workers, "usage") == ["a", "b"]
