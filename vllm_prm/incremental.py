"""What of a solution must still be forwarded, given what is already known. Pure bookkeeping; no engine.

A plan asks the engine for the unknown positions only, and for no token after the last of them. If the engine skipped
one of them because its prefix was cached (its score was forgotten here, or another request is still computing it),
the plan asks once more with prefix-cache reading off.
"""

from collections.abc import Sequence

from vllm_prm.engines import PoolAnswer, PoolRequest
from vllm_prm.errors import StepScoringError
from vllm_prm.families import Rendered
from vllm_prm.score_cache import Logits, ScoreCache, prefix_keys


class ScorePlan:
    """The scoring of one rendered solution: ask `request()` until None, feed each answer to `absorb`, read `rows()`."""

    most_attempts = 2

    def __init__(self, rendered: Rendered, reward_token_ids: Sequence[int], cache: ScoreCache) -> None:
        self.rendered = rendered
        self.reward_token_ids = tuple(reward_token_ids)
        self.cache = cache
        self.generation = cache.generation
        self.computed_tokens = 0
        self.attempts = 0
        self._keys = self._make_keys()
        self._known: dict[int, Logits] = {}
        self._look_up()
        self.cache_hits = len(self._known)

    def _make_keys(self) -> dict[int, bytes]:
        positions = self.rendered.step_positions
        return dict(zip(positions, prefix_keys(self.rendered.token_ids, positions), strict=True))

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the solution up to its last step."""
        return self.rendered.step_positions[-1] + 1

    def _look_up(self) -> None:
        if not self.is_current():
            return
        for position in self._missing():
            row = self.cache.get(self._keys[position])
            if row is not None:
                self._known[position] = row

    def _missing(self) -> list[int]:
        return [position for position in self._keys if position not in self._known]

    def request(self) -> PoolRequest | None:
        """The next request to the engine, or None when every step is scored.

        Raises `StepScoringError` when the engine left a position out although it forwarded every token.
        """
        if self.attempts:
            self._look_up()
        missing = self._missing()
        if not missing:
            return None
        if self.attempts >= self.most_attempts:
            raise StepScoringError(f"the engine returned no score for step positions {missing}")
        self.attempts += 1
        return self._ask(missing)

    def _ask(self, missing: list[int]) -> PoolRequest:
        return PoolRequest(
            token_ids=self.rendered.token_ids[: missing[-1] + 1],
            step_positions=missing,
            reward_token_ids=self.reward_token_ids,
            read_prefix_cache=self.attempts < self.most_attempts,
        )

    def absorb(self, request: PoolRequest, answer: PoolAnswer) -> None:
        """Take the rows of `answer` to `request`."""
        self.computed_tokens += len(request.token_ids) - answer.cached_tokens
        for position, row in answer.rows.items():
            self._known[position] = row
            self.cache.put(self._keys[position], row, self.generation)

    def is_current(self) -> bool:
        """Whether the weights are those the plan began with; if not, its rows may be of two different weights."""
        return self.generation == self.cache.generation

    def rows(self) -> list[Logits]:
        """Raw logits per step, in order."""
        return [self._known[position] for position in self.rendered.step_positions]
