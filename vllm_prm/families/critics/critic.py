r"""What every style of critic answers: how it is asked about a solution, and what its answers mean.

A critic is a conversation: `judge` yields what to generate next, is sent what was generated, and returns the verdicts.
It knows nothing of engines, so the same code runs offline and asynchronously. Generated code is text like any other.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vllm_prm.families.critics.verdicts import Malformed
from vllm_prm.families.decoding import sigmoid


@dataclass(frozen=True)
class Ask:
    """Continue a chat of `messages` whose answer begins with `prefix`, until one of the texts `stop` or `max_tokens`.

    `in_turn`: the answer goes on in the last message's turn, for models that were trained so; else it is a turn of the
    assistant. `choices`: two token ids whose log-probabilities are wanted at every generated token, or none.
    """

    messages: list[dict[str, str]]
    prefix: str = ""
    in_turn: bool = False
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    choices: tuple[int, int] | None = None


@dataclass(frozen=True)
class Critique:
    """What was generated: `text` (with the stop text) and `token_ids`. `finished`: not cut off by a limit of tokens.

    `log_probs`: those of the two `choices` at each token, before temperature; empty without choices. `cached_tokens`:
    tokens of the prompt that the engine did not forward.
    """

    text: str
    token_ids: list[int]
    finished: bool
    log_probs: list[tuple[float, float]] = field(default_factory=list)
    cached_tokens: int = 0

    def before(self, stops: Sequence[str]) -> str:
        """The text up to where the first of the texts `stops` begins."""
        return self.text[: min([len(self.text), *(at for stop in stops if (at := self.text.find(stop)) >= 0)])]


@dataclass
class Verdicts:
    """One sample's view of a solution.

    `correct`: per step the probability that it is correct, NaN where there is no verdict, None where the conversation
    no longer fitted into the context. `critiques`: the texts. Why a verdict may be missing: `malformed`, what was wrong
    with each judgement that could not be read; `empty`, how many critiques have no word; `cut_off`, how many ran into
    the limit of tokens.
    """

    correct: list[float | None]
    malformed: list[str] = field(default_factory=list)
    critiques: list[str] = field(default_factory=list)
    empty: int = 0
    cut_off: int = 0

    def count(self, critique: Critique, text: str) -> None:
        """Note the `text` of a critique, and whether it is empty or was cut off."""
        self.critiques.append(text)
        self.empty += not text.strip()
        self.cut_off += not critique.finished

    def judge(self, step: int, correct: float | Malformed) -> None:
        """The verdict on the next step, the one of number `step`."""
        if isinstance(correct, Malformed):
            self.malformed.append(f"step {step}: {correct.reason}")
            correct = math.nan
        self.correct.append(correct)

    def filled(self, steps: int) -> "Verdicts":
        """With None for the last of so many `steps`, which the conversation had no room for."""
        self.correct += [None] * (steps - len(self.correct))
        return self


Conversation = Generator[Ask, Critique | None, Verdicts]
"""Yields `Ask`, is sent the `Critique`, or None where the context has no room left; returns `Verdicts`."""


class CritiqueStyle(ABC):
    """A way of asking for critiques and of reading them."""

    sampling: ClassVar[dict[str, Any]]
    """The published sampling parameters, with `max_tokens` for one critique."""
    own_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the family that this style alone reads, with their defaults."""

    @classmethod
    def published_sampling(cls, path: str, samples: int) -> dict[str, Any]:
        """The sampling parameters for the checkpoint at `path` and so many `samples`."""
        return cls.sampling

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, path: str, sampling: Mapping[str, Any], **own_options: Any):
        """The style for a model's tokenizer and the `sampling` that is used. `ValueError` naming `path` if the
        tokenizer cannot express the verdicts."""
        return cls(**own_options)

    @abstractmethod
    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """The conversation about `steps`, at least one."""


def one_critique(critique: Critique, text: str, correct: Sequence[float] | Malformed, steps: int) -> Verdicts:
    """The verdicts of one critique about all steps. One that was cut off has not come to its last word, and one without
    a word has none."""
    verdicts = Verdicts([math.nan] * steps)
    verdicts.count(critique, text)
    if verdicts.empty or verdicts.cut_off:
        return verdicts
    if isinstance(correct, Malformed):
        verdicts.malformed.append(correct.reason)
    else:
        verdicts.correct = list(correct)
    return verdicts


def chance(log_probs: tuple[float, float], temperature: float = 1.0) -> float | Malformed:
    """Probability of the first of two choices against the second: 1 / (1 + exp((z_2 - z_1) / T))."""
    first, second = log_probs
    if not (math.isfinite(first) or math.isfinite(second)):
        return Malformed("no probability of either judgement")
    return sigmoid((first - second) / temperature)


def user(content: str) -> dict[str, str]:
    """A message of the user."""
    return {"role": "user", "content": content}


def opposed(tokenizer: Any, path: str, yes: str, no: str) -> tuple[str, tuple[int, int]]:
    """Where two texts differ as tokens: the text that both begin with, and the first tokens in which they differ.

    `ValueError` naming `path` if the tokenizer cannot tell them apart.
    """
    encoded = [tokenizer.encode(text, add_special_tokens=False) for text in (yes, no)]
    for index, pair in enumerate(zip(*encoded, strict=False)):
        if pair[0] != pair[1]:
            if tokenizer.unk_token_id in pair:
                break
            return tokenizer.decode(encoded[0][:index]), pair
    raise ValueError(f"the tokenizer of {path} cannot tell {yes.strip()} from {no.strip()}")
