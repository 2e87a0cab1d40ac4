"""How much text can fit into a context at all, told from its characters, which takes no time, before it is tokenised.

A token stands for no more characters than its own name has, or few times as many where the tokenizer composes
characters (NFC makes one of up to three). So what is refused here is far too long; the rest is counted in tokens.
"""

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from vllm_prm.errors import ContextLengthError
from vllm_prm.families.prm_family import PRMFamily, Question

Made = TypeVar("Made")

COMPOSED = 4
INLINE = 16_384
"""Characters that are tokenised within some milliseconds; an event loop leaves more to a thread."""


def most_characters(family: PRMFamily, tokens: int) -> float:
    """The most characters that `tokens` tokens of a family can stand for; infinite for one that shows no tokenizer."""
    tokenizer = getattr(family, "tokenizer", None)
    if tokenizer is None:
        return math.inf
    return tokens * COMPOSED * max(map(len, tokenizer.get_vocab()), default=1)


def characters(question: Question, steps: Iterable[str]) -> int:
    """Those of question and steps, but for the white space around each, which families may take off."""
    texts = [question] if isinstance(question, str) else [message["content"] for message in question]
    return sum(len(text.strip()) for text in (*texts, *steps))


async def beside_the_loop(
    make: Callable[[Question, Sequence[str], bool], Made], question: Question, steps: Sequence[str], truncate: bool
) -> Made:
    """`make(question, steps, truncate)`; of a long text in a thread, so that the event loop serves others meanwhile."""
    if characters(question, steps) <= INLINE:
        return make(question, steps, truncate)
    return await asyncio.to_thread(make, question, steps, truncate)


def fitting(question: Question, steps: Sequence[str], most: float, tokens: int, truncate: bool) -> Sequence[str]:
    """`steps`, or with `truncate` the first of them that may fit into `most` characters together with the question.

    Raises ContextLengthError without `truncate` where they cannot. `tokens`: the limit to name.
    """
    total = characters(question, steps)
    if total <= most:
        return steps
    if not truncate:
        raise ContextLengthError(
            f"the solution has {total} characters in {len(steps)} steps, more than the {tokens} tokens that the PRM "
            "takes (max_model_len - 1) can stand for; shorten it or score with truncate=True"
        )
    left, count = most - characters(question, ()), 0
    for step in steps:
        left -= len(step.strip())
        if left < 0:
            break
        count += 1
    return steps[:count]
