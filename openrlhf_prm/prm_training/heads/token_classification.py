"""`*ForTokenClassification` with two classes, as TRL's `PRMTrainer` made them: class 1 is right.

    z = score(h)_1 - score(h)_0,   h at the last token of the separator

The result loads in transformers. The dropout before the head is the checkpoint's `classifier_dropout`, 0.1 by default.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from openrlhf_prm.prm_training.heads.head import ClassLogits, PRMHead

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import StepBatch


class TokenClassificationHead(ClassLogits, PRMHead):
    """Two classes at the separator; see the module's formula."""

    name = "token_classification"
    defaults = {"step_separator": "\n"}
    layers = ("score",)

    def options(self, args: SimpleNamespace) -> dict[str, Any]:
        return {"separator": args.prm.step_separator, "chat_template": args.data.apply_chat_template}

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(path, num_labels=2, **arguments)

    def log_odds(self, raw: torch.Tensor, batch: StepBatch) -> torch.Tensor:
        return raw[:, 1] - raw[:, 0]
