"""Mistakes that the policy hardly makes: one digit of a step is changed, and the policy goes on from there.

A PRM that learns from the policy's own solutions knows the mistakes in them. Training the policy may bring others,
which such a PRM scores like right steps, and nothing then says which step went wrong. What a changed step is worth is
found by rollouts like any other's: nothing assumes that it is wrong.
"""

import random
from string import digits

from openrlhf_prm.annotation.rollouts import Prefix, QuestionRollouts, Solution, together


def change_a_digit(text: str, rng: random.Random) -> str:
    """`text` with one of its decimal digits replaced by another; without a digit, `text` itself."""
    places = [place for place, character in enumerate(text) if character in digits]
    if not places:
        return text
    place = rng.choice(places)
    return text[:place] + rng.choice(digits.replace(text[place], "")) + text[place + 1 :]


async def corrupted_solutions(state: QuestionRollouts, solutions: list[Solution], count: int) -> list[Solution]:
    """At most `count` solutions: each begins like one of `solutions`, taken in turn, up to a step chosen at random
    among its steps with digits before the last; that step has one digit changed, and what follows it is sampled.

    The last step is left alone, because its value is the outcome, which needs no PRM. Where no solution has a step to
    change there are none. The choice depends on the question alone, so it is the same in another run of the same
    solutions.
    """
    rng = random.Random(f"{state.prompt_ids}")
    starts = []
    for number in range(count if solutions else 0):
        start = _corrupted_prefix(state, solutions[number % len(solutions)], rng)
        if start is not None and start not in starts:
            starts.append(start)
    return [state.split(rollout) for [rollout] in await together(*[state.decode(start, 1) for start in starts])]


def _corrupted_prefix(state: QuestionRollouts, solution: Solution, rng: random.Random) -> Prefix | None:
    with_digits = [step for step, text in enumerate(solution.steps[:-1]) if any(c in digits for c in text)]
    if not with_digits:
        return None
    step = rng.choice(with_digits)
    before = solution.prefix(step)
    text = state.text(solution.prefix(step + 1)[len(before) :])
    prefix = (*before, *_tokens_within(state, change_a_digit(text, rng)))
    # Another digit may take more tokens, and leave none for what follows.
    return prefix if len(prefix) < state.limit else None


def _tokens_within(state: QuestionRollouts, text: str) -> list[int]:
    """The tokens of a text that does not begin a response: where a tokenizer puts a space before all that it encodes, a
    PRM could tell a changed step by it.
    """
    anchor, joined = state.tokens("\n"), state.tokens("\n" + text)
    return joined[len(anchor) :] if joined[: len(anchor)] == anchor else state.tokens(text)
