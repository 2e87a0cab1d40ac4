"""What is logged of attempts, as columns of B episodes: name -> (B,). Shapes: N attempts of an episode."""

import logging

import torch

from openrlhf_prm.measures.self_correction import EDIT_BINS, edit_histogram, edit_ratio, right_to_wrong, wrong_to_right
from openrlhf_prm.ppo.rollout_columns import RolloutColumns

logger = logging.getLogger(__name__)

COPIES = 0.9
"""The share of attempts that repeat the one before, from which a rollout warns."""
_OF_THE_ANSWER = ("process/outcome", "process/accuracy", "process/truncated")
"""Columns of which an episode has its last attempt's, because that is its answer; of others it has the mean."""


def figures(rollout: RolloutColumns, count: int) -> dict[str, torch.Tensor]:
    """rollout: of N * B attempts, see `records.in_attempts`, with their texts. One attempt: its accuracy alone.

    Accuracy of each attempt, and between first and last: difference, right answers won and lost. Between neighbours:
    the share of equal texts, the edit ratio of tokens and its histogram.
    """
    correct = rollout.correct.reshape(-1, count)
    columns = {f"self_correction/accuracy_t{place}": row.float() for place, row in enumerate(correct, start=1)}
    if len(correct) == 1:
        return columns
    first, last = correct[0].tolist(), correct[-1].tolist()
    columns["self_correction/difference"] = correct[-1].float() - correct[0].float()
    columns["self_correction/wrong_to_right"] = torch.tensor(wrong_to_right(first, last))
    columns["self_correction/right_to_wrong"] = torch.tensor(right_to_wrong(first, last))
    texts = [text.strip() for text in rollout.responses]
    pairs = len(texts) - count
    copied = [float(texts[place] == texts[place + count]) for place in range(pairs)]
    ratios = [edit_ratio(rollout.token_ids[place], rollout.token_ids[place + count]) for place in range(pairs)]
    columns["self_correction/copied"] = _over_pairs(copied, count)
    columns["self_correction/edit_ratio"] = _over_pairs(ratios, count)
    bins = zip(*map(edit_histogram, ratios), strict=True)
    for place, shares in enumerate(bins):
        width = 100 // EDIT_BINS
        name = f"self_correction/edits_{place * width}_{(place + 1) * width}"
        columns[name] = _over_pairs(list(shares), count)
    return columns


def of_the_policy(columns: dict[str, torch.Tensor], offline: torch.Tensor) -> dict[str, torch.Tensor]:
    """Columns in which episodes whose first attempt is another policy's, (B,) bool, have the mean of the others: they
    move none. 0 where there are no others.
    """
    if not offline.any():
        return columns
    others = ~offline
    return {
        name: column.where(others, column[others].mean() if others.any() else 0.0) for name, column in columns.items()
    }


def warn_of_copies(columns: dict[str, torch.Tensor]) -> None:
    """A policy that hands in its first attempt once more has learned nothing of corrections, and may never."""
    copied = columns.get("self_correction/copied")
    if copied is not None and float(copied.mean()) >= COPIES:
        logger.warning(
            "%.0f%% of the attempts repeat the one before word by word (self_correction/copied): the policy does not "
            "correct itself. Stage 1 and --self_correction.alpha are there against it",
            100 * float(copied.mean()),
        )


def episode_columns(columns: dict[str, torch.Tensor], count: int) -> dict[str, torch.Tensor]:
    """Columns of N * B attempts -> of B episodes."""
    folded = {name: column.reshape(-1, count) for name, column in columns.items()}
    return {name: rows[-1] if name in _OF_THE_ANSWER else rows.float().mean(0) for name, rows in folded.items()}


def _over_pairs(values: list[float], count: int) -> torch.Tensor:
    return torch.tensor(values).reshape(-1, count).mean(0)
