"""A rollout's step scores, outcomes and lengths -> the rewards that training sees, and the figures that are logged.

Shapes: B samples in rollout order, S steps of a sample, G samples per question, which stand together. Everything that
is learned from rollout to rollout (warm-up, length penalty, control variate, detector of hacking) is kept here and
goes into checkpoints by `state_dict`.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from openrlhf_prm.advantages.branch_values import ControlVariate
from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.advantages.tensors import agrees
from openrlhf_prm.ppo.logged_columns import branch_columns, outcome_columns, score_columns, step_columns
from openrlhf_prm.ppo.outcome_penalties import OutcomePenalties, warm_up
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.rollout_columns import RolloutColumns
from openrlhf_prm.ppo.watching import HackingDetector
from openrlhf_prm.rewards.shaping import shape

logger = logging.getLogger(__name__)

LONG = 200
"""Tokens from which a response should have more than one step."""


@dataclass(frozen=True)
class StepRewards:
    """process: B tensors (S_b,). ends: B tensors (S_b,) of token counts at which they stand: where steps end, or every
    token. kept: (B,), False for samples that training leaves out.
    """

    process: list[torch.Tensor]
    ends: list[torch.Tensor]
    kept: torch.Tensor


@dataclass(frozen=True)
class MixedRewards:
    """process, ends, kept: as in `StepRewards`; process is yet to be multiplied by `weight`. penalties: (B,), what is
    added to the weighted outcome reward. values: B tensors (S_b,) of the states before steps, see `StepBatch`; None
    unless the estimator needs them. columns: name -> (B,), to be logged.
    """

    process: list[torch.Tensor]
    weight: float
    ends: list[torch.Tensor]
    penalties: torch.Tensor
    kept: torch.Tensor
    values: list[torch.Tensor | None] | None
    columns: dict[str, torch.Tensor]


def without_prize_for_nothing(process: list[torch.Tensor], rollout: RolloutColumns) -> list[torch.Tensor]:
    """B tensors of process rewards, one for each step with a score, or one for a response without any -> B tensors
    (S_b,), 0 at steps without a score.

    A response without a score shows no text, and what a shaping makes of missing scores is NaN. It gets no process
    reward: what the shaping gives it without a score (`verified_potential` knows the verdict), else 0, and not more
    than the scored response of its group that got least, so that it cannot win its group by showing nothing.
    """
    size, records = rollout.group_size, rollout.records
    adjusted = []
    for place, (rewards, record) in enumerate(zip(process, records, strict=True)):
        spread = torch.zeros(len(record.ends))
        if record.known_scores:
            spread[[not math.isnan(score) for score in record.scores]] = rewards
        elif len(record.ends):
            group = range(place - place % size, place - place % size + size)
            least = min((float(process[other].sum()) for other in group if records[other].known_scores), default=0.0)
            spread[-1] = min(float(rewards.nan_to_num(0.0).sum()), least, 0.0)
        adjusted.append(spread)
    return adjusted


def filled(scores: Sequence[float]) -> list[float]:
    """Scores with that of the step before in place of a missing one, which changed nothing; the first known one at the
    start, and 0.5 where none is known.
    """
    last = next((score for score in scores if not math.isnan(score)), 0.5)
    values = []
    for score in scores:
        last = last if math.isnan(score) else score
        values.append(last)
    return values


class RewardMixer:
    """Called once per rollout."""

    def __init__(self, options: PluginOptions):
        self.options = options
        self.penalties = OutcomePenalties(options)
        self.rollouts = 0
        self.warned_of_steps = False
        self.control = ControlVariate(options.vine)
        self.detector = HackingDetector(options.watch) if options.watch else None

    def __call__(self, rollout: RolloutColumns) -> MixedRewards:
        columns = outcome_columns(rollout)
        well_formed = self.penalties.well_formed(rollout)
        steps = self._step_rewards(rollout)
        process, weight, kept = steps.process, 0.0, steps.kept
        chosen = self.penalties.kept(rollout, self.rollouts)
        if chosen is not None:
            kept = kept & chosen
        if self.options.shaping is not None:
            # A malformed response cannot make up for it with steps that look good.
            rows = zip(steps.process, well_formed, strict=True)
            process = [rewards if fine else rewards.clamp(max=0.0) for rewards, fine in rows]
            weight = self._weight([rewards for rewards, stays in zip(process, kept, strict=True) if stays])
        penalties, penalty_columns = self.penalties(rollout, well_formed, self.rollouts)
        columns |= penalty_columns
        if rollout.records:
            columns |= step_columns(rollout.records, rollout.lengths)
            self._look_at_steps(rollout)
        if self.options.prm is not None:
            columns |= score_columns(rollout.records)
        if self.options.prm is not None or chosen is not None:
            columns["process/kept"] = kept.float()
        if self.options.shaping is not None:
            columns["process/reward"] = weight * torch.stack([rewards.sum() for rewards in process])
            columns["process/hacking"] = self._watch(process, columns, rollout.correct)
        values = None
        if EstimatorNeed.BRANCH_VALUES in self.options.estimator_needs:
            values = [self._values(record) for record in rollout.records]
        if any(record.branches for record in rollout.records):
            columns |= branch_columns(rollout.records)
            self.control.update([state for record in rollout.records for state in record.branches or ()])
        self.rollouts += 1
        return MixedRewards(process, weight, steps.ends, penalties, kept, values, columns)

    def _look_at_steps(self, rollout: RolloutColumns) -> None:
        """Says once where the splitter finds no steps in long responses: they would be scored as wholes."""
        if self.warned_of_steps or self.options.steps is None:
            return
        rows = zip(rollout.records, rollout.lengths.tolist(), strict=True)
        whole = [length for record, length in rows if len(record.ends) == 1 and length > LONG]
        if 2 * len(whole) > len(rollout.records):
            self.warned_of_steps = True
            logger.warning(
                "%d of %d responses are one step each, of %d tokens on average: --steps.splitter %s does not see their "
                "steps (process/one_step)",
                len(whole), len(rollout.records), sum(whole) / len(whole), self.options.steps.splitter,
            )  # fmt: skip

    def state_dict(self) -> dict:
        """Plain numbers, strings, lists and dicts."""
        return {
            "rollouts": self.rollouts,
            "length_penalty": self.penalties.length_state,
            "control_variate": self.control.state_dict(),
            "detector": self.detector.state_dict() if self.detector else {"rollouts": []},
        }

    def load_state_dict(self, state: dict) -> None:
        self.rollouts = state["rollouts"]
        self.penalties.length_state = state["length_penalty"]
        self.control.load_state_dict(state["control_variate"])
        if self.detector:
            self.detector.load_state_dict(state["detector"])

    def _step_rewards(self, rollout: RolloutColumns) -> StepRewards:
        """Shaped step scores or token log-ratios; zeros without a PRM, and for samples that the shaping leaves out."""
        kept = torch.ones(len(rollout.outcomes), dtype=torch.bool)
        ends = [torch.tensor(record.ends, dtype=torch.long) for record in rollout.records]
        if self.options.online_prm is not None:
            pairs = [
                self.options.shaping(ratios, step_ends)
                for ratios, step_ends in zip(rollout.log_ratios, ends, strict=True)
            ]
            return StepRewards([rewards for rewards, _ in pairs], [places for _, places in pairs], kept)
        if self.options.prm is None:
            return StepRewards([torch.zeros(len(step_ends)) for step_ends in ends], ends, kept)
        scores = [torch.tensor(record.known_scores or record.scores[:1]) for record in rollout.records]
        scale = self.options.process_reward.score_scale
        shaped = shape(self.options.shaping, scores, rollout.correct, rollout.group_size, scale)
        kept = torch.tensor([rewards is not None for rewards in shaped])
        process = [steps * 0 if rewards is None else rewards for rewards, steps in zip(shaped, scores, strict=True)]
        return StepRewards(without_prize_for_nothing(process, rollout), ends, kept)

    def _weight(self, process: list[torch.Tensor]) -> float:
        options = self.options.process_reward
        weight = options.coef * warm_up(self.rollouts, options.warmup_steps)
        if options.normalise:
            # The mean stays: without it every further step would be paid or charged for.
            joined = torch.cat(process)
            if not agrees(joined):
                weight /= float(joined.std())
        return weight

    def _values(self, record: StepRecord) -> torch.Tensor | None:
        """(S,) values of the states before steps, or None where there are none; the first, of the question, is NaN."""
        if self.options.vine.values == "prm":
            inner = filled(record.scores[:-1])
        elif record.branches is not None:
            inner = [self.control.value(state) for state in record.branches]
        else:
            return None
        return torch.tensor([float("nan"), *inner])

    def _watch(
        self, process: list[torch.Tensor], columns: dict[str, torch.Tensor], correct: torch.Tensor
    ) -> torch.Tensor:
        """(B,): whether hacking shows, also as a warning."""
        # Before weights: a warm-up would look like a rise.
        rewards = [float(torch.stack([step_rewards.sum() for step_rewards in process]).mean())]
        if self.options.prm is not None:
            # Some shapings hold the outcome too, and fall with it however well the PRM thinks of the policy.
            rewards.append(float(columns["process/step_score"].mean()))
        hacked = self.detector.update(rewards, float(correct.float().mean()))
        if hacked:
            logger.warning(
                "process rewards or step scores have risen and accuracy has fallen over the last %d rollouts "
                "(--watch.window): the policy may be hacking the process reward",
                len(self.detector.rollouts),
            )
        return torch.full((len(correct),), float(hacked))
