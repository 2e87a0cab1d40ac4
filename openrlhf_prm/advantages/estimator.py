"""What an advantage estimator is, what it may need, and the batch it sees.

Shapes: B responses, G responses per question, S_b steps and T_b tokens of response b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.options import Options

if TYPE_CHECKING:
    import torch


class EstimatorNeed(Enum):
    """What an estimator reads beside steps and outcomes; its value: the fields of `StepBatch` that hold it."""

    GROUP = ("group_size",)
    """Several responses per question."""
    STEP_REWARDS = ("process_rewards",)
    """The rewards of a PRM."""
    TOKENS = ("token_ids",)
    BRANCH_VALUES = ("values", "penalties")
    """Values of the states between steps (`--vine.*`)."""
    SEGMENTS = ("probabilities",)
    """Steps are segments, cut by the estimator's `segment_ends` from token probabilities instead of from text."""
    FORKS = ("fork_ends",)
    """Responses that leave the path of others of their group, as the estimator's `parent` and `fork_ends` say."""
    VERDICTS = ("correct",)
    """Which responses are right."""
    POLICY_LOG_RATIOS = ("log_ratios",)
    """Of the policy to its reference, token by token."""


@dataclass(frozen=True, kw_only=True)
class AdvantageEstimator(Options):
    """Base of estimators: options as fields, `needs`, and a call from a `StepBatch` to B tensors (T_b,)."""

    needs: ClassVar[frozenset[EstimatorNeed]] = frozenset()
    separator_credit: ClassVar[bool] = True
    """Whether tokens that only separate steps have an advantage with `--algo.advantage.separators auto`."""

    def __call__(self, batch: StepBatch) -> list[torch.Tensor]:
        raise NotImplementedError

    @property
    def unbiased(self) -> bool:
        """Whether, with these options, the expected gradient is exactly that of the rewards that it reads, with no
        factor: of process rewards plus outcome where it needs STEP_REWARDS (and VERDICTS: of right responses alone),
        else of the outcome. `benchmarks.credit`
        works it out; values of states must be unbiased themselves.
        """
        return False

    @property
    def reads_probabilities(self) -> bool:
        """Whether rollouts must say how likely their tokens were when they were drawn."""
        return EstimatorNeed.SEGMENTS in self.needs

    @property
    def rescales_process_rewards(self) -> str:
        """What of it takes a weight of process rewards out again; empty where nothing does."""
        return ""

    def trained_tokens(self, batch: StepBatch) -> list[torch.Tensor] | None:
        """B tensors (T_b,) bool: the tokens that the loss's mean runs over; None for all."""
        return None


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """A rollout batch in question order: the G responses of a question stand together. It lacks those that training
    leaves out.

    step_ends: B tensors (S_b,) of token counts, strictly increasing: step k of response b is tokens
    step_ends[k-1]..step_ends[k]-1, and the last end is T_b. A response without tokens has no step, any other at least
    one. outcome_rewards: (B,), penalties included.

    The other fields are there where the estimator `needs` them, else None. group_size: G, or a list of it per question
    where responses were left out; `groups` reads both. process_rewards: B tensors (S_b,), after shaping. token_ids: the
    responses' tokens; one that an environment's words stand before is a tuple of these and itself, so that equal
    tokens after other words are not equal. values: B tensors (S_b,), V of the state before each step on the scale of
    the outcome (the first, V of the question, may be NaN: the group tells it), None for a response whose states were
    not valued; with penalties (B,), the part of outcome_rewards that is not the outcome. probabilities: B tensors
    (T_b,). correct: (B,) bool. log_ratios: B tensors (T_b,). fork_ends: B
    lists of the token counts at which responses fork.

    credited: B tensors (T_b,) bool, False for tokens that only separate steps and will get no advantage; None where all
    do. Callers take it from them, so only an estimator that whitens reads it.
    """

    step_ends: list[torch.Tensor]
    outcome_rewards: torch.Tensor
    group_size: int | list[int] | None = None
    process_rewards: list[torch.Tensor] | None = None
    token_ids: list[list[int]] | None = None
    values: list[torch.Tensor | None] | None = None
    penalties: torch.Tensor | None = None
    probabilities: list[torch.Tensor] | None = None
    correct: torch.Tensor | None = None
    log_ratios: list[torch.Tensor] | None = None
    fork_ends: list[Sequence[int]] | None = None
    credited: list[torch.Tensor] | None = None

    def __post_init__(self):
        batch = len(self.outcome_rewards)
        if len(self.step_ends) != batch:
            raise ValueError(f"steps must align with responses: got {len(self.step_ends)} span rows, expected {batch}")
        if self.group_size is not None:
            sizes = [self.group_size] if isinstance(self.group_size, int) else self.group_size
            forms = batch % sizes[0] == 0 if isinstance(self.group_size, int) and sizes[0] > 0 else sum(sizes) == batch
            if min(sizes, default=1) < 1 or not forms:
                raise ValueError(f"{batch} responses do not form groups of {self.group_size}")
        if self.process_rewards is None:
            return
        if len(self.process_rewards) != batch:
            rows = len(self.process_rewards)
            raise ValueError(f"step rewards must align with responses: got {rows} reward rows, expected {batch}")
        for index, (rewards, ends) in enumerate(zip(self.process_rewards, self.step_ends, strict=True)):
            if len(rewards) != len(ends):
                raise ValueError(f"response {index} has {len(rewards)} step rewards, expected {len(ends)}")

    @property
    def groups(self) -> list[range]:
        """The places of each question's responses."""
        whole, size = len(self.outcome_rewards), self.group_size
        sizes = [size] * (whole // size) if isinstance(size, int) else size
        ends = list(accumulate(sizes))
        return [range(end - count, end) for end, count in zip(ends, sizes, strict=True)]
