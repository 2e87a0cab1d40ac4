"""What of a solution must still be forwarded for its steps' sums of log-probabilities. Pure bookkeeping; no engine.

The log-probability of a token comes from the hidden state before it, so a request never runs the last token it asks
about: what the prefix cache later hides is then exactly what has been summed, and a growing solution is asked for
nothing twice. Where more was cached (another branch began its step with the same words, a sum was forgotten), the front
of a segment is missing. It is asked for again in a request that ends right there: a cache hit is whole blocks and never
a whole request, so its last block is forwarded, with the missing states in it. Only if they reach further back is the
cache left unread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from vllm_prm.engines import PoolAnswer
from vllm_prm.families.implicit import RenderedSums
from vllm_prm.incremental import ScorePlan
from vllm_prm.score_cache import Logits, ScoreCache, prefix_keys


@dataclass(frozen=True)
class SpanRequest:
    """Sum the log-probabilities of the tokens after the positions of each span `[first, end)` of `token_ids`.

    `targets`: these tokens, for all spans in order. `read_prefix_cache=False` forwards every token.
    """

    token_ids: list[int]
    spans: list[tuple[int, int]]
    targets: list[int]
    read_prefix_cache: bool

    def extra_kwargs(self) -> dict[str, Any]:
        """What `StepLogProbPooler` reads."""
        return {"spans": self.spans, "targets": self.targets}


class SumPlan(ScorePlan):
    """One model's sums over one rendered solution, cut at every one of `rendered.cuts` up to the last step.

    `model` tells the sums of several models apart in one `cache`.
    """

    most_attempts = 3

    def __init__(self, rendered: RenderedSums, model: bytes, cache: ScoreCache) -> None:
        cuts = [cut for cut in rendered.cuts if cut <= rendered.step_positions[-1]]
        self._starts = dict(zip(cuts, [rendered.first, *cuts], strict=False))
        self._model = model
        # Segments summed from here to their end only.
        self._partial: dict[int, tuple[int, float]] = {}
        super().__init__(rendered, (), cache)

    def _make_keys(self) -> dict[int, bytes]:
        # A segment's sum depends on every token up to its end, and on where it begins.
        return {
            cut: key + self._model + start.to_bytes(8, "little")
            for (cut, start), key in zip(
                self._starts.items(), prefix_keys(self.rendered.token_ids, list(self._starts)), strict=True
            )
        }

    def _ask(self, missing: list[int]) -> SpanRequest:
        spans = [(self._starts[cut], self._partial.get(cut, (cut, 0.0))[0]) for cut in missing]
        token_ids = self.rendered.token_ids
        return SpanRequest(
            token_ids=token_ids[: spans[-1][1]],
            spans=spans,
            targets=[token for first, end in spans for token in token_ids[first + 1 : end + 1]],
            read_prefix_cache=self.attempts < self.most_attempts,
        )

    def absorb(self, request: SpanRequest, answer: PoolAnswer) -> None:
        """Take the rows of `answer` to `request`."""
        self.computed_tokens += len(request.token_ids) - answer.cached_tokens
        cut_of = {self._partial.get(cut, (cut, 0.0))[0]: cut for cut in self._missing()}
        for first, end in request.spans:
            count, summed = answer.rows[end]
            cut = cut_of[end]
            total = summed + self._partial.get(cut, (cut, 0.0))[1]
            if end - int(count) > first:
                self._partial[cut] = (end - int(count), total)
                continue
            self._known[cut] = (total,)
            self.cache.put(self._keys[cut], (total,), self.generation)

    def rows(self) -> list[Logits]:
        """The sum over the response up to each step position, (S, 1)."""
        totals = dict(zip(self._starts, accumulate(self._known[cut][0] for cut in self._starts), strict=True))
        return [(totals.get(position, 0.0),) for position in self.rendered.step_positions]


class PairPlan:
    """The plans of the model and of its reference, as one: requests, answers and rows are pairs."""

    def __init__(self, rendered: RenderedSums, cache: ScoreCache) -> None:
        self.rendered = rendered
        self.plans = (SumPlan(rendered, b"policy", cache), SumPlan(rendered, b"reference", cache))
        self.cache_hits = sum(plan.cache_hits for plan in self.plans)

    @property
    def computed_tokens(self) -> int:
        """Tokens forwarded, by both models."""
        return sum(plan.computed_tokens for plan in self.plans)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the solution, once for each model. The last one is asked about and never run."""
        return 2 * self.rendered.step_positions[-1]

    def is_current(self) -> bool:
        """Whether the weights are those the plan began with."""
        return all(plan.is_current() for plan in self.plans)

    def request(self) -> tuple[SpanRequest | None, SpanRequest | None] | None:
        """The next request to each engine, None where it has answered all, or None."""
        policy, reference = (plan.request() for plan in self.plans)
        return None if policy is None and reference is None else (policy, reference)

    def absorb(self, request: Sequence[SpanRequest | None], answer: Sequence[PoolAnswer | None]) -> None:
        """Take the answers to `request`."""
        for plan, asked, given in zip(self.plans, request, answer, strict=True):
            if asked is not None:
                plan.absorb(asked, given)

    def rows(self) -> list[Logits]:
        """Per step, both models' log-probability of the response up to its end."""
        policy, reference = (plan.rows() for plan in self.plans)
        return [mine + other for mine, other in zip(policy, reference, strict=True)]
