"""A scalar without bias, `score`, where the separator ends: z = w . h.

The result has the layout of `*ForSequenceClassification` with one label, so that OpenRLHF can start a critic from it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from openrlhf_prm.prm_training.heads.head import ClassLogits, PRMHead

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import StepBatch


class ValueHead(ClassLogits, PRMHead):
    """A scalar at the separator; see the module's formula."""

    name = "value_head"
    defaults = {"step_separator": "\n"}
    layers = ("score",)

    def options(self, args: SimpleNamespace) -> dict[str, Any]:
        return {
            "separator": args.prm.step_separator,
            "chat_template": args.data.apply_chat_template,
            "head": "score",
            "head_bias": False,
        }

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from torch import nn

        from openrlhf_prm.prm_training.model import load_with_head

        def score(hidden: int) -> nn.Module:
            return nn.Linear(hidden, 1, bias=False)

        return load_with_head(path, "ForSequenceClassification", score, num_labels=1, **arguments)

    def log_odds(self, raw: torch.Tensor, batch: StepBatch) -> torch.Tensor:
        return raw[:, 0]
