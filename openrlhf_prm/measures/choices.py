"""How well responses are chosen: pass@k, the best by score, votes. Pure functions on lists.

Legend: n sampled responses of one question, k of them drawn without replacement, D draws, A distinct answers.
Accuracies are shares in [0, 1].

Where several responses are equally good, choosing among them at random is what the scores support; the functions
return the expected accuracy of that choice, so that nothing depends on the order of the samples.
"""

import math
from collections.abc import Hashable, Sequence
from itertools import combinations

import numpy as np

from openrlhf_prm.measures.intervals import mean, require_aligned

TIE = 1e-12
"""Sums of votes that differ by at most this share of all weights that voted are equal: 0.1 + 0.2 and 0.3 differ by
rounding alone."""


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """The chance that at least one of k responses drawn from the n given ones is right, estimated without bias.

        1 - C(n - c, k) / C(n, k)        with c right responses (Chen et al. 2021, arXiv:2107.03374, eq. 1)

    k = 1 is the mean, k = n is "any is right". Raises ValueError unless 1 <= k <= n.
    """
    n, right = len(correct), sum(correct)
    _require_size("pass@k", k, n)
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def best_of_k(
    scores: Sequence[float | None], correct: Sequence[bool], k: int, finished: Sequence[bool] | None = None
) -> float:
    """Expected accuracy of the response with the highest score among k drawn from the n given ones, without bias.

    With the responses in groups of equal score and L_g responses below group g, the best of k is in group g with chance
    [C(L_g + |g|, k) - C(L_g, k)] / C(n, k), and is then any of its responses alike. A response without a score (None:
    it has no step) ranks below all with one, and one that is not `finished` below all that are: a chain that was cut is
    chosen only where nothing else is there. k = 1 is the mean accuracy, as are equal scores everywhere. Raises
    ValueError unless 1 <= k <= n, and for unequal lengths.
    """
    n = len(correct)
    _require_size("best of k", k, n)
    require_aligned(scores, correct)
    groups: dict[tuple[bool, float], list[float]] = {}
    for score, right, whole in zip(scores, correct, finished or [True] * n, strict=True):
        groups.setdefault((whole, -math.inf if score is None else score), []).append(float(right))
    below, expected = 0, 0.0
    for rank in sorted(groups):
        size = len(groups[rank])
        expected += (math.comb(below + size, k) - math.comb(below, k)) * mean(groups[rank])
        below += size
    return expected / math.comb(n, k)


def best_of_n(scores: Sequence[float | None], correct: Sequence[bool], finished: Sequence[bool] | None = None) -> float:
    """Accuracy of the response with the highest score: `best_of_k` of all n. Raises ValueError as there."""
    return best_of_k(scores, correct, len(correct), finished)


def vote_of_k(
    answers: Sequence[Hashable | None],
    weights: Sequence[float | None],
    correct: Sequence[bool],
    k: int,
    *,
    draws: int = 128,
    seed: int = 0,
) -> float:
    """Expected accuracy of the answer with the largest sum of weights among k responses drawn from the n given ones,

        argmax_a sum_i 1[a_i = a] w_i        (Math-Shepherd, arXiv:2312.08935)

    the mean over all subsets of k where there are at most `draws`, else over so many random ones. Equal weights give
    the majority vote (self-consistency, Wang et al. 2022, arXiv:2203.11171).

    Answers are those that compare equal (`answers.grouping.answer_classes` makes such of texts). A response without an
    answer votes for nothing, one without a weight with weight 0; where nobody votes the accuracy is 0. Answers whose
    sums are equal up to `TIE` win with equal chance. Weights are meant to be probabilities: a negative one is a vote
    against. Raises ValueError unless 1 <= k <= n, and for unequal lengths.
    """
    n = len(correct)
    _require_size("a vote of k", k, n)
    require_aligned(answers, correct)
    require_aligned(weights, correct)
    subsets = _subsets(n, k, draws, seed)
    distinct = list(dict.fromkeys(answer for answer in answers if answer is not None))
    if not distinct:
        return 0.0
    votes = np.array([[answer == one for one in distinct] for answer in answers], dtype=float)  # (n, A)
    weight = np.array([weight or 0.0 for weight in weights])[:, None]
    verdict = np.array(correct, dtype=float)[:, None]
    totals, sizes, counts, rights = (
        (votes * column)[subsets].sum(axis=1) for column in (weight, np.abs(weight), 1.0, verdict)
    )  # (D, A) each
    totals = np.where(counts > 0, totals, -np.inf)
    least = totals.max(axis=1, keepdims=True) - TIE * sizes.sum(axis=1, keepdims=True)
    chosen = (totals >= least) & (counts > 0)
    accuracy = np.divide(rights, counts, out=np.zeros_like(rights), where=counts > 0)
    expected = (accuracy * chosen).sum(axis=1) / np.maximum(chosen.sum(axis=1), 1)  # nobody voted: 0
    return float(expected.mean())


def weighted_vote(
    answers: Sequence[Hashable | None], weights: Sequence[float | None], correct: Sequence[bool]
) -> float:
    """Accuracy of the answer with the largest sum of weights: `vote_of_k` of all n. Raises ValueError as there."""
    return vote_of_k(answers, weights, correct, len(correct))


def majority_vote(answers: Sequence[Hashable | None], correct: Sequence[bool]) -> float:
    """Accuracy of the most frequent answer: a vote of equal weights."""
    return weighted_vote(answers, [1.0] * len(answers), correct)


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4 ... up to n, and n itself: the k of a curve."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})


def _require_size(what: str, k: int, n: int) -> None:
    if n == 0:
        raise ValueError(f"{what} needs at least one response, got none")
    if not 1 <= k <= n:
        raise ValueError(f"{what} needs 1 <= k <= number of samples, got k={k} with {n} samples")


def _subsets(n: int, k: int, draws: int, seed: int) -> np.ndarray:
    """(D, k) indices."""
    if math.comb(n, k) <= draws:
        return np.array(list(combinations(range(n), k)))
    order = np.random.default_rng(seed).random((draws, n)).argsort(axis=1)
    return order[:, :k]
