"""What every head of a PRM in training answers: its family, its model, and its log-odds.

With z the log-odds that a step (or, for outcomes, a solution) is right and t in [0, 1] its label, every head is trained
on the binary cross-entropy

    loss = -( t log sigmoid(z) + (1 - t) log sigmoid(-z) )

which for two classes with logits a (right) and b is the softmax cross-entropy, with z = a - b. A head reads the same
numbers that `vllm_prm` reads when it serves the result, and the family's `decode` makes scores of them.

Shapes: B solutions, T tokens, S steps, R numbers read per step, N targets (S, or B where outcomes are learnt).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from openrlhf_prm.options import Options, option, option_fields
from vllm_prm.families import PRM_FAMILIES, PRMFamily
from vllm_prm.families.checkpoint_family import as_json
from vllm_prm.families.prm_family import single_token_id

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import PaddedSolutions


def step_token(default: str) -> Any:
    """The option of heads that read at a token of their own."""
    text = "token after each step at which the score is read; the default is added to a vocabulary that lacks it"
    return option(default, text, aliases=("--placeholder_token",))


def step_separator() -> Any:
    """The option of heads that write a text after each step."""
    return option("\n", "text written after each step")


class PRMHead(ABC):
    """One way to read a score from a model in training. Made once; holds the family of the tokenizer."""

    name: ClassVar[str]
    """Its key in `PRM_HEADS`, and the key in `PRM_FAMILIES` of the family that serves the result."""
    Options: ClassVar[type[Options]]
    """Its flags `--prm.*`. Other heads' flags are an error."""
    outcome: ClassVar[bool] = False
    """Whether a solution has one label, its outcome, instead of one per step."""
    reads_chat_template: ClassVar[bool] = True
    """Whether `--data.apply_chat_template` is read; other heads write every question through the template."""
    layers: ClassVar[tuple[str, ...]] = ()
    """The checkpoint's names of the head's linear layers, which LoRA trains whole."""
    rate: ClassVar[float] = 1e-5
    """Learning rate for a model of hidden size 4096, see `prm_training.open_flags`."""
    placeholder: str | None = None
    """The token at which it reads, where it has one."""

    def __init__(
        self,
        options: Any,
        model: str,
        tokenizer: Any,
        *,
        chat_template: bool = False,
        add_placeholder_token: bool = False,
        family_options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """`options`: an instance of `Options`. `model`: the checkpoint to start from. `chat_template`: write the
        question through it. `add_placeholder_token`: to the tokenizer, where it does not know it; the head's default
        token always is, because nobody can have misspelt it. `family_options` win over what the head gives its family.
        ValueError for a vocabulary, option or backbone that does not serve."""
        self.options, self.model, self.chat_template = options, model, chat_template
        self.added_token_id: int | None = None
        """The placeholder's id where the tokenizer did not know it."""
        if self.placeholder is not None:
            self._require_placeholder(tokenizer, add_placeholder_token or self.placeholder == self._usual_placeholder())
        given = {**self.family_options(), **family_options}
        self.family: PRMFamily = PRM_FAMILIES[self.name].from_checkpoint(model, tokenizer, given)

    def _require_placeholder(self, tokenizer: Any, may_add: bool) -> None:
        try:
            single_token_id(tokenizer, self.placeholder, self.model)
        except ValueError as error:
            if not may_add:
                raise ValueError(f"{error}; --prm.add_placeholder_token adds it") from None
            tokenizer.add_tokens(self.placeholder, special_tokens=True)
            self.added_token_id = single_token_id(tokenizer, self.placeholder, self.model)

    @classmethod
    def _usual_placeholder(cls) -> str | None:
        defaults = {field.name: field.default for field in option_fields(cls.Options)}
        return defaults.get("placeholder_token")

    @classmethod
    def has_placeholder(cls) -> bool:
        """Whether it reads at a token that can be added to the vocabulary."""
        return cls._usual_placeholder() is not None

    @abstractmethod
    def family_options(self) -> dict[str, Any]:
        """The options of its family that follow from its own."""

    def declared(self) -> dict[str, Any]:
        """What config.json says under "prm": the family and its options, except those that have their defaults."""
        given = as_json(self.family.options)
        usual = {field.name: field.default for field in fields(self.family.options)}
        usual |= {
            field.name: field.default_factory()
            for field in fields(self.family.options)
            if field.default_factory is not MISSING
        }
        return {"family": self.name, **{name: value for name, value in given.items() if value != usual[name]}}

    @abstractmethod
    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        """The model to train, from the checkpoint at `path`; `arguments` are those of `from_pretrained`."""

    def reference(self) -> str | None:
        """The checkpoint of a frozen causal LM that `raw` needs beside the model."""
        return None

    @abstractmethod
    def raw(self, actor: Any, reference: Any, batch: PaddedSolutions) -> torch.Tensor:
        """What the family's `decode` expects, fp32: (S, R)."""

    @abstractmethod
    def log_odds(self, raw: torch.Tensor, batch: PaddedSolutions) -> torch.Tensor:
        """(S, R) -> (N,): log-odds of being right, one per target."""


class ClassLogits:
    """Mixed into heads whose model gives logits at every token, by layers that are new."""

    rate = 2e-5

    def raw(self, actor: Any, reference: Any, batch: PaddedSolutions) -> torch.Tensor:
        """The model's outputs where the steps are scored: (S, R)."""
        output = actor(batch.token_ids, attention_mask=batch.attention_mask, return_output=True)
        rows, tokens = flat_or_padded(actor, batch)
        return output["logits"][rows, tokens].float()


def flat_or_padded(actor: Any, batch: PaddedSolutions) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and token of each step in the actor's output: as in the batch, or in one row without padding where the actor
    packs the solutions of a batch behind one another. Twice (S,)."""
    if not actor.packing_samples:
        return batch.step_rows, batch.step_tokens
    lengths = batch.attention_mask.sum(dim=1)
    return batch.step_rows * 0, (lengths.cumsum(0) - lengths)[batch.step_rows] + batch.step_tokens
