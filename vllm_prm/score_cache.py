"""Scores already known, in front of the engine.

The engine's prefix cache saves the forward pass over a prefix but returns nothing for it, so the scores of steps inside
a cached prefix must be remembered here. A step's key is a digest of all tokens up to and including its position: a
causal model's logits there depend on exactly those, so a growing or branching solution shares keys with its prefix.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence

Logits = tuple[float, ...]


def prefix_keys(token_ids: Sequence[int], positions: Sequence[int]) -> Iterator[bytes]:
    """A 16-byte digest of `token_ids[:position + 1]` for each of the rising `positions`; one pass over the tokens."""
    digest = hashlib.blake2b(digest_size=16)
    done = 0
    for position in positions:
        digest.update(array("Q", token_ids[done : position + 1]).tobytes())
        done = position + 1
        yield digest.copy().digest()


class ScoreCache:
    """Least-recently-used map from prefix key to raw logits. `capacity` 0 remembers nothing.

    `generation` counts the clears: a request that was in flight during a weight update carries the generation it
    started in, and its late rows, which belong to the old weights, are not stored.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"score_cache_size must be 0 or more, got {capacity}")
        self.capacity = capacity
        self.generation = 0
        self._rows: OrderedDict[bytes, Logits] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: bytes) -> Logits | None:
        """The logits stored under `key`, which becomes the most recently used, or None."""
        row = self._rows.get(key)
        if row is not None:
            self._rows.move_to_end(key)
        return row

    def put(self, key: bytes, row: Logits, generation: int) -> None:
        """Store `row`, dropping the least recently used beyond `capacity`; nothing if `generation` is past."""
        if generation != self.generation:
            return
        self._rows[key] = row
        self._rows.move_to_end(key)
        while len(self._rows) > self.capacity:
            self._rows.popitem(last=False)

    def clear(self) -> None:
        """Forget everything and start a new generation."""
        self._rows.clear()
        self.generation += 1
