"""A causal LM with reward tokens at a placeholder, as OpenRLHF <= 0.9.5 `train_prm` made them (arXiv:2405.11143).

    z = logit(positive reward token) - logit(negative),   both at the placeholder: no shift

With Math-Shepherd's tokens (arXiv:2312.08935) the placeholder is `ки`, the reward tokens `+` and `-`. Only the rows of
the language-model head at the placeholders are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_prm.options import Options, option
from openrlhf_prm.prm_training.heads.head import PRMHead, flat_or_padded, step_separator, step_token

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import PaddedSolutions


@dataclass(frozen=True, kw_only=True)
class PlaceholderHeadOptions(Options):
    """The defaults work on any tokenizer that has `+` and `-`: `<step>` is added where it is missing."""

    placeholder_token: str = step_token("<step>")
    reward_tokens: tuple[str, str] = option(
        ("+", "-"), "the two verdicts, the good one first", aliases=("--reward_tokens",)
    )
    step_separator: str = step_separator()


class PlaceholderHead(PRMHead):
    """Reward tokens at a placeholder; see the module's formula."""

    name = "placeholder"
    Options = PlaceholderHeadOptions

    @property
    def placeholder(self) -> str:
        return self.options.placeholder_token

    def family_options(self) -> dict[str, Any]:
        return {
            "placeholder_token": self.options.placeholder_token,
            "reward_tokens": list(self.options.reward_tokens),
            "step_separator": self.options.step_separator,
            "chat_template": self.chat_template,
        }

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(path, **arguments)

    def raw(self, actor: Any, reference: Any, batch: PaddedSolutions) -> torch.Tensor:
        """Logits of the reward tokens, positive first: (S, 2)."""
        rows, tokens = flat_or_padded(actor, batch)
        kept, tokens = tokens.unique(return_inverse=True)
        output = actor(batch.token_ids, attention_mask=batch.attention_mask, return_output=True, logits_to_keep=kept)
        return output["logits"][rows, tokens][:, list(self.family.reward_token_ids)].float()

    def log_odds(self, raw: torch.Tensor, batch: PaddedSolutions) -> torch.Tensor:
        return raw[:, 0] - raw[:, 1]
