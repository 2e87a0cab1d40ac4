"""A group-level reward for distinct correct reasoning, so that a policy is not paid for one way again and again.

Of the correct responses of a question, i gets d_i = 1 / |{j correct: similarity(i, j) >= threshold}|: one for
reasoning that no other response of the group has, 1/n for each of n copies (i counts itself), 0 for wrong responses.
Copies share what one of them would get, so the group's reward grows only with the number of distinct ways. The
similarity of two responses is |A & B| / |A | B| over their sets of word n-grams, after lower-casing and dropping white
space and punctuation that is no operator; it needs no model and no knowledge of the task. A form of our own; fitness
sharing (Goldberg and Richardson 1987) is its ancestor.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORD = re.compile(r"\w+|[+\-*/=<>^%]")


@dataclass(frozen=True, kw_only=True)
class DiversityOptions:
    """`--diversity.<field>`. coef: weight of d_i, added to the outcome reward; 0 switches it off. ngram: words per
    n-gram. threshold: similarity from which two responses count as the same reasoning.
    """

    coef: float = 0.0
    ngram: int = 3
    threshold: float = 0.8

    def __post_init__(self):
        if self.ngram < 1:
            raise ValueError(f"--diversity.ngram must be at least 1, got {self.ngram}")
        if not 0.0 < self.threshold <= 1.0:
            raise ValueError(f"--diversity.threshold must lie in 0..1, 0 excluded, got {self.threshold}")


def distinct_shares(
    responses: Sequence[str], correct: Sequence[bool], group_size: int, options: DiversityOptions
) -> list[float]:
    """B responses in question order and their verdicts -> d_i, B numbers in 0..1."""
    ngrams = [
        _ngrams(response, options.ngram) if right else None for response, right in zip(responses, correct, strict=True)
    ]
    shares = []
    for start in range(0, len(responses), group_size):
        group = ngrams[start : start + group_size]
        for own in group:
            alike = sum(
                _similarity(own, other) >= options.threshold for other in group if own is not None and other is not None
            )
            shares.append(1 / alike if alike else 0.0)
    return shares


def _ngrams(text: str, size: int) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    # A text of fewer words than an n-gram is one n-gram of its own length, an empty one included.
    return {tuple(words[start : start + size]) for start in range(max(len(words) - size, 0) + 1)}


def _similarity(one: set, other: set) -> float:
    return len(one & other) / len(one | other)
