"""What commands check of their flags before an engine starts. Each raises ValueError that names the flag."""

from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from types import SimpleNamespace

from vllm_prm.api_keys import key_from, key_is_set


class TooFewGPUs(ValueError):
    """The flags ask for more GPUs than Ray has, or for a model that a GPU cannot hold."""


class NotSeen(ValueError):
    """A node of the cluster does not have what a flag names."""


def require_at_least_one(args: SimpleNamespace, *flags: str) -> None:
    """Numbers of `args`, as `nested` makes it, that count something; None where a flag was not given."""
    for flag in flags:
        value = reduce(getattr, flag.split("."), args)
        if value is not None and value < 1:
            raise ValueError(f"--{flag} must be at least 1, got {value}")


def require_key(flag: str, name: str | None) -> None:
    """A flag that names the environment variable with a key, where it is given."""
    if name is None:
        return
    if not key_is_set(name):
        raise ValueError(f"{flag}: the environment variable {name} is not set")
    try:
        key_from(name)
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from None


def require_urls(flag: str, urls: Sequence[str], key: str | None = None) -> None:
    """Addresses of servers; `key`: the environment variable with their key, for those that want one."""
    if urls and key is not None and key_is_set(key):
        require_key(flag, key)
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{flag} must begin with http:// or https://, got {url!r}")


def require_family(family: str | None, model: str | None = None) -> None:
    """A PRM family, or `FILE.py:Class` of one; without one a folder with a checkpoint must show its own."""
    if family is not None:
        from vllm_prm.families import resolve_family

        try:
            resolve_family(family)
        except ValueError as error:
            raise ValueError(f"--prm.family: {error}") from None
    if model and Path(model).is_dir():
        models_beside(model, family)


def models_beside(model: str, family: str | None = None, options: Mapping | None = None) -> tuple[str, ...]:
    """Checkpoints that a PRM reads beside its own (`PRMFamily.models_beside`); none for a model of the hub whose family
    does not show from here: its engine looks for itself. Raises ValueError naming the flag.
    """
    from vllm_prm import families

    try:
        return families.models_beside(model, family, options)
    except (ValueError, OSError) as error:
        if not Path(model).is_dir():
            return ()
        advice = " (--prm.family names it)" if family is None else ""
        raise ValueError(f"--prm.model_name_or_path: {' '.join(str(error).split())}{advice}") from None


def prm_paths(model: str, family: str | None, beside: Sequence[str]) -> list[tuple[str, str]]:
    """What a PRM's engines read, by flag: checkpoints, and of a family from a file the file."""
    from vllm_prm.extension_files import absolute, names_file

    own = [("--prm.family", absolute(family).partition(":")[0])] if family and names_file(family) else []
    return [*(("--prm.model_name_or_path", path) for path in (model, *beside)), *own]


def require_checkpoint(flag: str, name: str) -> None:
    """A folder must hold a checkpoint; a hub id must be at hand or be found."""
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ValueError(f"{flag}: no checkpoint (config.json) in {name}")
        return
    # A hub id is owner/name; anything else can only be a path.
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"{flag}: there is no folder {name}")
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{flag}: {name} is neither a folder nor a model of the hub ({type(error).__name__})"
        ) from None
