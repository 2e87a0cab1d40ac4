"""What every PRM family answers: which tokens to run, where to read, what the numbers mean."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm import STEP_REWARD_MODELS

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


class PRMFamily(ABC):
    """One way of scoring steps. Instances are immutable, hold a tokenizer, and never touch the engine."""

    reward_token_ids: tuple[int, ...]
    """Rows of the language-model head to read at a step position, in the order `decode` expects."""
    scorer: str = "vllm_prm.scorer:StepScorer"
    """`module:Class` of the `StepScorer` that runs the engine, or the engines, this family needs."""
    not_served: str = ""
    """Why a server cannot score with this family; empty if it can."""

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, path: str, tokenizer: Any = None) -> "PRMFamily":
        """Build from the checkpoint at `path`; `ValueError` if its vocabulary lacks a token the family needs."""

    @abstractmethod
    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and step positions of `question` followed by `steps` (texts without their trailing separator)."""

    @abstractmethod
    def decode(self, raw: Sequence[Sequence[float]]) -> list[float]:
        """Step scores in [0, 1] from the rows read at the step positions: (S, len(reward_token_ids)) -> S."""

    @abstractmethod
    def hf_overrides(self) -> dict[str, Any]:
        """Values that vLLM must see in the checkpoint's config to load it as a step-reward model."""


def read_config(path: str) -> dict[str, Any]:
    """The config.json of the checkpoint at `path` (a folder or a hub id) as a dict, unknown keys kept."""
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(path)
    except OSError as error:
        raise ValueError(f"{path} is neither a checkpoint folder nor a hub id that can be read: {error}") from error
    if not config:
        raise ValueError(f"{path} has no readable config.json")
    return config


def load_tokenizer(path: str) -> Any:
    """The tokenizer saved with the checkpoint: a PRM must be read with its own, never with the policy's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path)


def step_reward_architecture(path: str, architectures: Sequence[str] | None) -> str:
    """The vLLM architecture that scores steps for a causal-LM checkpoint, e.g. Qwen3ForCausalLM -> Qwen3ForStepReward.

    Raises `ValueError` naming the supported ones when there is none.
    """
    for architecture in architectures or ():
        candidate = architecture.replace("ForCausalLM", "ForStepReward")
        if candidate in STEP_REWARD_MODELS:
            return candidate
    supported = sorted(name.replace("ForStepReward", "ForCausalLM") for name in STEP_REWARD_MODELS)
    raise ValueError(f"config.json of {path}: architectures is {architectures}, supported: {supported}")


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
