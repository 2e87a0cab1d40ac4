"""What is logged of a rollout, as columns of B samples: name -> (B,)."""

import torch

from openrlhf_prm.ppo.rollout.records import StepRecord, hidden_share
from openrlhf_prm.ppo.rollout_columns import RolloutColumns


def outcome_columns(rollout: RolloutColumns) -> dict[str, torch.Tensor]:
    """The outcome reward as it came, and whether a response is right and was cut."""
    columns = {
        "process/outcome": rollout.outcomes,
        "process/accuracy": rollout.correct.float(),
        "process/truncated": rollout.truncated.float(),
    }
    return columns if rollout.turns is None else columns | {"process/turn_reward": rollout.turns.total}


def step_columns(records: list[StepRecord], lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    """How many steps, how long they are, and how many stood there before."""
    steps = torch.tensor([len(record.ends) for record in records], dtype=torch.float32)
    return {
        "process/steps": steps,
        "process/turns": torch.tensor([float(len(record.turn_ends)) for record in records]),
        "process/one_step": (steps == 1).float(),
        "process/tokens_per_step": lengths / steps.clamp(min=1.0),
        "process/repetition": torch.tensor([record.repetition for record in records]),
    }


def score_columns(records: list[StepRecord]) -> dict[str, torch.Tensor]:
    """What the PRM says, and how long that took. A response without a score does not move the means of scores."""
    scores = [record.known_scores for record in records]
    return {
        "process/step_score": _with_mean([sum(known) / len(known) if known else None for known in scores]),
        "process/min_step_score": _with_mean([min(known, default=None) for known in scores]),
        "process/unscored": torch.tensor([float(not known) for known in scores]),
        "process/scoring_s": torch.tensor([record.scoring_s for record in records]),
        "process/scoring_hidden": torch.full((len(records),), hidden_share(records)),
    }


def _with_mean(values: list[float | None]) -> torch.Tensor:
    """(B,) numbers with the mean of the others where there is none; 0 where there is none at all."""
    known = [value for value in values if value is not None]
    mean = sum(known) / len(known) if known else 0.0
    return torch.tensor([mean if value is None else value for value in values])


def branch_columns(records: list[StepRecord]) -> dict[str, torch.Tensor]:
    """Branches per valued state, tokens they cost, and the share of states another response had met."""
    states_of = [record.branches or () for record in records]
    branches = [sum(len(state.outcomes) for state in states) / max(len(states), 1) for states in states_of]
    tokens = [float(sum(state.tokens for state in states if state.fresh)) for states in states_of]
    shared = [sum(not state.fresh for state in states) / max(len(states), 1) for states in states_of]
    return {
        "vine/k": torch.tensor(branches),
        "vine/branch_tokens": torch.tensor(tokens),
        "vine/shared": torch.tensor(shared),
    }
