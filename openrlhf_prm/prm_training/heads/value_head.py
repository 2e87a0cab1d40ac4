"""A scalar without bias, `score`, where the separator ends: z = w . h.

The result has the layout of `*ForSequenceClassification` with one label, so that OpenRLHF can start a critic from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_prm.options import Options
from openrlhf_prm.prm_training.heads.head import ClassLogits, PRMHead, step_separator

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import PaddedSolutions


@dataclass(frozen=True, kw_only=True)
class ValueHeadOptions(Options):
    """The separator alone; the head has no bias."""

    step_separator: str = step_separator()


class ValueHead(ClassLogits, PRMHead):
    """A scalar at the separator; see the module's formula."""

    name = "value_head"
    Options = ValueHeadOptions
    layers = ("score",)

    def family_options(self) -> dict[str, Any]:
        return {
            "separator": self.options.step_separator,
            "chat_template": self.chat_template,
            "head": "score",
            "head_bias": False,
        }

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from torch import nn

        from openrlhf_prm.prm_training.model import load_with_head

        def score(hidden: int) -> nn.Module:
            return nn.Linear(hidden, 1, bias=False)

        return load_with_head(path, "ForSequenceClassification", score, num_labels=1, **arguments)

    def log_odds(self, raw: torch.Tensor, batch: PaddedSolutions) -> torch.Tensor:
        return raw[:, 0]
