"""What is added to the outcome reward: prices on cut, malformed and long responses, a reward for distinct reasoning."""

import re

import torch

from openrlhf_prm.length_penalties.penalty import LengthBatch, PenaltyNeed
from openrlhf_prm.length_penalties.targets import read_target
from openrlhf_prm.ppo.diversity import distinct_shares
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.ppo.rollout_columns import RolloutColumns


class OutcomePenalties:
    """Keeps what the length penalty learns from rollout to rollout in `length_state`."""

    def __init__(self, options: PluginOptions):
        self.options = options
        pattern = options.outcome.format_pattern
        self.format = re.compile(pattern, re.DOTALL) if pattern else None
        self.reads_text = bool(self.format or options.diversity.coef)
        self.length_state: dict = {}

    def well_formed(self, rollout: RolloutColumns) -> torch.Tensor:
        """(B,): whether a response contains `--process_reward.format_pattern`, all where there is none."""
        if not self.format:
            return torch.ones(len(rollout.outcomes), dtype=torch.bool)
        return torch.tensor([bool(self.format.search(text)) for text in rollout.responses])

    def __call__(
        self, rollout: RolloutColumns, well_formed: torch.Tensor, rollouts: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(B,) penalties, and their parts as columns to be logged. rollouts: how many came before this one."""
        outcome, diversity = self.options.outcome, self.options.diversity
        columns: dict[str, torch.Tensor] = {}
        penalties = -outcome.truncation_penalty * rollout.truncated.float()
        if self.format:
            columns["process/malformed"] = 1 - well_formed.float()
            penalties = penalties - outcome.format_penalty * columns["process/malformed"]
        if self.options.penalty is not None:
            batch = self._length_batch(rollout, rollouts)
            columns["length_penalty"] = self.options.length.coef * batch.warm_up * self.options.penalty(batch)
            penalties = penalties + columns["length_penalty"]
            if "multiplier" in self.length_state:
                columns["length_multiplier"] = torch.full_like(penalties, self.length_state["multiplier"])
        if diversity.coef:
            shares = distinct_shares(rollout.responses, rollout.correct.tolist(), rollout.group_size, diversity)
            columns["process/distinct"] = torch.tensor(shares)
            penalties = penalties + diversity.coef * columns["process/distinct"]
        return penalties, columns

    def kept(self, rollout: RolloutColumns, rollouts: int) -> torch.Tensor | None:
        """(B,): False for responses that the length penalty leaves out of training; None where it keeps all."""
        return self.options.penalty.kept(self._length_batch(rollout, rollouts)) if self.options.penalty else None

    def _length_batch(self, rollout: RolloutColumns, rollouts: int) -> LengthBatch:
        """What the penalty declares that it needs, and nothing else."""
        needs = self.options.penalty.needs
        there = {"group_size": rollout.group_size, "token_ids": rollout.token_ids, "questions": rollout.prompts}
        there["state"] = self.length_state
        if PenaltyNeed.TARGETS in needs:
            template = self.options.penalty.target_template
            there["targets"] = torch.tensor([read_target(prompt, template) for prompt in rollout.prompts])
        return LengthBatch(
            lengths=rollout.lengths,
            correct=rollout.correct,
            warm_up=warm_up(rollouts, self.options.length.warmup_steps),
            **{field: there[field] for need in needs for field in need.value},
        )


def warm_up(rollouts: int, steps: int) -> float:
    """Weight 0 at the first rollout, rising linearly to 1 at rollout `steps`; always 1 where `steps` is 0."""
    return min(rollouts / steps, 1.0) if steps else 1.0
