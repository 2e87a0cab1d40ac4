"""A rollout as columns: what rewards are mixed from."""

from dataclasses import dataclass

import torch

from openrlhf_prm.ppo.credit import TurnRewards
from openrlhf_prm.ppo.rollout.records import StepRecord


@dataclass(frozen=True)
class RolloutColumns:
    """Columns of B samples in rollout order, in which the G = group_size samples of a question stand together.

    outcomes: (B,) outcome rewards as they came, less what `turns` were paid, where that stands on the turns. correct:
    (B,) verdicts. lengths: (B,) tokens. truncated: (B,). responses: texts without special tokens, None where
    `OutcomePenalties.reads_text` is false. records: empty where responses were not split. log_ratios: B tensors (T_b,)
    of an online PRM, see `rewards.implicit`; None without one.
    """

    outcomes: torch.Tensor
    correct: torch.Tensor
    lengths: torch.Tensor
    truncated: torch.Tensor
    prompts: list[str]
    responses: list[str] | None
    token_ids: list[list[int]]
    records: list[StepRecord]
    group_size: int
    log_ratios: list[torch.Tensor] | None = None
    turns: TurnRewards | None = None
