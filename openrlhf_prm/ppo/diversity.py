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

from openrlhf_prm.options import Options, option

_WORD = re.compile(r"\w+|[+\-*/=<>^%]")


@dataclass(frozen=True, kw_only=True)
class DiversityOptions(Options):
    """`--diversity.<field>`."""

    coef: float = option(0.0, "weight of the reward for distinct correct reasoning; 0: none")
    ngram: int = option(3, "words per n-gram by which responses are compared", least=1, read_with="coef")
    threshold: float = option(
        0.8, "similarity from which reasoning counts as the same", above=0, most=1, read_with="coef"
    )


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
        for response in group:
            alike = sum(
                _similarity(response, other) >= options.threshold
                for other in group
                if response is not None and other is not None
            )
            shares.append(1 / alike if alike else 0.0)
    return shares


def _ngrams(text: str, size: int) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    # A text of fewer words than an n-gram is one n-gram, an empty one included.
    return {tuple(words[start : start + size]) for start in range(max(len(words) - size, 0) + 1)}


def _similarity(one: set, other: set) -> float:
    return len(one & other) / len(one | other)
