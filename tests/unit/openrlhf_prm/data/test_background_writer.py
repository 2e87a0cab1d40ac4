"""Finished questions reach the disk, together where the disk is slow, and before an error gets out."""

import asyncio
import json
import threading

import pytest

from openrlhf_prm.annotation import AnnotatedQuestion, LabelFile
from openrlhf_prm.annotation.records import Root
from openrlhf_prm.data.background_writer import BackgroundWriter
from openrlhf_prm.data.questions import Question

NOTHING = AnnotatedQuestion(Root(0, 8), [], {}, dropped="all_wrong")


class SlowFile(LabelFile):
    """Counts the waits for the disk, the first of which lasts until `disk` is set."""

    def __init__(self, path, settings):
        super().__init__(path, settings)
        self.waits, self.disk = 0, threading.Event()

    def append_all(self, finished):
        self.waits += 1
        self.disk.wait()
        super().append_all(finished)


def ids(path) -> list[str]:
    return [json.loads(line)["id"] for line in (path.parent / f"{path.name}.dropped.jsonl").read_text().splitlines()]


def test_questions_are_written_together_while_the_loop_goes_on(tmp_path):
    path, written = tmp_path / "labels.jsonl", []

    async def run(labels):
        async with BackgroundWriter(labels, written.append) as writer:
            for index in range(50):
                writer.add(Question(str(index), "?", "1"), NOTHING)
                await asyncio.sleep(0)
            assert not written
            labels.disk.set()

    with SlowFile(path, {}) as labels:
        asyncio.run(run(labels))
        assert labels.waits == 2
    assert ids(path) == [str(index) for index in range(50)]
    assert len(written) == 50


def test_what_was_added_is_written_before_an_error_gets_out(tmp_path):
    path = tmp_path / "labels.jsonl"

    async def run(labels):
        async with BackgroundWriter(labels) as writer:
            writer.add(Question("a", "?", "1"), NOTHING)
            writer.add(Question("b", "?", "1"), NOTHING)
            raise KeyError("engine")

    with LabelFile(path, {}) as labels, pytest.raises(KeyError):
        asyncio.run(run(labels))
    assert ids(path) == ["a", "b"]


def test_a_full_disk_ends_the_run(tmp_path):
    class Full(LabelFile):
        def append_all(self, finished):
            raise OSError("no space left")

    taken = []

    async def run(labels):
        async with BackgroundWriter(labels) as writer:
            for name in "ab":
                writer.add(Question(name, "?", "1"), NOTHING)
                taken.append(name)
                await asyncio.wait([writer._writing])

    with Full(tmp_path / "labels.jsonl", {}) as labels, pytest.raises(OSError, match="no space left"):
        asyncio.run(run(labels))
    assert taken == ["a"], "the next question is refused at once"
