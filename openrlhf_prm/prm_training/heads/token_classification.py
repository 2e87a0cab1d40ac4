"""`*ForTokenClassification` with two classes, as TRL's `PRMTrainer` made them: class 1 is right.

    z = score(h)_1 - score(h)_0,   h at the last token of the separator

The result loads in transformers. The dropout before the head is the checkpoint's `classifier_dropout`, 0.1 by default.
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
class TokenClassificationHeadOptions(Options):
    """A newline, as TRL writes it."""

    step_separator: str = step_separator()


class TokenClassificationHead(ClassLogits, PRMHead):
    """Two classes at the separator; see the module's formula."""

    name = "token_classification"
    Options = TokenClassificationHeadOptions
    layers = ("score",)

    def family_options(self) -> dict[str, Any]:
        return {"separator": self.options.step_separator, "chat_template": self.chat_template}

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from transformers import AutoModelForTokenClassification

        return AutoModelForTokenClassification.from_pretrained(path, num_labels=2, **arguments)

    def log_odds(self, raw: torch.Tensor, batch: PaddedSolutions) -> torch.Tensor:
        return raw[:, 1] - raw[:, 0]
