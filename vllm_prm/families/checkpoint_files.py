"""The small files of a checkpoint: its configuration and its tokenizer."""

from typing import Any


def read_config(path: str) -> dict[str, Any]:
    """The config.json of the checkpoint at `path` (a folder or a hub id) as a dict, unknown keys kept."""
    from transformers import PretrainedConfig

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
