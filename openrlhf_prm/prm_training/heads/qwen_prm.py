"""`*ForProcessRewardModel`, the layout of Qwen2.5-Math-PRM (arXiv:2501.07301): a head of two layers at `<extra_0>`.

    z = y_1 - y_0,   y = W_2 relu(W_0 h + b_0) + b_2,   h at the step's token

The solution stands in the chat template as the assistant's message. A tokenizer other than Qwen's PRM's own does not
know `<extra_0>`; it is added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openrlhf_prm.options import Options
from openrlhf_prm.prm_training.heads.head import ClassLogits, PRMHead, step_token

if TYPE_CHECKING:
    import torch

    from openrlhf_prm.prm_training.dataset import PaddedSolutions


@dataclass(frozen=True, kw_only=True)
class QwenPRMHeadOptions(Options):
    """As Qwen2.5-Math-PRM was published."""

    placeholder_token: str = step_token("<extra_0>")


class QwenPRMHead(ClassLogits, PRMHead):
    """Two classes of a two-layer head; see the module's formula."""

    name = "qwen_prm"
    reads_chat_template = False
    Options = QwenPRMHeadOptions
    layers = ("score.0", "score.2")

    @property
    def placeholder(self) -> str:
        return self.options.placeholder_token

    def family_options(self) -> dict[str, Any]:
        return {"step_token": self.options.placeholder_token}

    def load(self, path: str, **arguments: Any) -> torch.nn.Module:
        from torch import nn

        from openrlhf_prm.prm_training.model import load_with_head

        def score(hidden: int) -> nn.Module:
            return nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 2))

        return load_with_head(path, "ForProcessRewardModel", score, num_labels=2, **arguments)

    def log_odds(self, raw: torch.Tensor, batch: PaddedSolutions) -> torch.Tensor:
        return raw[:, 1] - raw[:, 0]
