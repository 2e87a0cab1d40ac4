"""Responses that fork: a later one of a group goes on from a state of an earlier one, on the engine that wrote it.

The host's executor sees whole responses: it asks an engine, and is handed what was copied and what was written then.
"""

import asyncio
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

from openrlhf_prm.advantages.forked_tree import ForkedTree


@dataclass(frozen=True)
class Written:
    """A response as the engine gave it, with the token counts at which others may leave its path."""

    output: object
    fork_ends: tuple[int, ...]


class QuestionForks:
    """The responses of one question, by their place in the group: what each leaves and what of it is there."""

    def __init__(self, tree: ForkedTree, size: int):
        self.tree = tree
        self._asked = 0
        self._written: list[asyncio.Future[Written]] = [asyncio.get_running_loop().create_future() for _ in range(size)]

    def next_place(self) -> int:
        """Of the response that is begun now: tasks of a group begin in its order."""
        self._asked += 1
        return self._asked - 1

    async def path(self, place: int) -> tuple[Written, int] | None:
        """The response that this one leaves and at which fork; None where it begins at the question."""
        left = self.tree.parent(place)
        if left is None:
            return None
        fork, parent = left
        return await asyncio.shield(self._written[parent]), fork

    def report(self, place: int, written: Written) -> None:
        self._written[place].set_result(written)

    def fail(self, place: int, error: BaseException) -> None:
        """Those that wait for this response fail as it did."""
        if not self._written[place].done():
            self._written[place].set_exception(error)
            self._written[place].exception()  # nobody may be waiting


class ForkingEngine:
    """The host's engine as its single-turn executor sees it, for one response of a question. step_ends: tokens of a
    response -> where its steps end. Afterwards `fork_ends` holds where it forks.
    """

    def __init__(self, engine, question: QuestionForks, step_ends: Callable[[Sequence[int]], Sequence[int]]):
        self._engine = engine
        self._question = question
        self._step_ends = step_ends
        self._place = question.next_place()
        self.fork_ends: tuple[int, ...] = ()

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        try:
            written = await self._write(prompt_token_ids, sampling_params, multi_modal_data)
        except BaseException as error:
            self._question.fail(self._place, error)
            raise
        self.fork_ends = written.fork_ends
        self._question.report(self._place, written)
        return written.output

    async def _write(self, prompt, params, images) -> Written:
        path = await self._question.path(self._place)
        copied, known = None, ()
        if path is not None:
            left, fork = path
            if len(left.fork_ends) < fork:  # it ended before: this response is the same
                return left
            copied, known = left.output.outputs[0], left.fork_ends[:fork]
        start = known[-1] if known else 0
        params = deepcopy(params)
        params.max_tokens -= start
        params.min_tokens = max(params.min_tokens - start, 0)
        before = list(copied.token_ids[:start]) if copied else []
        output = await self._engine.generate([*prompt, *before], params, multi_modal_data=images)
        written = output.outputs[0]
        if copied is not None:
            written.token_ids = [*before, *written.token_ids]
            if written.logprobs is not None:
                written.logprobs = [*copied.logprobs[:start], *written.logprobs]
        ends = self._question.tree.fork_ends(self._step_ends(written.token_ids), known, _log_probs(written))
        return Written(output, tuple(ends))

    def __getattr__(self, name):
        return getattr(self._engine, name)


def _log_probs(written) -> list[float]:
    """Of the tokens of an engine's response; none where it was not asked for them."""
    if written.logprobs is None:
        return []
    return [choices[token].logprob for token, choices in zip(written.token_ids, written.logprobs, strict=True)]
