"""Questions over engines that are slow, die, or fail, without Ray. No clock: a slow engine waits for others' work."""

import asyncio
from collections import Counter

import pytest

from openrlhf_prm.annotation.records import AnnotatedQuestion, Root
from openrlhf_prm.annotation.scheduler import EngineLost, annotate_all
from openrlhf_prm.data.questions import Question

NOTHING = AnnotatedQuestion(Root(0, 1), [], {}, dropped="all_wrong")


class StubEngine:
    """Holds each question until `release` is set, if there is one; dies while handling the questions in `deadly`, each
    as often as it says there.
    """

    def __init__(self, release: asyncio.Event | None = None, deadly: dict[str, int] | None = None):
        self.release = release
        self.deadly = deadly or {}
        self.done: list[str] = []
        self.busy = self.most = self.recoveries = 0

    async def annotate(self, question):
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(0)
            if self.release is not None:
                await self.release.wait()
            if self.deadly.get(question.id, 0):
                self.deadly[question.id] -= 1
                raise EngineLost("killed")
            self.done.append(question.id)
            return NOTHING
        finally:
            self.busy -= 1

    async def recover(self):
        self.recoveries += 1
        await asyncio.sleep(0)


def questions(count: int) -> list[Question]:
    return [Question(str(index), f"{index}?", "1") for index in range(count)]


def run(engines, count: int, in_flight: int = 2, **options) -> tuple[Counter, int]:
    finished: Counter[str] = Counter()
    again = asyncio.run(
        annotate_all(
            questions(count), engines, in_flight, lambda question, _: finished.update([question.id]), **options
        )
    )
    return finished, again


def once_each(count: int) -> Counter:
    return Counter(str(index) for index in range(count))


def test_every_question_once_and_no_engine_gets_more_than_its_places():
    engines = [StubEngine(), StubEngine()]
    assert run(engines, 25, in_flight=3) == (once_each(25), 0)
    assert max(engine.most for engine in engines) == 3


def test_fast_engines_do_more():
    class Fast(StubEngine):
        async def annotate(self, question):
            annotated = await super().annotate(question)
            if len(self.done) == 38:
                slow.release.set()
            return annotated

    slow, fast = StubEngine(asyncio.Event()), Fast()
    assert run([slow, fast], 40, in_flight=2)[0] == once_each(40)
    assert len(slow.done) == 2, "what it had in its hands, and no more"


def test_few_questions_are_spread_over_all_engines():
    engines = [StubEngine() for _ in range(4)]
    run(engines, 4, in_flight=64)
    assert [len(engine.done) for engine in engines] == [1, 1, 1, 1]


def test_the_questions_of_a_dead_engine_are_tried_again():
    deadly = {"3": 1, "4": 2, "5": 1}  # shared: whichever engine has them in hand dies
    engines = [StubEngine(deadly=deadly), StubEngine(deadly=deadly)]
    assert run(engines, 12) == (once_each(12), 4)
    assert sum(engine.recoveries for engine in engines) == 4


def test_one_engine_that_dies_is_waited_for():
    engine = StubEngine(deadly={"0": 1})
    assert run([engine], 5) == (once_each(5), 1)
    assert engine.recoveries == 1


def test_a_question_that_kills_every_engine_is_named():
    with pytest.raises(RuntimeError, match="engines died 3 times with question 2"):
        run([StubEngine(deadly={"2": 99}), StubEngine(deadly={"2": 99})], 6, attempts=3)


def test_errors_end_everything():
    class Broken(StubEngine):
        async def annotate(self, question):
            if question.id == "7":
                raise ValueError("bad question")
            return await super().annotate(question)

    with pytest.raises(ValueError, match="bad question"):
        run([Broken(), StubEngine(asyncio.Event())], 20)


def test_an_engine_that_cannot_be_replaced_ends_everything():
    class Gone(StubEngine):
        async def recover(self):
            raise RuntimeError("no such node")

    with pytest.raises(RuntimeError, match="no such node"):
        run([Gone(deadly={"0": 1, "1": 1}), StubEngine(asyncio.Event())], 4)
