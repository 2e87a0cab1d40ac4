"""Which of several answers are the same: votes and diversity count answers, not ways to write them."""

from collections.abc import Sequence

from openrlhf_prm.answers.comparison import same_answer


def answer_classes(answers: Sequence[str | None]) -> list[int | None]:
    """For each answer the index of the first one that is the same by the rule that judges (`same_answer`); None for
    none. An answer that is the same as two that differ belongs to the first of them.
    """
    firsts: dict[str, int] = {}
    classes: list[int | None] = []
    for index, answer in enumerate(answers):
        if answer is None:
            classes.append(None)
            continue
        if answer not in firsts:
            same = (first for other, first in firsts.items() if first < index and same_answer(other, answer))
            firsts[answer] = next(same, index)
        classes.append(firsts[answer])
    return classes
