"""Branches: fresh continuations from the states between steps, sampled in the rollout actor itself.

They start the moment a response ends and its group is known to have variance, on the engine that wrote it, so their
prefix is in its KV cache and other responses are still being written meanwhile. Each state is sampled once, however
many responses of the engine pass it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from openrlhf_prm.advantages.branch_values import Branches, VineOptions
from vllm_prm.splitters import split_text, visible


class QuestionOutcomes:
    """The outcomes of one question's responses while they are being written: do they differ?"""

    def __init__(self, size: int):
        self.size = size
        self.outcomes: list[float] = []
        self._decided = asyncio.Event()

    def report(self, outcome: float) -> None:
        self.outcomes.append(outcome)
        if len(set(self.outcomes)) > 1 or len(self.outcomes) == self.size:
            self._decided.set()

    async def have_variance(self) -> bool:
        """Waits until two outcomes differ or all responses have one."""
        await self._decided.wait()
        return len(set(self.outcomes)) > 1


@dataclass(frozen=True)
class Origin:
    """Where branches come from: the response's prompt, label, tokens (prompt included) and vLLM's SamplingParams.

    start: where in the tokens the response begins. judge: text of prompt and response together, text of the response
    alone -> outcome. limit: tokens that prompt and response may have together.
    """

    prompt: str
    label: str
    tokens: Sequence[int]
    start: int
    sampling: object
    limit: int
    judge: Callable[[str, str], Awaitable[float]]


class BranchSampler:
    """Samples the states of responses on one engine. `score` gives the PRM's score of a question's last step, where the
    control variate is wanted.
    """

    def __init__(
        self,
        options: VineOptions,
        splitter: str | None,
        score: Callable[[str, list[str]], Awaitable[float]] | None = None,
    ):
        self.options = options
        self.splitter = splitter
        self.score = score
        self._states: dict[tuple, asyncio.Task] = {}

    def forget(self) -> None:
        """Weights have changed: states are sampled anew."""
        self._states.clear()

    async def sample(self, origin: Origin, ends: Sequence[int], texts: Sequence[str], engine, tokenizer):
        """Branches from the states after each step but the last. ends: positions in `origin.tokens`."""
        return tuple(
            await asyncio.gather(
                *(
                    self._state(origin, end, list(texts[: place + 1]), engine, tokenizer)
                    for place, end in enumerate(ends[:-1])
                )
            )
        )

    async def _state(self, origin: Origin, end: int, texts: list[str], engine, tokenizer) -> Branches:
        key = (origin.label, tuple(origin.tokens[:end]))
        if known := self._states.get(key):
            # Shielded: another response that waits for the same state must not lose it.
            return replace(await asyncio.shield(known), fresh=False)
        task = self._states[key] = asyncio.ensure_future(self._branch(origin, end, texts, engine, tokenizer))
        return await asyncio.shield(task)

    async def _branch(self, origin: Origin, end: int, texts: list[str], engine, tokenizer) -> Branches:
        prefix = list(origin.tokens[:end])
        left = origin.limit - end
        if self.options.max_new_tokens:
            left = min(left, self.options.max_new_tokens)
        if left < 1:
            return Branches((0.0,) * self.options.k, tokens=0)
        probes = self._probes(prefix, texts, min(left, self.options.probe_tokens), origin, engine, tokenizer)
        (outcomes, scores, tokens), (probe_scores, probe_tokens) = await asyncio.gather(
            self._outcomes(prefix, texts, left, origin, engine, tokenizer), probes
        )
        return Branches(tuple(outcomes), tuple(scores), tuple(probe_scores), tokens + probe_tokens)

    async def _outcomes(self, prefix, texts, left, origin, engine, tokenizer):
        outcomes: list[float] = []
        scores: list[float] = []
        tokens = 0
        while count := self.options.next_round(outcomes):
            outputs = await self._continue(prefix, count, left, origin.sampling, engine)
            tokens += sum(len(output.token_ids) for output in outputs)
            outcomes += await asyncio.gather(*(self._judge(prefix, output, origin, tokenizer) for output in outputs))
            if self.score:
                scores += await self._step_scores(
                    outputs, texts, min(left, self.options.probe_tokens), origin, tokenizer
                )
        return outcomes, scores, tokens

    async def _probes(self, prefix, texts, limit, origin, engine, tokenizer):
        if not self.score:
            return (), 0
        outputs = await self._continue(prefix, self.options.probes, limit, origin.sampling, engine)
        scores = await self._step_scores(outputs, texts, limit, origin, tokenizer)
        return scores, sum(len(output.token_ids) for output in outputs)

    async def _step_scores(self, outputs, texts, limit, origin, tokenizer) -> list[float]:
        """The PRM's scores one step into continuations, of which only the first `limit` tokens are read: branches and
        probes must be scored at the same place.
        """
        solutions = []
        for output in outputs:
            pieces = split_text(tokenizer.decode(output.token_ids[:limit], skip_special_tokens=True), self.splitter)
            # A continuation that ends at once adds no step.
            solutions.append([*texts, pieces[0].rstrip()] if pieces and visible(pieces[0]) else texts)
        return list(await asyncio.gather(*(self.score(origin.prompt, solution) for solution in solutions)))

    async def _continue(self, prefix, count, limit, sampling, engine):
        params = deepcopy(sampling)
        params.n, params.max_tokens, params.logprobs = count, limit, None
        params.min_tokens = min(params.min_tokens, limit)
        # Streamed outputs hold only the samples that moved in that engine step; the final one holds all n.
        params.output_kind = type(params.output_kind).FINAL_ONLY
        return (await engine.generate(prefix, params)).outputs

    async def _judge(self, prefix, output, origin, tokenizer) -> float:
        """The outcome of a continuation, a cut one judged as a cut response is: values and outcomes need one scale."""
        tokens = [*prefix, *output.token_ids]
        text, response = (tokenizer.decode(ids, skip_special_tokens=False) for ids in (tokens, tokens[origin.start :]))
        return await origin.judge(text, response)
