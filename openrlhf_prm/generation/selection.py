"""Which of a question's right responses become training data. Pure functions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openrlhf_prm.generation.sampler import Candidate
from openrlhf_prm.options import Options, option
from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.protocol import aggregated


def exact(left: Candidate, right: Candidate) -> float:
    """1 where the texts are equal, else 0."""
    return float(left.response == right.response)


def whitespace(left: Candidate, right: Candidate) -> float:
    """1 where the texts are equal but for white space, else 0."""
    return float(left.response.split() == right.response.split())


def step_set(left: Candidate, right: Candidate) -> float:
    """The share of steps that two responses have in common, |A and B| / |A or B| (Jaccard 1901), with equal steps
    counted once and white space passed over. 1 for two responses without steps.
    """
    a, b = ({" ".join(step.split()) for step in candidate.steps} for candidate in (left, right))
    return len(a & b) / len(a | b) if a | b else 1.0


SIMILARITIES: dict[str, Callable[[Candidate, Candidate], float]] = {
    "exact": exact,
    "whitespace": whitespace,
    "step_set": step_set,
}
"""Name -> similarity of two responses, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(Options):
    """Which right responses become training data."""

    aggregation: str = option("min", "how step scores become one score of a response", choices=SCORE_AGGREGATIONS)
    min_score: float | None = option(None, "leave out responses that score less", kind=float)
    similarity: str = option("whitespace", "what makes two responses duplicates", choices=SIMILARITIES)
    duplicate_from: float = option(
        1.0,
        "similarity to a better response from which one is a duplicate; below 1 for near-duplicates by step_set",
        above=0,
        most=1,
    )
    max_per_question: int = option(4, "best responses of a question that are kept", least=1)


@dataclass(frozen=True)
class Selection:
    """The kept candidates, best first, with their scores (None without a PRM), and how many were left out why."""

    kept: list[tuple[Candidate, float | None]]
    below_score: int
    duplicates: int
    beyond_cap: int


def select(candidates: Sequence[Candidate], options: SelectionOptions) -> Selection:
    """Ranks by aggregated step scores, then drops what scores too low, duplicates of better ones, and what is beyond
    the cap, in this order.

    Candidates of equal score stay in the order of their sampling, which is the whole order without a PRM. One that the
    PRM gave no whole score (it has no step, or a step without a verdict) ranks last and is below any `min_score`.
    """
    scored = [(one, aggregated(one.step_scores or [], options.aggregation)) for one in candidates]
    ranked = sorted(scored, key=lambda pair: float("-inf") if pair[1] is None else pair[1], reverse=True)
    good = ranked
    if options.min_score is not None:
        good = [(one, score) for one, score in ranked if score is not None and score >= options.min_score]
    similarity = SIMILARITIES[options.similarity]
    distinct: list[tuple[Candidate, float | None]] = []
    for one, score in good:
        if all(similarity(one, other) < options.duplicate_from for other, _ in distinct):
            distinct.append((one, score))
    kept = distinct[: options.max_per_question]
    return Selection(
        kept=kept,
        below_score=len(ranked) - len(good),
        duplicates=len(good) - len(distinct),
        beyond_cap=len(distinct) - len(kept),
    )
