"""What a further attempt changed: right answers won and lost, and how much of the text. Pure functions on lists.

accuracy of the last - accuracy of the first = wrong to right - right to wrong, exactly
"""

from collections.abc import Hashable, Sequence

EDIT_BINS = 5


def wrong_to_right(first: Sequence[bool], last: Sequence[bool]) -> list[float]:
    """1 for each pair of attempts whose last alone is right."""
    return [float(after and not before) for before, after in zip(first, last, strict=True)]


def right_to_wrong(first: Sequence[bool], last: Sequence[bool]) -> list[float]:
    """1 for each pair of attempts whose first alone is right."""
    return wrong_to_right(last, first)


def edit_ratio(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """Insertions and deletions that make one sequence of the other, over the length of both: 1 - 2 L / (n + m), with L
    the length of their longest common subsequence. 0 for equal ones, two empty ones included, 1 where nothing is kept.

    L by bits (Hyyrö 2004): 1000 tokens against 1000 take a millisecond.
    """
    if not one and not other:
        return 0.0
    places: dict[Hashable, int] = {}
    for place, item in enumerate(one):
        places[item] = places.get(item, 0) | 1 << place
    everything = (1 << len(one)) - 1
    row = everything
    for item in other:
        matched = row & places.get(item, 0)
        row = ((row + matched) | (row - matched)) & everything
    common = len(one) - row.bit_count()
    return 1 - 2 * common / (len(one) + len(other))


def edit_histogram(ratio: float) -> list[float]:
    """1 in the bin of a ratio, of `EDIT_BINS` equal ones over [0, 1], 0 in the others."""
    bin_of = min(int(ratio * EDIT_BINS), EDIT_BINS - 1)
    return [float(place == bin_of) for place in range(EDIT_BINS)]
