"""How well step scores agree with step labels. Numbers in, numbers out.

Scores and labels are lists per solution, one number per step; a step counts as right where its number is at least 0.5.
"""

from collections.abc import Sequence

THRESHOLD = 0.5


def step_metrics(scores: Sequence[Sequence[float]], labels: Sequence[Sequence[float]]) -> dict[str, float | None]:
    """`step_accuracy`, `auc`, `first_error_f1` and their number of `steps` for solutions with at least one step in all.

    Raises ValueError where scores and labels do not pair up.
    """
    if [len(row) for row in scores] != [len(row) for row in labels]:
        raise ValueError("scores and labels must have the same solutions with the same numbers of steps")
    flat_scores = [score for row in scores for score in row]
    right = [label >= THRESHOLD for row in labels for label in row]
    if not right:
        raise ValueError("no step to measure on")
    agree = sum((score >= THRESHOLD) == label for score, label in zip(flat_scores, right, strict=True))
    return {
        "steps": len(right),
        "step_accuracy": agree / len(right),
        "auc": auc(flat_scores, right),
        "first_error_f1": first_error_f1(scores, labels),
    }


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
