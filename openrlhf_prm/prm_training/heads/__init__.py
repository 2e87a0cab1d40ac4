"""Heads a PRM can be trained with. One file and one line each; flags come from here, so nothing heavy is imported."""

from openrlhf_prm.prm_training.heads.head import PRMHead
from openrlhf_prm.prm_training.heads.implicit import ImplicitHead
from openrlhf_prm.prm_training.heads.placeholder import PlaceholderHead
from openrlhf_prm.prm_training.heads.qwen_prm import QwenPRMHead
from openrlhf_prm.prm_training.heads.token_classification import TokenClassificationHead
from openrlhf_prm.prm_training.heads.value_head import ValueHead

PRM_HEADS: dict[str, type[PRMHead]] = {
    head.name: head for head in (PlaceholderHead, TokenClassificationHead, QwenPRMHead, ValueHead, ImplicitHead)
}
"""`--prm.head` -> class."""

__all__ = ["PRM_HEADS", "PRMHead"]
