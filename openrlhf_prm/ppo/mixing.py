"""A rollout's step scores, outcomes and lengths -> the rewards that training sees, and the figures that are logged.

Shapes: B samples in rollout order, S steps of a sample, G samples per question, which stand together. Everything that
is learned from rollout to rollout (warm-up, length penalty, control variate, detector of hacking) is kept here and
goes into checkpoints by `state_dict`.
"""

import logging
import re
from dataclasses import dataclass
from types import SimpleNamespace

import torch

from openrlhf_prm.advantages.batch import agrees
from openrlhf_prm.advantages.branch_values import ControlVariate, VineOptions
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.length_penalties.batch import LengthBatch
from openrlhf_prm.length_penalties.targets import read_target
from openrlhf_prm.ppo.diversity import DiversityOptions, distinct_shares
from openrlhf_prm.ppo.flags import build, options_of
from openrlhf_prm.ppo.rollout.records import StepRecord, hidden_share
from openrlhf_prm.ppo.watching import HackingDetector, WatchOptions
from openrlhf_prm.rewards import REWARD_SHAPINGS, shape

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rollout:
    """A rollout as columns of B. outcomes: outcome rewards as they came. correct: verdicts. lengths: tokens. responses:
    texts without special tokens, where `RewardMixer.reads_text`. records: empty where responses were not split.
    log_ratios: B tensors (T_b,) of an online PRM, see `rewards.implicit`; None without one.
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


@dataclass(frozen=True)
class MixedRewards:
    """process: B tensors (S_b,), to be multiplied by `weight`. ends: B tensors (S_b,) of token counts at which they
    stand: where steps end, or every token. penalties: (B,), what is added to the weighted outcome reward. kept: (B,),
    False for samples that training leaves out. values: B tensors (S_b,) of the states before steps, see `StepBatch`.
    columns: name -> (B,), to be logged.
    """

    process: list[torch.Tensor]
    weight: float
    ends: list[torch.Tensor]
    penalties: torch.Tensor
    kept: torch.Tensor
    values: list[torch.Tensor | None]
    columns: dict[str, torch.Tensor]


class RewardMixer:
    """Built from the host's arguments; called once per rollout."""

    def __init__(self, args: SimpleNamespace):
        self.options = args.process_reward
        self.shaping = build(REWARD_SHAPINGS, self.options.shaping, self.options)
        self.length_options = args.length_penalty
        kind = self.length_options.kind
        self.length_penalty = build(LENGTH_PENALTIES, kind, self.length_options) if kind else None
        self.diversity = options_of(DiversityOptions, args.diversity)
        self.vine = options_of(VineOptions, args.vine)
        self.format = re.compile(self.options.format_pattern, re.DOTALL) if self.options.format_pattern else None
        self.reads_text = bool(self.format or self.diversity.coef)
        self.rollouts = 0
        self.length_state: dict = {}
        self.control = ControlVariate()
        self.detector = HackingDetector(options_of(WatchOptions, args.watch))

    def __call__(self, rollout: Rollout) -> MixedRewards:
        columns = {
            "process/outcome": rollout.outcomes,
            "process/accuracy": rollout.correct.float(),
            "process/truncated": rollout.truncated.float(),
        }
        implicit = "log_ratios" in self.shaping.needs
        scored = bool(rollout.records) and rollout.records[0].scores is not None
        well_formed = torch.ones(len(rollout.outcomes), dtype=torch.bool)
        if self.format:
            well_formed = torch.tensor([bool(self.format.search(text)) for text in rollout.responses])
        kept = torch.ones(len(rollout.outcomes), dtype=torch.bool)
        ends = [torch.tensor(record.ends) for record in rollout.records]
        if implicit:
            pairs = [self.shaping(own, end) for own, end in zip(rollout.log_ratios, ends, strict=True)]
            shaped, ends = [rewards for rewards, _ in pairs], [end for _, end in pairs]
        process, weight = [torch.zeros(len(own)) for own in ends], 0.0
        if scored:
            shaped = self._shaped(rollout)
            kept = torch.tensor([own is not None for own in shaped])
            shaped = [zeros if own is None else own for own, zeros in zip(shaped, process, strict=True)]
        if scored or implicit:
            # A malformed response cannot make up for it with steps that look good.
            process = [own if fine else own.clamp(max=0.0) for own, fine in zip(shaped, well_formed, strict=True)]
            weight = self._weight(process)
        penalties = self._penalties(rollout, well_formed, columns)
        if rollout.records:
            columns |= _step_columns(rollout.records, rollout.lengths)
        if scored:
            columns |= _score_columns(rollout.records) | {"process/kept": kept.float()}
        if scored or implicit:
            sums = torch.stack([own.sum() for own in process])
            columns["process/reward"] = weight * sums
            # Before weights: a warm-up would look like a rise.
            rewards = [float(sums.mean())]
            if scored:
                # Some shapings hold the outcome too, and fall with it however well the PRM thinks of the policy.
                rewards.append(float(columns["process/step_score"].mean()))
            columns["process/hacking"] = self._watch(rewards, rollout.correct)
        values = [self._values(record) for record in rollout.records]
        if any(record.branches for record in rollout.records):
            columns |= _branch_columns(rollout.records)
            self.control.update([state for record in rollout.records for state in record.branches or ()])
        self.rollouts += 1
        return MixedRewards(process, weight, ends, penalties, kept, values, columns)

    def state_dict(self) -> dict:
        """Plain numbers, strings, lists and dicts."""
        return {
            "rollouts": self.rollouts,
            "length_penalty": self.length_state,
            "control_variate": self.control.state_dict(),
            "detector": self.detector.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.rollouts = state["rollouts"]
        self.length_state = state["length_penalty"]
        self.control.load_state_dict(state["control_variate"])
        self.detector.load_state_dict(state["detector"])

    def _shaped(self, rollout: Rollout) -> list[torch.Tensor | None]:
        scores = [torch.tensor(record.scores, dtype=torch.float32) for record in rollout.records]
        return shape(self.shaping, scores, rollout.correct, rollout.group_size, self.options.score_scale)

    def _weight(self, process: list[torch.Tensor]) -> float:
        weight = self.options.coef * warm_up(self.rollouts, self.options.warmup_steps)
        if self.options.normalise:
            # The mean stays: without it every further step would be paid or charged for.
            joined = torch.cat(process)
            if not agrees(joined):
                weight /= float(joined.std())
        return weight

    def _penalties(self, rollout: Rollout, well_formed: torch.Tensor, columns: dict[str, torch.Tensor]) -> torch.Tensor:
        """(B,): what is added to the outcome; each part is also a column."""
        penalties = -self.options.truncation_penalty * rollout.truncated.float()
        if self.format:
            columns["process/malformed"] = 1 - well_formed.float()
            penalties = penalties - self.options.format_penalty * columns["process/malformed"]
        if self.length_penalty is not None:
            batch = self._length_batch(rollout)
            columns["length_penalty"] = self.length_options.coef * batch.warm_up * self.length_penalty(batch)
            penalties = penalties + columns["length_penalty"]
            if "multiplier" in self.length_state:
                columns["length_multiplier"] = torch.full_like(penalties, self.length_state["multiplier"])
        if self.diversity.coef:
            shares = distinct_shares(rollout.responses, rollout.correct.tolist(), rollout.group_size, self.diversity)
            columns["process/distinct"] = torch.tensor(shares)
            penalties = penalties + self.diversity.coef * columns["process/distinct"]
        return penalties

    def _length_batch(self, rollout: Rollout) -> LengthBatch:
        targets = None
        if "targets" in self.length_penalty.needs:
            template = self.length_penalty.target_template
            targets = torch.tensor([read_target(prompt, template) for prompt in rollout.prompts])
        return LengthBatch(
            lengths=rollout.lengths,
            correct=rollout.correct,
            group_size=rollout.group_size,
            token_ids=rollout.token_ids,
            targets=targets,
            questions=rollout.prompts,
            state=self.length_state,
            warm_up=warm_up(self.rollouts, self.length_options.warmup_steps),
        )

    def _values(self, record: StepRecord) -> torch.Tensor | None:
        """(S,) values of the states before steps, or None where there are none; the first, of the question, is NaN."""
        if self.vine.values == "prm" and record.scores is not None:
            inner = list(record.scores[:-1])
        elif record.branches is not None:
            inner = [self.control.value(state) for state in record.branches]
        else:
            return None
        return torch.tensor([float("nan"), *inner])

    def _watch(self, rewards: list[float], correct: torch.Tensor) -> torch.Tensor:
        hacked = self.detector.update(rewards, float(correct.float().mean()))
        if hacked:
            logger.warning(
                "process rewards or step scores have risen and accuracy has fallen over the last %d rollouts "
                "(--watch.window): the policy may be hacking the process reward",
                len(self.detector.rollouts),
            )
        return torch.full((len(correct),), float(hacked))


def warm_up(rollouts: int, steps: int) -> float:
    """Weight 0 at the first rollout, rising linearly to 1 at rollout `steps`; always 1 where `steps` is 0."""
    return min(rollouts / steps, 1.0) if steps else 1.0


def _step_columns(records: list[StepRecord], lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    steps = torch.tensor([len(record.ends) for record in records], dtype=torch.float32)
    return {
        "process/steps": steps,
        "process/tokens_per_step": lengths / steps.clamp(min=1.0),
        "process/repetition": torch.tensor([record.repetition for record in records]),
    }


def _score_columns(records: list[StepRecord]) -> dict[str, torch.Tensor]:
    return {
        "process/step_score": torch.tensor([sum(record.scores) / len(record.scores) for record in records]),
        "process/min_step_score": torch.tensor([min(record.scores) for record in records]),
        "process/scoring_s": torch.tensor([record.scoring_s for record in records]),
        "process/scoring_hidden": torch.full((len(records),), hidden_share(records)),
    }


def _branch_columns(records: list[StepRecord]) -> dict[str, torch.Tensor]:
    """Branches per valued state, tokens they cost, and the share of states another response had met."""
    states = [record.branches or () for record in records]
    counts = [max(len(own), 1) for own in states]
    return {
        "vine/k": torch.tensor([sum(len(s.outcomes) for s in own) / n for own, n in zip(states, counts, strict=True)]),
        "vine/branch_tokens": torch.tensor([float(sum(s.tokens for s in own if s.fresh)) for own in states]),
        "vine/shared": torch.tensor([sum(not s.fresh for s in own) / n for own, n in zip(states, counts, strict=True)]),
    }
