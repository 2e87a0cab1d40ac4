"""The family of a checkpoint, read with the revision and the tokenizer that vLLM will use for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vllm_prm.architectures import scores_steps
from vllm_prm.extension_files import names_file
from vllm_prm.families import PRM_FAMILIES, PRMFamily, load_family, resolve_family
from vllm_prm.families.checkpoint_files import require_checkpoint

TOKENIZER_OPTIONS = ("tokenizer", "tokenizer_revision", "revision", "trust_remote_code")
"""vLLM's arguments that decide which tokenizer and which revision of the config it uses."""

# What a family reads of a repository: configuration and tokenizer, no weights and no code.
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]


def load_served_family(
    model: str,
    family: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    revision: str | None = None,
    tokenizer: Any = None,
    tokenizer_revision: str | None = None,
    trust_remote_code: bool = False,
) -> PRMFamily:
    """`load_family` under vLLM's options of the same names; `options` are the family's own.

    `tokenizer`: a folder or hub id like vLLM's, or a tokenizer that is loaded already; without it and without other
    options the family loads the checkpoint's own. `ValueError` as from `load_family`.
    """
    folder = model
    if revision is not None and not Path(model).is_dir():
        from huggingface_hub import snapshot_download

        require_checkpoint(model)
        try:
            folder = snapshot_download(model, revision=revision, allow_patterns=SMALL_FILES)
        except OSError as error:
            raise ValueError(f"revision {revision!r} of {model} cannot be read: {error}") from error
    if isinstance(tokenizer, str) or (tokenizer is None and (trust_remote_code or tokenizer_revision)):
        from transformers import AutoTokenizer

        name = tokenizer or folder
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                name, revision=tokenizer_revision or "main", trust_remote_code=trust_remote_code
            )
        except OSError as error:
            raise ValueError(f"the tokenizer {name!r} cannot be read: {error}") from error
    return load_family(folder, family, tokenizer, options, trust_remote_code=trust_remote_code)


def family_in_engine(model_config: Any, tokenizer: Any) -> PRMFamily | None:
    """The family that a running engine was started for, from vLLM's `ModelConfig`, with the engine's `tokenizer`; None
    if its model scores no steps."""
    declared = getattr(model_config.hf_config, "prm", None)
    if not isinstance(declared, dict):
        return None
    name = declared.get("family")
    from_file = isinstance(name, str) and names_file(name)
    trusted = from_file and _named_by_the_user(name, model_config)
    if model_config.runner_type == "pooling":
        scores = scores_steps(model_config.architecture)
    else:
        known = name in PRM_FAMILIES or trusted
        scores = known and resolve_family(name).runner == model_config.runner_type
    if not scores:
        return None
    if from_file and not trusted:
        raise ValueError(f"config.json of {model_config.model} names code, {name}; start it with `vllm-prm serve`")
    return load_served_family(
        model_config.model,
        name,
        options=declared.get("options"),
        revision=model_config.revision,
        tokenizer=tokenizer,
    )


def _named_by_the_user(family: str, model_config: Any) -> bool:
    """Whether who started the engine named `family`, in the overrides of the checkpoint's config."""
    overrides = model_config.hf_overrides
    given = overrides.get("prm") if isinstance(overrides, dict) else None
    return isinstance(given, dict) and given.get("family") == family
