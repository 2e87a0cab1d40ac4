"""Graded responses of all questions -> the numbers of `result.json`."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

from openrlhf_prm.answers.grouping import answer_classes
from openrlhf_prm.evaluation.responses import GradedResponse, by_question
from openrlhf_prm.measures.choices import best_of_n, majority_vote, pass_at_k, powers_of_two, weighted_vote
from openrlhf_prm.measures.intervals import bootstrap_interval, mean, share_interval
from openrlhf_prm.measures.steps import roc_auc
from vllm_prm.aggregation import applicable_aggregations
from vllm_prm.protocol import aggregated

GOOD_STEP = 0.5  # a step whose score is above this is one the PRM calls right


def solution_score(response: GradedResponse, aggregation: str) -> float | None:
    """The step scores of a response as one number; None where it has no step or one without a score."""
    return aggregated(response.step_scores or [], aggregation)


def summarize(
    responses: Sequence[GradedResponse],
    *,
    vote_aggregation: str = "min",
    step_kind: Callable[[str], str] | None = None,
    seed: int = 0,
) -> dict:
    """The measures of an evaluation, over Q questions with one greedy and n sampled responses each.

    `greedy` accuracy of the greedy responses; `mean_at_n`, `pass_at_n` and `pass_at_k` (k = 1, 2, 4 ... below n too)
    of the sampled ones; `majority_vote`; with step scores `best_of_n` for every aggregation that means
    something for them, and `weighted_vote` (with
    `vote_aggregation`); with step checks `step_accuracy`, the share of right steps among all sampled steps; with both
    `prm_step_accuracy` (score above 0.5 = "right") and `prm_auc` over those of them that have a score. `mean_tokens`,
    `mean_steps` and `truncated` describe the sampled responses, `habits` the kinds of their steps as shares.
    `intervals` holds 95% intervals under the same names, over questions (see `measures.intervals.share_interval`).

    A measure that cannot be computed (no step at all, one class only) is None. Raises ValueError for no response and
    where the questions have unequal numbers of samples.
    """
    groups = list(by_question(responses).values())
    greedy = [next((r for r in group if r.kind == "greedy"), None) for group in groups]
    sampled = [[r for r in group if r.kind == "sample"] for group in groups]
    sizes = {len(group) for group in sampled}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(
            f"every question needs the same number of samples, at least one; got {sorted(sizes) or 'none'}"
        )
    n = sizes.pop()
    correct = [[r.correct for r in group] for group in sampled]
    every = list(chain.from_iterable(sampled))
    shares = {} if None in greedy else {"greedy": [float(r.correct) for r in greedy]}
    shares |= _shares_of_samples(sampled, n, vote_aggregation)
    result: dict = {name: mean(values) for name, values in shares.items()}
    intervals: dict = {name: share_interval(values, seed=seed) for name, values in shares.items()}
    result["pass_at_k"] = {str(k): mean([pass_at_k(verdicts, k) for verdicts in correct]) for k in powers_of_two(n)}
    if every[0].step_scores is not None:
        names = applicable_aggregations(score for r in every for score in r.step_scores or ())
        best = {name: _best_of_n(sampled, name) for name in names}
        result[f"best_of_{n}"] = {name: mean(values) for name, values in best.items()}
        intervals[f"best_of_{n}"] = {name: share_interval(v, seed=seed) for name, v in best.items()}
    for name, measure in (("mean_tokens", lambda r: r.tokens), ("mean_steps", lambda r: len(r.steps))):
        values = [mean([float(measure(r)) for r in group]) for group in sampled]
        result[name], intervals[name] = mean(values), bootstrap_interval(values, seed=seed)
    result["truncated"] = mean([float(r.truncated) for r in every])
    _add_step_measures(result, intervals, sampled, seed)
    if step_kind is not None:
        kinds = Counter(step_kind(step) for r in every for step in r.steps)
        result["habits"] = {kind: count / kinds.total() for kind, count in kinds.most_common()}
    return {**result, "intervals": intervals, "questions": len(groups), "n": n}


def _shares_of_samples(sampled: list[list[GradedResponse]], n: int, vote_aggregation: str) -> dict[str, list[float]]:
    """One share per question of each measure of its n samples."""
    correct = [[r.correct for r in group] for group in sampled]
    answers = [answer_classes([r.answer for r in group]) for group in sampled]
    shares = {
        f"mean_at_{n}": [pass_at_k(verdicts, 1) for verdicts in correct],
        f"pass_at_{n}": [pass_at_k(verdicts, n) for verdicts in correct],
        "majority_vote": [majority_vote(a, c) for a, c in zip(answers, correct, strict=True)],
    }
    if sampled[0][0].step_scores is not None:
        votes = [[solution_score(r, vote_aggregation) for r in group] for group in sampled]
        shares["weighted_vote"] = [weighted_vote(a, s, c) for a, s, c in zip(answers, votes, correct, strict=True)]
    return shares


def _best_of_n(sampled: list[list[GradedResponse]], aggregation: str) -> list[float]:
    """Per question, whether the sample with the best aggregated step scores is right; one that was cut comes last."""
    return [
        best_of_n(
            [solution_score(r, aggregation) for r in group],
            [r.correct for r in group],
            finished=[not r.truncated for r in group],
        )
        for group in sampled
    ]


def _add_step_measures(result: dict, intervals: dict, sampled: list[list[GradedResponse]], seed: int) -> None:
    first = sampled[0][0]
    if first.step_checks is None:
        return
    checks = [[check for r in group for check in r.step_checks] for group in sampled]
    counts = [float(len(group)) for group in checks]
    total = sum(counts)
    result["step_accuracy"] = sum(map(sum, checks)) / total if total else None
    intervals["step_accuracy"] = bootstrap_interval([float(sum(c)) for c in checks], counts, seed=seed)
    if first.step_scores is None:
        return
    judged = [
        [pair for r in group for pair in zip(r.step_scores, r.step_checks, strict=True) if pair[0] is not None]
        for group in sampled
    ]
    counts = [float(len(pairs)) for pairs in judged]
    agree = [float(sum((score > GOOD_STEP) == check for score, check in pairs)) for pairs in judged]
    result["prm_step_accuracy"] = sum(agree) / sum(counts) if sum(counts) else None
    intervals["prm_step_accuracy"] = bootstrap_interval(agree, counts, seed=seed)
    pairs = list(chain(*judged))
    result["prm_auc"] = roc_auc([score for score, _ in pairs], [check for _, check in pairs])
