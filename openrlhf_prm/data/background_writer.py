"""Finished work -> its durable file, without holding up the event loop that does the work."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from openrlhf_prm.data.questions import Question


class QuestionFile(Protocol):
    """A durable file with one entry per question."""

    def append_all(self, finished: list[tuple[Question, Any]]) -> None:
        """Returns when everything is on disk."""


class BackgroundWriter:
    """Writes questions in a thread, all that finished while the disk was busy at once, so that many engines do not wait
    for one disk. Use as an asynchronous context manager; on leaving, by an error too, everything added is on disk.

    `written` is called, in the event loop, with the result of each question that has become durable.
    """

    def __init__(self, file: QuestionFile, written: Callable[[Any], None] = lambda result: None):
        self.file = file
        self.written = written
        self._waiting: list[tuple[Question, Any]] = []
        self._writing: asyncio.Task | None = None

    def add(self, question: Question, result: Any) -> None:
        """Takes a finished question and returns at once. Raises where an earlier one could not be written."""
        self._waiting.append((question, result))
        if self._writing is None or self._writing.done():
            if self._writing is not None:
                self._writing.result()
            self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await asyncio.to_thread(self.file.append_all, batch)
            for _, result in batch:
                self.written(result)

    async def __aenter__(self) -> "BackgroundWriter":
        return self

    async def __aexit__(self, *_) -> None:
        if self._writing is not None:
            await self._writing
        await self._write()
