"""What a policy wrote, for outcome rewards: the text of its own tokens, not what is left of prompt and response.

The host hands a reward function the decoded tokens of prompt and response together. Decoding may change the prompt
(`<s>[INST]` becomes `<s> [INST]`), and the host cuts one that is too long, so the response is not simply what stands
behind it: a right answer would be missed, or one of the prompt's own examples judged.
"""

from collections.abc import Callable
from contextvars import ContextVar

WRITTEN: ContextVar[Callable[[], str] | None] = ContextVar("written", default=None)
"""Set by whoever samples, around the call of a reward function: gives the text of the response's own tokens."""


def own_response(query: str, prompt: str) -> str:
    """The response within a query, prompt and response decoded together; by `WRITTEN` where that is set."""
    written = WRITTEN.get()
    return written() if written is not None else behind_prompt(query, prompt)


def behind_prompt(query: str, prompt: str) -> str:
    """What stands in a query behind the prompt, or behind as much of the prompt's end as the query begins with, white
    space apart. Raises ValueError where the query begins with no part of it.
    """
    if query.startswith(prompt):
        return query[len(prompt) :]
    places = [place for place, letter in enumerate(query) if not letter.isspace()]
    wanted = "".join(prompt.split())
    # How much of the query's beginning the prompt's end is: Knuth, Morris and Pratt's matching.
    start = "".join(query[place] for place in places[: len(wanted)])
    borders, matched = [0] * len(start), 0
    for place in range(1, len(start)):
        while matched and start[place] != start[matched]:
            matched = borders[matched - 1]
        matched += start[place] == start[matched]
        borders[place] = matched
    matched = 0
    for letter in wanted:
        while matched and (matched == len(start) or letter != start[matched]):
            matched = borders[matched - 1]
        matched += matched < len(start) and letter == start[matched]
    if not matched:
        raise ValueError(
            f"the response is not found behind its prompt: {query[:80]!r} begins with no end of {prompt!r}"
        )
    return query[places[matched - 1] + 1 :]
