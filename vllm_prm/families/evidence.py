"""What can be seen of a checkpoint without loading it, for telling which family it is."""

import json
import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vllm_prm.extension_files import absolute
from vllm_prm.families.checkpoint_files import load_tokenizer, read_config

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Evidence:
    """Why a checkpoint may be of a family. `decisive`: nothing else looks like this; otherwise a person must say."""

    reason: str
    decisive: bool = False


class Checkpoint:
    """The checkpoint at `path` (a folder or a hub id): configuration, tokenizer, names and shapes of its weights."""

    def __init__(self, path: str, tokenizer: Any = None) -> None:
        self.path = path
        if tokenizer is not None:
            self.tokenizer = tokenizer  # instead of the cached property

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.json. `ValueError` if there is none."""
        return read_config(self.path)

    @property
    def declared_family(self) -> Any:
        """`prm.family` of config.json, None where it declares none. A `FILE.py:Class` lies in the checkpoint's folder;
        it comes with its whole path."""
        declared = self.config.get("prm")
        family = declared.get("family") if isinstance(declared, dict) else declared
        return absolute(family, Path(self.path)) if isinstance(family, str) else family

    @property
    def declared_options(self) -> dict[str, Any]:
        """What config.json says under `prm` beside the family."""
        declared = self.config.get("prm")
        return {k: v for k, v in declared.items() if k != "family"} if isinstance(declared, dict) else {}

    @property
    def architectures(self) -> list[str]:
        """`architectures` of config.json, possibly empty."""
        return self.config.get("architectures") or []

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer saved with the checkpoint."""
        return load_tokenizer(self.path)

    @cached_property
    def names(self) -> set[str]:
        """The repository's name, in lower case, where the path shows it: as the last part, or in the hub's cache."""
        path = Path(self.path)
        cached = [part.rpartition("--")[2] for part in path.parts if part.startswith("models--")]
        return {name.lower() for name in (path.name, *cached)}

    @cached_property
    def weights(self) -> dict[str, Shape | None]:
        """Name -> shape of every tensor in the safetensors files, read from their headers; a shape is None where only
        the index is at hand. Empty when there are no safetensors."""
        folder = Path(self.path)
        if not folder.is_dir():
            return _hub_weights(self.path)
        index = folder / "model.safetensors.index.json"
        shapes: dict[str, Shape | None] = {}
        if index.is_file():
            shapes = dict.fromkeys(json.loads(index.read_text())["weight_map"])
        for file in sorted(folder.glob("*.safetensors")):
            shapes |= _header(file)
        return shapes

    def rows(self, name: str) -> int | None:
        """First dimension of the weight `name`, None if unknown."""
        shape = self.weights.get(name)
        return shape[0] if shape else None


def _header(file: Path) -> dict[str, Shape]:
    # safetensors: 8 bytes of length, then JSON. Its own reader would map the whole file for every look.
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        entries = json.loads(opened.read(length))
    return {name: tuple(entry["shape"]) for name, entry in entries.items() if name != "__metadata__"}


def _hub_weights(repository: str) -> dict[str, Shape | None]:
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import NotASafetensorsRepoError

    try:
        metadata = get_safetensors_metadata(repository)
    except NotASafetensorsRepoError:
        return {}
    except OSError as error:
        raise ValueError(f"the weights of {repository} cannot be looked into: {error}") from error
    return {name: tuple(info.shape) for file in metadata.files_metadata.values() for name, info in file.tensors.items()}
