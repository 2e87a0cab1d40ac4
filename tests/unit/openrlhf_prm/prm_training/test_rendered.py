"""Rendered solutions as arrays, and a node's processes that share what one of them has rendered."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from openrlhf_prm.prm_training.rendered import RenderedSolution, RenderedSolutions

SOLUTIONS = [
    RenderedSolution(0, [5, 70000, 2], [2], [0.1], 0),
    RenderedSolution(1, [1], [0], [1.0], 0),
    RenderedSolution(2, [9, 8, 7, 6], [1, 3], [0.0], 1),  # an outcome: one target for two steps
]


def test_solutions_come_out_as_they_went_in(tmp_path):
    packed = RenderedSolutions.of(SOLUTIONS)
    packed.save(tmp_path / "new" / "rendered")
    mapped = RenderedSolutions.mapped(tmp_path / "new" / "rendered")
    for solutions in (packed, mapped):
        assert len(solutions) == 3 and solutions.tokens == 8
        for got, expected in zip(solutions, SOLUTIONS, strict=True):
            assert (got.index, got.token_ids, got.positions, got.first) == (
                expected.index, expected.token_ids, expected.positions, expected.first
            )  # fmt: skip
            assert torch.equal(torch.tensor(got.targets), torch.tensor(expected.targets))
        assert solutions[-1].index == 2
        with pytest.raises(IndexError):
            solutions[3]


PROCESS = """
import json, os, sys
from pathlib import Path

import torch.distributed as dist

from openrlhf_prm.prm_training.rendered import once_per_node

folder, rank, fail = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=4)


def make():
    (folder / f"made.{rank}").touch()
    if rank == fail:
        raise ValueError("x.jsonl line 3: no steps")
    return f"of {rank}"


def save(made, where):
    (folder / f"where.{rank}").write_text(str(where))
    (where / "made").write_text(made)


# Two nodes of two processes.
try:
    said = once_per_node(make, save, lambda where: (where / "made").read_text(), local_rank=rank % 2)
except ValueError as error:
    said = f"error: {error}"
(folder / f"said.{rank}").write_text(said)
dist.barrier()
dist.destroy_process_group()  # or who is last to end aborts: its neighbours have hung up
"""


@pytest.mark.parametrize("fail", [None, 2])
def test_one_process_of_each_node_makes_what_the_others_load(tmp_path, fail):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank), str(-1 if fail is None else fail)]) for rank in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert sorted(path.name for path in tmp_path.glob("made.*")) == ["made.0", "made.2"]
    said = [(tmp_path / f"said.{rank}").read_text() for rank in range(4)]
    assert said == (["of 0", "of 0", "of 2", "of 2"] if fail is None else ["error: x.jsonl line 3: no steps"] * 4)
    for file in tmp_path.glob("where.*"):
        assert not Path(file.read_text()).exists(), "temporary folders are to be removed"
