"""Step scores -> values under the policy of the moment (Platt scaling on the rollout's outcomes)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MARGIN = 1e-4
"""Scores are taken to be at least this far from 0 and 1, where their log-odds are infinite."""


def recalibrated(scores: list[torch.Tensor], correct: torch.Tensor) -> list[torch.Tensor]:
    """B step score tensors (S_b,), probabilities, and correct (B,) -> B tensors (S_b,): sigmoid(a logit(p) + b).

    A PRM tells how often the policy that was labelled reached the right answer from a state. The policy in training
    does better from it, or, where it found what the PRM likes and ought not, worse. a >= 0 and b are those under which
    the rollout's outcomes are likeliest given the scores before each response's last step (Platt 1999), a response
    counting once however many steps it has, with a normal prior of deviation 1 around what changes nothing (a = 1,
    b = 0). Scores that tell nothing come out as the rollout's accuracy everywhere (a = 0), so that differences of
    them credit no step; scores that only say right or wrong so far come out as values. No response with two steps: the
    scores as they are.
    """
    import numpy as np
    import torch
    from scipy.optimize import minimize

    odds = [own.clamp(MARGIN, 1 - MARGIN).logit() for own in scores]
    inner = [(own[:-1], float(verdict)) for own, verdict in zip(odds, correct, strict=True) if len(own) > 1]
    if not inner:
        return scores
    x = torch.cat([own for own, _ in inner]).double().numpy()
    weight = np.concatenate([np.full(len(own), 1 / len(own)) for own, _ in inner])
    sign = np.concatenate([np.full(len(own), 2 * verdict - 1) for own, verdict in inner])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, shift = parameters
        margins = sign * (slope * x + shift)
        pull = -weight * sign * np.exp(-np.logaddexp(0, margins))
        value = weight @ np.logaddexp(0, -margins) + ((slope - 1) ** 2 + shift**2) / 2
        return value, np.array([pull @ x + slope - 1, pull.sum() + shift])

    slope, shift = minimize(loss, (1.0, 0.0), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    return [torch.sigmoid(slope * own + shift) for own in odds]
