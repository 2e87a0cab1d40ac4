"""Shorter than the reference at no loss of accuracy: O1-Pruner (arXiv:2501.12570)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from openrlhf_prm.length_penalties.penalty import LengthBatch, LengthPenalty, PenaltyNeed
from openrlhf_prm.options import option

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class O1Pruner(LengthPenalty):
    """w - correct with w = clip(reference_length / length - 1 + accuracy_coef * (correct - reference_accuracy),
    lowest, highest).

    Outcome plus this is w, the authors' weight of a response, at `--length_penalty.coef` 1. `accuracy_coef` is 2 to 5
    in the paper. The bounds are the authors' code's: without them one early end of sequence outweighs a whole group,
    because its length stands in the denominator. With them it still leads it: among seven right answers of 400 tokens a
    wrong one of 2 has w = 4, and they 0.13. `right_only` is ours: a wrong answer gains nothing by being short, as in
    `kimi`. The authors' code then standardises w over the data set; here baselines and
    deviations are the advantage estimator's, so `standardise`, over the batch (its n of n deviation), is off.

    The reference of a question is the mean length and accuracy of its first group of responses in this run, which the
    policy writes before it has learned from that question; `reference_file`, JSONL rows with "prompt", "length" and
    "accuracy", gives references from another model, and must then hold every prompt. A question's first group is its
    own reference: only its deviations from its mean count. A response of no token counts as one of one token. Weights
    that agree are 0 when standardised.
    """

    needs: ClassVar[frozenset[PenaltyNeed]] = frozenset({PenaltyNeed.QUESTIONS, PenaltyNeed.STATE})
    accuracy_coef: float = option(2.0, "weight of accuracy against length", least=0)
    lowest: float = option(-2.0, "smallest reward of a response, outcome included")
    highest: float = option(4.0, "largest reward of a response, outcome included")
    right_only: bool = option(False, "only right answers gain by being short")
    standardise: bool = option(False, "rewards less their mean in the batch, divided by their deviation")
    reference_file: str = option("", "JSONL rows with prompt, length and accuracy of another model")

    def __post_init__(self):
        super().__post_init__()
        if not self.lowest < self.highest:
            raise ValueError(f"lowest must be below highest ({self.highest}), got {self.lowest}")
        if self.reference_file and not Path(self.reference_file).is_file():
            raise ValueError(f"reference_file: there is no file {self.reference_file}")
        self._read()  # a malformed row shows before anything starts

    def conflict(self, limit: int, samples: int) -> str | None:
        if samples > 1 or self.reference_file:
            return None
        return "kind o1_pruner needs --rollout.n_samples_per_prompt above 1, or --length_penalty.reference_file"

    def __call__(self, batch: LengthBatch) -> torch.Tensor:
        lengths, correct = batch.lengths.float(), batch.correct.float()
        if "references" not in batch.state:
            batch.state["references"] = self._read()
        references = batch.state["references"]
        for start in range(0, len(lengths), batch.group_size):
            question, group = batch.questions[start], slice(start, start + batch.group_size)
            if question not in references:
                if self.reference_file:
                    raise ValueError(
                        f"--length_penalty.reference_file {self.reference_file} has no row for the prompt {question!r}"
                    )
                references[question] = [float(lengths[group].mean()), float(correct[group].mean())]
        length, accuracy = lengths.new_tensor([references[question] for question in batch.questions]).T
        gains = length / lengths.clamp(min=1.0) - 1
        if self.right_only:
            gains = gains.where(batch.correct.bool(), gains.clamp(max=0.0))
        weights = (gains + self.accuracy_coef * (correct - accuracy)).clamp(self.lowest, self.highest)
        if self.standardise:
            deviations = weights - weights.mean()
            scale = deviations.pow(2).mean().sqrt()
            weights = deviations / scale if scale > 1e-6 else deviations * 0
        return weights - correct

    def _read(self) -> dict[str, list[float]]:
        references: dict[str, list[float]] = {}
        if not self.reference_file:
            return references
        with open(self.reference_file, encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    row = json.loads(line)
                    references[row["prompt"]] = [float(row["length"]), float(row["accuracy"])]
                except (ValueError, KeyError, TypeError) as error:
                    raise ValueError(f"reference_file: {self.reference_file} line {number}: {error!r}") from None
        return references
