"""The small files of a checkpoint: its configuration and its tokenizer."""

from pathlib import Path
from typing import Any


def require_checkpoint(path: str) -> None:
    """`ValueError` if `path` is no folder and no model that the hub has or its cache holds.

    The hub is asked once: transformers would ask five times, half a minute, before it says that there is no such model.
    """
    if Path(path).is_dir():
        return
    from httpx import HTTPError
    from huggingface_hub import model_info, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        if isinstance(try_to_load_from_cache(path, "config.json"), str):
            return
        model_info(path, timeout=10)
    except (HFValidationError, RepositoryNotFoundError):
        raise ValueError(f"{path} is neither a checkpoint folder nor the id of a model on the hub") from None
    except (HTTPError, OSError) as error:
        raise ValueError(f"{path} is no checkpoint folder, and the hub cannot be asked for it: {error}") from None


def read_config(path: str) -> dict[str, Any]:
    """The config.json of the checkpoint at `path` (a folder or a hub id) as a dict, unknown keys kept."""
    from transformers import PretrainedConfig

    require_checkpoint(path)
    try:
        config, _ = PretrainedConfig.get_config_dict(path)
    except OSError as error:
        raise ValueError(f"{path} is neither a checkpoint folder nor a hub id that can be read: {error}") from error
    if not config:
        raise ValueError(f"{path} has no readable config.json")
    return config


def load_tokenizer(path: str) -> Any:
    """The tokenizer saved with the checkpoint: a PRM must be read with its own, never with the policy's."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except OSError as error:
        raise ValueError(f"{path} has no tokenizer that can be read: {error}") from error
