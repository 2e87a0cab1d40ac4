"""Measures of answers and of steps, as pure functions on lists.

Legend: Q questions, n sampled responses of one question, S steps of one response. Accuracies are shares in [0, 1].

Where several responses are equally good by a score, choosing among them at random is what the score supports; the
functions return the expected accuracy of that choice, so that nothing depends on the order of the samples.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_NUMBER = re.compile(r"[-+]?(?:\d{1,1000}(?:\.\d{0,1000})?|\.\d{1,1000})(?:/0*[1-9]\d{0,999})?")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None for no values."""
    return math.fsum(values) / len(values) if values else None


def pass_at_k(correct: Sequence[bool], k: int) -> float:
    """The chance that at least one of k responses drawn from the n given ones is right, estimated without bias.

        1 - C(n - c, k) / C(n, k)        with c right responses (Chen et al. 2021, arXiv:2107.03374, eq. 1)

    k = 1 is the mean, k = n is "any is right". Raises ValueError unless 1 <= k <= n.
    """
    n, right = len(correct), sum(correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@k needs 1 <= k <= number of samples, got k={k} with {n} samples")
    return 1.0 - math.comb(n - right, k) / math.comb(n, k)


def best_of_n(scores: Sequence[float | None], correct: Sequence[bool]) -> float:
    """Accuracy of the response with the highest score; n scores, n verdicts.

    A response without a score (None: it has no step) is chosen only when no response has one. Responses that share the
    highest score count with equal weight, so equal scores everywhere give the mean accuracy. Raises ValueError for no
    response, and where the lengths differ.
    """
    _require_aligned(scores, correct)
    ranked = [-math.inf if score is None else score for score in scores]
    best = max(ranked)
    return mean([float(right) for score, right in zip(ranked, correct, strict=True) if score == best])


def weighted_vote(answers: Sequence[str | None], scores: Sequence[float | None], correct: Sequence[bool]) -> float:
    """Accuracy of the answer with the largest sum of scores, argmax_a sum_i 1[a_i = a] * score_i (Math-Shepherd,
    arXiv:2312.08935).

    Answers are grouped by `answer_key`. A response without an answer votes for nothing, one without a score votes
    with weight 0; where nobody votes the accuracy is 0. Answers with the same largest sum count with equal weight.
    The scores are meant to be probabilities: a negative score is a vote against. Raises ValueError for no response or
    unequal lengths.
    """
    _require_aligned(scores, correct)
    _require_aligned(answers, correct)
    weights: dict[str, list[float]] = {}
    verdicts: dict[str, list[float]] = {}
    for answer, score, right in zip(answers, scores, correct, strict=True):
        if answer is not None:
            weights.setdefault(answer_key(answer), []).append(score or 0.0)
            verdicts.setdefault(answer_key(answer), []).append(float(right))
    if not weights:
        return 0.0
    totals = {key: math.fsum(values) for key, values in weights.items()}
    best = max(totals.values())
    return mean([mean(verdicts[key]) for key, total in totals.items() if total == best])


def majority_vote(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Accuracy of the most frequent answer (self-consistency, Wang et al. 2022, arXiv:2203.11171): a vote of equal
    weights.
    """
    return weighted_vote(answers, [1.0] * len(answers), correct)


def answer_key(answer: str) -> str:
    """A text that equal answers share: numbers by value (`1,200`, `1200.0` and `2400/2` agree), else the text without
    surplus white space.
    """
    text = _THOUSANDS.sub("", answer.strip().strip("$").strip())
    if _NUMBER.fullmatch(text):
        whole, _, below = text.partition("/")
        return str(Fraction(whole) / Fraction(below or 1))
    return " ".join(answer.split())


def roc_auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """The chance that a positive scores above a negative, ties counted half: (R+ - P(P+1)/2) / (P N), R+ the rank sum
    of the P positives among P + N items (Mann and Whitney 1947). None where one of the classes is empty.
    """
    _require_aligned(scores, labels, empty=True)
    positives, negatives = sum(labels), len(labels) - sum(labels)
    if not positives or not negatives:
        return None
    values = np.asarray(scores, dtype=float)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle[inverse][np.asarray(labels, dtype=bool)].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def wilson_interval(right: float, total: int, z: float = 1.959963984540054) -> tuple[float, float] | None:
    """95% score interval of a share (Wilson 1927). It stays inside [0, 1], and has a width where the share is 0 or 1.

        (p + z^2/2m -+ z sqrt(p(1-p)/m + z^2/4m^2)) / (1 + z^2/m)    with p = right/m, m = total

    None for total = 0.
    """
    if total == 0:
        return None
    share, spread = right / total, z * z / total
    middle = share + spread / 2
    width = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, (middle - width) / (1 + spread)), min(1.0, (middle + width) / (1 + spread))


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0, draws: int = 2000
) -> tuple[float, float] | None:
    """95% percentile bootstrap interval of sum(values) / sum(weights) over questions (Efron 1979).

    Weights default to one. There is one entry per question: a question's responses are not independent, so whole
    questions are drawn. None for no question. Draws without any weight are left out; None where no draw has one.
    """
    if not len(values):
        return None
    numerators = np.asarray(values, dtype=float)
    denominators = np.ones_like(numerators) if weights is None else np.asarray(weights, dtype=float)
    generator = np.random.default_rng(seed)
    means = []
    for _ in range(draws):
        picks = generator.integers(0, len(numerators), size=len(numerators))
        total = denominators[picks].sum()
        if total > 0:
            means.append(numerators[picks].sum() / total)
    return tuple(float(bound) for bound in np.quantile(means, [0.025, 0.975])) if len(means) else None


def share_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """95% interval of the mean of one share per question: Wilson's where every share is 0 or 1, else the
    bootstrap's.
    """
    if all(value in (0, 1) for value in values):
        return wilson_interval(math.fsum(values), len(values))
    return bootstrap_interval(values, seed=seed)


def paired_gain(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> dict | None:
    """Mean of after - before over the same questions with its 95% bootstrap interval: {"gain", "interval"}.

    Pairing removes what the questions have in common, so the interval is narrower than the two separate ones suggest.
    None for no question. Raises ValueError for unequal lengths.
    """
    _require_aligned(before, after, empty=True)
    differences = [new - old for old, new in zip(before, after, strict=True)]
    if not differences:
        return None
    return {"gain": mean(differences), "interval": bootstrap_interval(differences, seed=seed)}


def _require_aligned(left: Sequence, right: Sequence, empty: bool = False) -> None:
    if len(left) != len(right):
        raise ValueError(f"lists must be aligned: got {len(left)} and {len(right)} entries")
    if not empty and not len(left):
        raise ValueError("at least one response is needed, got none")
