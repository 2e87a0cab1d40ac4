"""PRM families: how a solution is written for a PRM, and how its scores are read. One file and one line each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.evidence import Checkpoint
from vllm_prm.families.generative import GenerativeFamily
from vllm_prm.families.implicit import ImplicitFamily
from vllm_prm.families.math_shepherd import MathShepherdFamily
from vllm_prm.families.placeholder import PlaceholderFamily
from vllm_prm.families.prm_family import PRMFamily, Rendered
from vllm_prm.families.qwen_prm import QwenPRMFamily
from vllm_prm.families.rlhflow import RLHFlowFamily
from vllm_prm.families.skywork import SkyworkFamily
from vllm_prm.families.token_classification import TokenClassificationFamily
from vllm_prm.families.value_head import ValueHeadFamily

PRM_FAMILIES: dict[str, type[PRMFamily]] = {
    "generative": GenerativeFamily,
    "implicit": ImplicitFamily,
    "math_shepherd": MathShepherdFamily,
    "placeholder": PlaceholderFamily,
    "qwen_prm": QwenPRMFamily,
    "rlhflow": RLHFlowFamily,
    "skywork": SkyworkFamily,
    "token_classification": TokenClassificationFamily,
    "value_head": ValueHeadFamily,
}
"""Family name (the `prm.family` of a checkpoint's config.json, or `--family`) -> class."""


@dataclass(frozen=True)
class Detection:
    """The family a checkpoint is of, and what shows it."""

    family: str
    reason: str


def detect_family(path: str, tokenizer: Any = None) -> Detection:
    """The family of the checkpoint at `path` (a folder or a hub id).

    The key `prm` of config.json decides. Without it, `architectures`, the repository's name, names and shapes of the
    weights, and the vocabulary may. Raises `ValueError` when they name no known family, do not decide, or contradict
    each other, with all that was found.
    """
    checkpoint = Checkpoint(path, tokenizer)
    declared = checkpoint.config.get("prm")
    if declared is not None:
        name = declared.get("family") if isinstance(declared, dict) else declared
        if name not in PRM_FAMILIES:
            raise ValueError(f"config.json of {path}: prm.family is {name!r}, known: {sorted(PRM_FAMILIES)}")
        return Detection(name, "config.json declares it: prm.family")

    found = {name: evidence for name, family in PRM_FAMILIES.items() if (evidence := family.evidence(checkpoint))}
    decisive = [name for name, evidence in found.items() if evidence.decisive]
    if len(decisive) == 1:
        return Detection(decisive[0], found[decisive[0]].reason)
    candidates = "; ".join(f"{name} ({found[name].reason})" for name in decisive or found)
    raise ValueError(
        f"{path} does not show which PRM family it is: its config.json (architectures {checkpoint.architectures}) has "
        f'no key "prm". Candidates: {candidates or "none"}. Name the family explicitly; known: {sorted(PRM_FAMILIES)}'
    )


def load_family(
    path: str, family: str | None = None, tokenizer: Any = None, options: Mapping[str, Any] | None = None
) -> PRMFamily:
    """The family of the checkpoint at `path`, validated against its vocabulary.

    `family` and its `options` override what the checkpoint declares; `tokenizer` avoids loading it a second time.
    Raises `ValueError` as `detect_family` and `PRMFamily.from_checkpoint` do.
    """
    name = detect_family(path, tokenizer).family if family is None else family
    if name not in PRM_FAMILIES:
        raise ValueError(f"family is {name!r}, known: {sorted(PRM_FAMILIES)}")
    return PRM_FAMILIES[name].from_checkpoint(path, tokenizer, options)


__all__ = ["PRM_FAMILIES", "Detection", "PRMFamily", "Rendered", "detect_family", "load_family"]
