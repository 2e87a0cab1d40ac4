"""What every PRM family answers: which tokens to run, where to read, what the numbers mean."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from vllm_prm.families.evidence import Checkpoint, Evidence

Question = str | Sequence[dict[str, str]]
"""The question's text, or chat messages `{"role", "content"}`."""


@dataclass(frozen=True)
class Rendered:
    """A solution as the PRM reads it: `token_ids`, and the 0-based index in them at which each step is scored.

    Positions rise strictly, one per step. They are kept beside the tokens because a step's own text may contain the
    token that marks a step end; searching for that token would then shift every later score.
    """

    token_ids: list[int]
    step_positions: list[int]


@dataclass(frozen=True)
class Head:
    """A small head that the checkpoint brings along, read instead of the language-model head.

    `layers`: the checkpoint's names of its linear layers, without `.weight`, applied in order to the backbone's last
    hidden state (after its final norm) with a ReLU between them. `outputs`: width of the last. `bias`: whether each
    layer has one. `file`: where the one layer lies if not with the weights, a file of their folder. `ignored`:
    beginnings of the names of weights that nothing reads.

    With `members` there are so many heads of one output each, their weights stacked as (members, inputs, outputs), and
    their hidden layers are `hidden` wide.
    """

    layers: tuple[str, ...]
    outputs: int
    bias: bool
    file: str | None = None
    ignored: tuple[str, ...] = ()
    members: int = 0
    hidden: int = 0


class PRMFamily(ABC):
    """One way of scoring steps. Instances are immutable, hold a tokenizer, and never touch the engine.

    It runs in the process that takes the requests, never in vLLM's engine processes, which see `hf_overrides` only. So
    a class from a file (`FILE.py:Class`) need not be installed anywhere.
    """

    name: ClassVar[str]
    """Its key in `PRM_FAMILIES`, or, for a class from a file, the `FILE.py:Class` that `resolve_family` loaded."""
    reward_token_ids: tuple[int, ...] = ()
    """Rows of the language-model head to read at a step position, in the order `decode` expects; none with a head."""
    head: Head | None = None
    """The checkpoint's own head, whose whole output `decode` expects; None for the language-model head."""
    scorer: str = "vllm_prm.scorer:StepScorer"
    """`module:Class` of the `StepScorer` that runs the engine, or the engines, this family needs."""
    guesses: Sequence[str] = ()
    """What the checkpoint does not show and nobody said, one sentence each: for the user's eyes."""
    score_range: tuple[float, float] = (0.0, 1.0)
    """Smallest and largest step score."""
    response_splitter: str = "\n"
    """Where a whole response is split into steps, as the model card does."""
    runner: str = "pooling"
    """vLLM's runner for the model: "generate" where scores are read from what it writes."""
    engines: int = 1
    """How many engines of one device it takes to score."""
    one_prompt: bool = True
    """Whether `render` gives all that a solution is scored by, for `decode` to read."""

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, path: str, tokenizer: Any = None, options: Mapping[str, Any] | None = None) -> "PRMFamily":
        """Build from the checkpoint at `path`; `options` win over what it declares. `ValueError` if its vocabulary
        lacks a token the family needs, or an option is wrong."""

    @classmethod
    def evidence(cls, checkpoint: "Checkpoint") -> "Evidence | None":
        """Why `checkpoint` may be of this family, None if nothing speaks for it."""
        return None

    @classmethod
    def models_beside(cls, checkpoint: "Checkpoint", options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
        """Checkpoints of the `engines` after the first, from what `checkpoint` declares and `options`, without its
        tokenizer. `ValueError` if one is not named."""
        return ()

    @abstractmethod
    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and step positions of `question` followed by `steps` (texts without their trailing separator)."""

    @abstractmethod
    def decode(self, raw: Sequence[Sequence[float]]) -> list[float]:
        """Step scores from the rows read at the step positions: (S, R) -> S, with R reward tokens or outputs of the
        head. Within `score_range`."""

    @abstractmethod
    def hf_overrides(self) -> dict[str, Any]:
        """Values that vLLM must see in the checkpoint's config to load it as a step-reward model."""


def single_token_id(tokenizer: Any, token: str, path: str) -> int:
    """Id of a token given as text.

    The text is encoded first, as OpenRLHF does, because vocabularies made by SentencePiece hold `ки` as `▁ки` only;
    an exact vocabulary entry comes second. Raises `ValueError` when neither gives exactly one known token.
    """
    vocabulary = tokenizer.get_vocab()
    encoded = tokenizer.encode(token, add_special_tokens=False)
    if len(encoded) == 1 and (encoded[0] != tokenizer.unk_token_id or token == tokenizer.unk_token):
        return encoded[0]
    if token in vocabulary:
        return vocabulary[token]
    raise ValueError(f"the tokenizer of {path} has no token {token!r} (it is encoded as {encoded})")
