"""Accuracy of choosing among k of n sampled responses, for curves over k. Pure functions.

Legend: n sampled responses of one question, k of them drawn without replacement, D draws, A distinct answers.
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from openrlhf_prm.measures.choices import answer_key, mean


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4 ... up to n, and n itself."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})


def best_of_k(scores: Sequence[float | None], correct: Sequence[bool], k: int) -> float:
    """Expected accuracy of the response with the highest score among k drawn from the n given ones, without bias.

    With the responses in groups of equal score and L_g responses below group g, the best of k is in group g with chance
    [C(L_g + |g|, k) - C(L_g, k)] / C(n, k), and is then any of its responses alike. A response without a score ranks
    below all. k = 1 is the mean accuracy, k = n is `metrics.best_of_n`. Raises ValueError unless 1 <= k <= n, and for
    unequal lengths.
    """
    n = len(correct)
    if not 1 <= k <= n:
        raise ValueError(f"best of k needs 1 <= k <= number of samples, got k={k} with {n} samples")
    groups: dict[float, list[float]] = {}
    for score, right in zip(scores, correct, strict=True):
        groups.setdefault(-math.inf if score is None else score, []).append(float(right))
    below, expected = 0, 0.0
    for score in sorted(groups):
        size = len(groups[score])
        expected += (math.comb(below + size, k) - math.comb(below, k)) * mean(groups[score])
        below += size
    return expected / math.comb(n, k)


def vote_of_k(
    answers: Sequence[str | None],
    weights: Sequence[float | None],
    correct: Sequence[bool],
    k: int,
    *,
    draws: int = 128,
    seed: int = 0,
) -> float:
    """Expected accuracy of `metrics.weighted_vote` among k responses drawn from the n given ones.

    The mean over all subsets of k where there are at most `draws`, else over so many random ones. Equal weights give
    the majority vote. Raises ValueError unless 1 <= k <= n, and for unequal lengths.
    """
    n = len(correct)
    if not 1 <= k <= n:
        raise ValueError(f"a vote of k needs 1 <= k <= number of samples, got k={k} with {n} samples")
    picks = _subsets(n, k, draws, seed)
    keys = [None if answer is None else answer_key(answer) for answer in answers]
    distinct = list(dict.fromkeys(key for key in keys if key is not None))
    if len(keys) != n or len(weights) != n:
        raise ValueError(f"lists must be aligned: got {len(keys)}, {len(weights)} and {n} entries")
    if not distinct:
        return 0.0
    votes = np.array([[key == answer for answer in distinct] for key in keys], dtype=float)  # (n, A)
    weight = np.array([weight or 0.0 for weight in weights])[:, None]
    verdict = np.array(correct, dtype=float)[:, None]
    totals, counts, rights = ((votes * each)[picks].sum(axis=1) for each in (weight, 1.0, verdict))  # (D, A) each
    totals = np.where(counts > 0, totals, -np.inf)
    first = totals.max(axis=1, keepdims=True)
    chosen = (totals >= first - 1e-12) & (counts > 0)  # sums of the same weights may differ by rounding
    accuracy = np.divide(rights, counts, out=np.zeros_like(rights), where=counts > 0)
    expected = (accuracy * chosen).sum(axis=1) / np.maximum(chosen.sum(axis=1), 1)  # nobody voted: 0
    return float(expected.mean())


def _subsets(n: int, k: int, draws: int, seed: int) -> np.ndarray:
    """(D, k) indices."""
    if math.comb(n, k) <= draws:
        return np.array(list(combinations(range(n), k)))
    order = np.random.default_rng(seed).random((draws, n)).argsort(axis=1)
    return order[:, :k]
