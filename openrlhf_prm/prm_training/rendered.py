"""Rendered solutions as flat arrays: little memory, and one copy that the processes of a node share.

A process per device would render, and hold, the whole data set as many times as there are devices: 400,000 solutions of
1,000 tokens are 16 GB of Python numbers in each, and 1.6 GB once as arrays.
"""

import shutil
import tempfile
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy
import torch.distributed as dist

_TYPES = {"tokens": "i", "positions": "i", "targets": "f", "first": "i"}
_TYPES |= {"token_ends": "q", "position_ends": "q", "target_ends": "q"}

Shared = TypeVar("Shared")


@dataclass(frozen=True)
class RenderedSolution:
    """A rendered solution: its tokens up to the last scored one, where its labelled steps are scored, its targets, and
    `first`, the index of the last token before the response where a family sums over tokens."""

    index: int
    token_ids: list[int]
    positions: list[int]
    targets: list[float]
    first: int


class RenderedSolutions(Sequence[RenderedSolution]):
    """A list of `RenderedSolution` that is kept in arrays: tokens, positions and targets of all of them in a row, and
    where each solution's end. Targets are float32, as the loss reads them."""

    def __init__(self, arrays: Mapping[str, numpy.ndarray]) -> None:
        self._arrays = dict(arrays)

    @classmethod
    def of(cls, solutions: Iterable[RenderedSolution]) -> "RenderedSolutions":
        """Packs solutions; their `index` is their place."""
        parts = {name: array(kind) for name, kind in _TYPES.items()}
        for solution in solutions:
            parts["first"].append(solution.first)
            lists = {"token": solution.token_ids, "position": solution.positions, "target": solution.targets}
            for name, numbers in lists.items():
                parts[f"{name}s"].extend(numbers)
                parts[f"{name}_ends"].append(len(parts[f"{name}s"]))
        return cls({name: numpy.array(part) for name, part in parts.items()})

    def __len__(self) -> int:
        return len(self._arrays["first"])

    def __getitem__(self, index: int) -> RenderedSolution:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return RenderedSolution(
            index,
            *(self._part(name, index) for name in ("token", "position", "target")),
            int(self._arrays["first"][index]),
        )

    def _part(self, name: str, index: int) -> list:
        ends = self._arrays[f"{name}_ends"]
        return self._arrays[f"{name}s"][ends[index - 1] if index else 0 : ends[index]].tolist()

    @property
    def tokens(self) -> int:
        """Number of tokens of all solutions."""
        return len(self._arrays["tokens"])

    def save(self, folder: Path) -> None:
        """Writes the arrays into `folder`, which is made."""
        folder.mkdir(parents=True)
        for name, part in self._arrays.items():
            numpy.save(folder / f"{name}.npy", part)

    @classmethod
    def mapped(cls, folder: Path) -> "RenderedSolutions":
        """What `save` wrote, read from the files as it is needed; the files may be deleted meanwhile."""
        return cls({file.stem: numpy.load(file, mmap_mode="r") for file in folder.glob("*.npy")})


def once_per_node(
    make: Callable[[], Shared], save: Callable[[Shared, Path], None], load: Callable[[Path], Shared], local_rank: int
) -> Shared:
    """What `make` gives, made by one process of each node only; the others `load` what it has `save`d in a temporary
    folder (TMPDIR). Called by every process of the process group, or without one.

    A ValueError or OSError of `make` on any node is raised as ValueError by all processes.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return make()
    made = folder = fault = None
    if local_rank == 0:
        try:
            made = make()
            folder = Path(tempfile.mkdtemp(prefix="train_prm."))
            save(made, folder)
        except (ValueError, OSError) as error:
            fault = str(error)
    said: list = [None] * dist.get_world_size()
    dist.all_gather_object(said, (fault, folder))
    try:
        if faults := [fault for fault, _ in said if fault]:
            raise ValueError(faults[0])
        if local_rank != 0:
            made = load(said[dist.get_rank() - local_rank][1])  # a launcher numbers the processes of a node in a row
        dist.barrier()
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return made
