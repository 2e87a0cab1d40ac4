"""PRM families: how a solution is written for a PRM, and how its scores are read. One file and one line each."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from vllm_prm.extension_files import absolute, load_from_file, names_file, resolve
from vllm_prm.families.ensemble_prm import EnsemblePRMFamily
from vllm_prm.families.evidence import Checkpoint
from vllm_prm.families.generative import GenerativeFamily
from vllm_prm.families.implicit import ImplicitFamily
from vllm_prm.families.math_shepherd import MathShepherdFamily
from vllm_prm.families.pathfinder import PathFinderFamily
from vllm_prm.families.placeholder import PlaceholderFamily
from vllm_prm.families.prefix_value import PrefixValueFamily
from vllm_prm.families.prm_family import PRMFamily, Rendered
from vllm_prm.families.qwen_prm import QwenPRMFamily
from vllm_prm.families.rlhflow import RLHFlowFamily
from vllm_prm.families.skywork import SkyworkFamily
from vllm_prm.families.token_classification import TokenClassificationFamily
from vllm_prm.families.value_head import ValueHeadFamily

PRM_FAMILIES: dict[str, type[PRMFamily]] = {
    "ensemble_prm": EnsemblePRMFamily,
    "generative": GenerativeFamily,
    "implicit": ImplicitFamily,
    "math_shepherd": MathShepherdFamily,
    "pathfinder": PathFinderFamily,
    "placeholder": PlaceholderFamily,
    "prefix_value": PrefixValueFamily,
    "qwen_prm": QwenPRMFamily,
    "rlhflow": RLHFlowFamily,
    "skywork": SkyworkFamily,
    "token_classification": TokenClassificationFamily,
    "value_head": ValueHeadFamily,
}
"""Family name (the `prm.family` of a checkpoint's config.json, or `--family`) -> class. Where a name goes,
`FILE.py:Class` goes too."""


@dataclass(frozen=True)
class Detection:
    """The family a checkpoint is of, and what shows it."""

    family: str
    reason: str


def resolve_family(name: str) -> type[PRMFamily]:
    """The family called `name`: a key of `PRM_FAMILIES`, or `FILE.py:Class`.

    Raises `ValueError` for an unknown key, a file without that class, or a class that is no `PRMFamily`.
    """
    return _from_file(absolute(name)) if names_file(name) else resolve(PRM_FAMILIES, name, "PRM family")


@cache
def _from_file(name: str) -> type[PRMFamily]:
    family = load_from_file(name)
    if not (isinstance(family, type) and issubclass(family, PRMFamily)):
        raise ValueError(f"{name} is no PRM family: it must be a subclass of vllm_prm.families.PRMFamily")
    # Under the name by which the server's process finds it again, whatever the file calls it.
    return type(family.__name__, (family,), {"name": name, "__doc__": family.__doc__})


def detect_family(path: str, tokenizer: Any = None, *, trust_remote_code: bool = False) -> Detection:
    """The family of the checkpoint at `path` (a folder or a hub id).

    The key `prm` of config.json decides. Without it, `architectures`, the repository's name, names and shapes of the
    weights, and the vocabulary may. Raises `ValueError` when they name no known family, do not decide, or contradict
    one another, with all that was seen. A config.json that names a file of code is refused, unless
    `trust_remote_code`: a checkpoint must not run code because somebody scores with it.
    """
    checkpoint = Checkpoint(path, tokenizer)
    if checkpoint.config.get("prm") is not None:
        declared = checkpoint.declared_family
        if isinstance(declared, str) and names_file(declared):
            _require_trust(path, declared, trust_remote_code)
        elif declared not in PRM_FAMILIES:
            raise ValueError(f"config.json of {path}: prm.family is {declared!r}, known: {sorted(PRM_FAMILIES)}")
        return Detection(declared, "config.json declares it: prm.family")

    evidence = {name: seen for name, family in PRM_FAMILIES.items() if (seen := family.evidence(checkpoint))}
    decisive = [name for name, seen in evidence.items() if seen.decisive]
    if len(decisive) == 1:
        return Detection(decisive[0], evidence[decisive[0]].reason)
    candidates = "; ".join(f"{name} ({evidence[name].reason})" for name in decisive or evidence)
    raise ValueError(
        f"{path} does not show which PRM family it is: its config.json (architectures {checkpoint.architectures}) has "
        f'no key "prm". Candidates: {candidates or "none"}. Name the family explicitly; known: {sorted(PRM_FAMILIES)}'
    )


def models_beside(path: str, family: str | None = None, options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Checkpoints that are run beside the one at `path` to score, in engines of their own on the same device; `family`
    and `options` as in `load_family`. No tokenizer is loaded.

    Raises `ValueError` as `detect_family` and `resolve_family` do, and where one is not named.
    """
    checkpoint = Checkpoint(path)
    name = detect_family(path).family if family is None else family
    return resolve_family(name).models_beside(checkpoint, options)


def _require_trust(path: str, family: str, trust_remote_code: bool) -> None:
    if not trust_remote_code:
        raise ValueError(
            f"config.json of {path} names code: prm.family is {family}; if you trust it, name the family explicitly "
            "or set trust_remote_code"
        )


def load_family(
    path: str,
    family: str | None = None,
    tokenizer: Any = None,
    options: Mapping[str, Any] | None = None,
    *,
    trust_remote_code: bool = False,
) -> PRMFamily:
    """The family of the checkpoint at `path`, validated against its vocabulary.

    `family`, a key of `PRM_FAMILIES` or `FILE.py:Class`, and its `options` override what the checkpoint declares;
    `tokenizer` avoids loading it a second time. Raises `ValueError` as `detect_family`, `resolve_family` and
    `PRMFamily.from_checkpoint` do.
    """
    if family is None:
        family = detect_family(path, tokenizer, trust_remote_code=trust_remote_code).family
    return resolve_family(family).from_checkpoint(path, tokenizer, options)


__all__ = [
    "PRM_FAMILIES",
    "Detection",
    "PRMFamily",
    "Rendered",
    "detect_family",
    "load_family",
    "models_beside",
    "resolve_family",
]
