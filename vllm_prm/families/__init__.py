"""PRM families: how a solution is written for a PRM, and how its scores are read. One file and one line each."""

from vllm_prm.families.base import PRMFamily, Rendered, read_config
from vllm_prm.families.placeholder import PlaceholderFamily

PRM_FAMILIES: dict[str, type[PRMFamily]] = {
    "placeholder": PlaceholderFamily,
}
"""Family name (the `prm.family` of a checkpoint's config.json) -> class."""


def detect_family(path: str) -> str:
    """Name of the family of the checkpoint at `path` (a folder or a hub id), from the `prm` key of its config.json.

    Raises `ValueError` when there is no such key or it names no known family, saying what was found.
    """
    config = read_config(path)
    declared = config.get("prm")
    if declared is None:
        raise ValueError(
            f"{path} does not say which PRM family it is: its config.json (architectures {config.get('architectures')})"
            f' has no key "prm". Name the family explicitly; known: {sorted(PRM_FAMILIES)}'
        )
    name = declared.get("family") if isinstance(declared, dict) else declared
    if name not in PRM_FAMILIES:
        raise ValueError(f"config.json of {path}: prm.family is {name!r}, known: {sorted(PRM_FAMILIES)}")
    return name


def load_family(path: str, family: str | None = None, tokenizer=None) -> PRMFamily:
    """The family of the checkpoint at `path`, validated against its vocabulary.

    `family` overrides what the checkpoint declares; `tokenizer` avoids loading it a second time. Raises `ValueError`
    as `detect_family` and `PRMFamily.from_checkpoint` do.
    """
    name = detect_family(path) if family is None else family
    if name not in PRM_FAMILIES:
        raise ValueError(f"family is {name!r}, known: {sorted(PRM_FAMILIES)}")
    return PRM_FAMILIES[name].from_checkpoint(path, tokenizer)


__all__ = ["PRM_FAMILIES", "PRMFamily", "Rendered", "detect_family", "load_family"]
