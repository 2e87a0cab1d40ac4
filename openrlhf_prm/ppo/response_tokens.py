"""What is read of one response's own tokens: where they stand, what stood before them, which carry credit."""

import torch
from openrlhf.trainer.ppo_utils.experience import Experience

from openrlhf_prm.ppo.rollout.records import StepRecord


def turns_of(action_mask: torch.Tensor) -> int:
    """(A,) -> how many runs of action tokens."""
    actions = action_mask.long()
    return int((actions.diff(prepend=actions.new_zeros(1)) == 1).sum())


def log_ratios(experiences: list[Experience]) -> dict[int, torch.Tensor]:
    """Place in the rollout -> (T,) log(pi / pi_ref) of a response's own tokens. The host keeps the reference's log
    probabilities for a loss alone; else the `kl` of its estimator k1 is the log-ratio.
    """
    ratios = {}
    for experience in experiences:
        tokens = experience.kl
        if experience.base_action_log_probs is not None:
            tokens = experience.action_log_probs.float() - experience.base_action_log_probs.float()
        for row, index in enumerate(experience.index):
            ratios[index] = tokens[row][experience.action_mask[row].bool()].float()
    return ratios


def in_context(sequence: torch.Tensor, action_mask: torch.Tensor) -> list[int | tuple[int, ...]]:
    """Tokens (L,) and action mask (L - 1,) of a response -> the tokens that it wrote; one that stands behind words of
    an environment is a tuple of these and itself.
    """
    tokens: list[int | tuple[int, ...]] = []
    places = (action_mask.nonzero().flatten() + 1).tolist()
    for before, place in zip([None, *places], places, strict=False):
        start = place if before is None else before + 1
        words = sequence[start : place + 1].tolist()
        tokens.append(tuple(words) if len(words) > 1 else words[0])
    return tokens


def credited(record: StepRecord) -> torch.Tensor:
    """(T,) bool: False for tokens that only separate steps."""
    tokens = torch.ones(record.tokens, dtype=torch.bool)
    tokens[record.separators] = False
    return tokens


def action_positions(experience: Experience, row: int, record: StepRecord) -> torch.Tensor:
    """The action positions (T,) of one sample's response tokens, checked against its step record."""
    positions = experience.action_mask[row].nonzero().squeeze(-1)
    if len(positions) != record.tokens:
        raise ValueError(f"step spans must align with actions: got {record.tokens} tokens, expected {len(positions)}")
    return positions
