"""An episode while it is written: attempts and what stands between them, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass
class Episode:
    """tokens: prompt, attempts and what stands between them; start: where the prompt ends. ranges: of the attempts, of
    which the policy wrote the `own` ones.
    """

    tokens: list[int]
    start: int
    log_probs: list[float] | None
    ranges: list[tuple[int, int]] = field(default_factory=list)
    own: list[bool] = field(default_factory=list)

    def say(self, words: Sequence[int]) -> None:
        """What the policy did not write."""
        self.tokens += words
        if self.log_probs is not None:
            self.log_probs += [0.0] * len(words)

    def quote(self, tokens: Sequence[int]) -> None:
        """An attempt that the policy did not write."""
        self.ranges.append((len(self.tokens), len(self.tokens) + len(tokens)))
        self.own.append(False)
        self.say(tokens)

    def write(self, tokens: Sequence[int], log_probs: Sequence[dict] | None) -> None:
        """What it did; log_probs: the engine's, which may have one for an ending that is left out."""
        self.ranges.append((len(self.tokens), len(self.tokens) + len(tokens)))
        self.own.append(True)
        self.tokens += tokens
        if self.log_probs is not None:
            self.log_probs += [at[token].logprob for token, at in zip(tokens, log_probs, strict=False)]

    @property
    def own_ranges(self) -> list[tuple[int, int]]:
        """The spans of tokens that the policy wrote."""
        return [span for span, own in zip(self.ranges, self.own, strict=True) if own]

    @property
    def ends(self) -> tuple[int, ...]:
        """Counts of the policy's own tokens at which attempts end."""
        sizes = ((end - start) * own for (start, end), own in zip(self.ranges, self.own, strict=True))
        return tuple(accumulate(sizes))
