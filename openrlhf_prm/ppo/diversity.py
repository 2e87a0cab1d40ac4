r"""A group-level reward for distinct correct reasoning, so that a policy is not paid for one way again and again.

Of the correct responses of a question, i gets d_i = 1 / |{j correct: similarity(i, j) >= threshold}|: one for
reasoning that no other response of the group has, 1/n for each of n copies (i counts itself), 0 for wrong responses.
Copies share what one of them would get, so the group's reward grows only with the number of distinct ways. The
similarity of two responses is |A & B| / |A | B| over their sets of word n-grams, after lower-casing and dropping white
space and punctuation that is no operator; it needs no model and no knowledge of the task. A form of our own; fitness
sharing (Goldberg and Richardson 1987) is its ancestor.

Answers count by what they are (`answers.grouping`): another way to write the final answer, `0.5` for `\frac{1}{2}`,
makes no other reasoning. Responses whose right answers differ, where a task has several, are never alike.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_prm.answers.final_answer import extract_answer
from openrlhf_prm.answers.grouping import answer_classes
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
    assert len(responses) == len(correct), "one verdict per response"
    shares = [0.0] * len(responses)
    for start in range(0, len(responses), group_size):
        right = [i for i in range(start, min(start + group_size, len(responses))) if correct[i]]
        ways = _ways([responses[i] for i in right], options.ngram)
        for i, way in zip(right, ways, strict=True):
            shares[i] = 1 / sum(_alike(way, other, options.threshold) for other in ways)
    return shares


def _ways(responses: Sequence[str], ngram: int) -> list[tuple[int | None, set]]:
    """For each response the class of its answer, and its n-grams with the answer written as the class's first is."""
    answers = [extract_answer(response) for response in responses]
    classes = answer_classes(answers)
    ways = []
    for response, answer, first in zip(responses, answers, classes, strict=True):
        if answer is not None:
            before, _, after = response.rpartition(answer)
            response = f"{before}{answers[first]}{after}" if answer in response else response
        ways.append((first, _ngrams(response, ngram)))
    return ways


def _alike(one: tuple[int | None, set], other: tuple[int | None, set], threshold: float) -> bool:
    return one[0] == other[0] and _similarity(one[1], other[1]) >= threshold


def _ngrams(text: str, size: int) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    # A text of fewer words than an n-gram is one n-gram, an empty one included.
    return {tuple(words[start : start + size]) for start in range(max(len(words) - size, 0) + 1)}


def _similarity(one: set, other: set) -> float:
    return len(one & other) / len(one | other)
