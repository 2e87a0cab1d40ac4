"""Finished questions -> the label file, without holding up the engines."""

import asyncio
from collections.abc import Callable

from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.records import AnnotatedQuestion
from openrlhf_prm.data.questions import Question


class LabelWriter:
    """Writes questions in a thread, all that finished while the disk was busy at once, so that many engines do not wait
    for one disk. Use as an asynchronous context manager; on leaving, by an error too, everything added is on disk.

    `written` is called, in the event loop, for each question that has become durable.
    """

    def __init__(self, labels: LabelFile, written: Callable[[AnnotatedQuestion], None] = lambda found: None):
        self.labels = labels
        self.written = written
        self._waiting: list[tuple[Question, AnnotatedQuestion]] = []
        self._writing: asyncio.Task | None = None

    def add(self, question: Question, found: AnnotatedQuestion) -> None:
        """Takes a finished question and returns at once. Raises where an earlier one could not be written."""
        self._waiting.append((question, found))
        if self._writing is None or self._writing.done():
            if self._writing is not None:
                self._writing.result()
            self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self.labels.append_all, batch)
            for _, found in batch:
                self.written(found)

    async def __aenter__(self) -> "LabelWriter":
        return self

    async def __aexit__(self, *_) -> None:
        if self._writing is not None:
            await self._writing
        await self._write()
