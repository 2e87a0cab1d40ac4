"""How well step scores agree with step labels. Numbers in, numbers out.

Scores and labels are lists per solution, one number per step; a step counts as right where its number is at least 0.5.
"""

from collections.abc import Sequence

THRESHOLD = 0.5
METRICS = ("step_accuracy", "f1", "error_f1", "first_error_f1", "auc", "ece", "brier", "loss")
"""What a training's evaluation measures."""
LOWER_IS_BETTER = frozenset({"ece", "brier", "loss"})


def step_metrics(scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """All of `METRICS` but the loss, and their number of `steps`, for solutions with at least one step in all.

    `f1` is that of right steps, `error_f1` that of wrong ones (their mean is PRMBench's PRMScore, arXiv:2501.03124).
    Raises ValueError where scores and labels do not pair up.
    """
    if [len(row) for row in scores] != [len(row) for row in labels]:
        raise ValueError("scores and labels must have the same solutions with the same numbers of steps")
    flat_scores = [score for row in scores for score in row]
    flat_labels = [label for row in labels for label in row]
    right = [label >= THRESHOLD for label in flat_labels]
    if not right:
        raise ValueError("no step to measure on")
    agree = sum((score >= THRESHOLD) == label for score, label in zip(flat_scores, right, strict=True))
    return {
        "steps": len(right),
        "step_accuracy": agree / len(right),
        "f1": f1([score >= THRESHOLD for score in flat_scores], right),
        "error_f1": f1([score < THRESHOLD for score in flat_scores], [not label for label in right]),
        "first_error_f1": first_error_f1(scores, labels),
        "auc": auc(flat_scores, right),
        "ece": expected_calibration_error(flat_scores, flat_labels),
        "brier": brier_score(flat_scores, flat_labels),
    }


def f1(found: Sequence[bool], true: Sequence[bool]) -> float | None:
    """Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN). None where nothing is true and nothing found."""
    hits = sum(a and b for a, b in zip(found, true, strict=True))
    both = sum(found) + sum(true)
    return 2 * hits / both if both else None


def expected_calibration_error(probabilities: Sequence[float], labels: Sequence[float], bins: int = 10) -> float | None:
    """How far probabilities are from the frequencies they announce (Naeini et al. 2015, with equal bins of [0, 1]):

        sum over bins of  n_b / n * | mean probability - mean label |

    Labels may be soft. 0 is perfect; a constant equal to the mean label is perfect, too. None without a step.
    """
    sums = [[0.0, 0.0] for _ in range(bins)]
    for probability, label in zip(probabilities, labels, strict=True):
        entry = sums[min(int(probability * bins), bins - 1)]
        entry[0] += probability
        entry[1] += label
    return sum(abs(expected - seen) for expected, seen in sums) / len(labels) if labels else None


def brier_score(probabilities: Sequence[float], labels: Sequence[float]) -> float | None:
    """Mean squared difference of probability and label (Brier 1950); always 0.5 gives 0.25 on hard labels. None without
    a step."""
    squares = [(probability - label) ** 2 for probability, label in zip(probabilities, labels, strict=True)]
    return sum(squares) / len(squares) if squares else None


def auc(scores: Sequence[float], right: Sequence[bool]) -> float | None:
    """Chance that a right step scores above a wrong one, ties counting half: (R - n(n+1)/2) / (n m) with R the sum of
    the n right steps' ranks among all n + m (Mann-Whitney). None where all steps are right or all are wrong."""
    positives = sum(right)
    negatives = len(right) - positives
    if not positives or not negatives:
        return None
    order = sorted(range(len(scores)), key=scores.__getitem__)
    rank_sum, start = 0.0, 0
    while start < len(order):
        end = start
        while end < len(order) and scores[order[end]] == scores[order[start]]:
            end += 1
        mean_rank = (start + 1 + end) / 2  # ranks start+1 .. end are tied
        rank_sum += mean_rank * sum(right[index] for index in order[start:end])
        start = end
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def first_error(numbers: Sequence[float]) -> int | None:
    """Index of the first step below 0.5; None where there is none."""
    return next((index for index, number in enumerate(numbers) if number < THRESHOLD), None)


def first_error_f1(scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]]) -> float | None:
    """Harmonic mean of the shares of wrong solutions whose first error is found exactly and of right ones in which none
    is found (ProcessBench, arXiv:2412.06559). None where the labels hold only wrong or only right solutions."""
    found: dict[bool, list[bool]] = {True: [], False: []}
    for row, truth in zip(scores, labels, strict=True):
        expected = first_error(truth)
        found[expected is None].append(first_error(row) == expected)
    if not found[True] or not found[False]:
        return None
    on_right, on_wrong = (sum(hits) / len(hits) for hits in (found[True], found[False]))
    return 2 * on_right * on_wrong / (on_right + on_wrong) if on_right + on_wrong else 0.0
