"""Everything that goes on where it stopped, as work in a folder: each user does what is not done yet.

`python durable_users.py NAME FOLDER WRITES BYTES` does it in a process that is killed in the middle of its WRITES-th
write, when all but the last BYTES of it have reached the disk.
"""

import argparse
import json
import os
import signal
import stat
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.work_file import WorkFile
from openrlhf_prm.generation.sampler import Candidate, SampledQuestion
from openrlhf_prm.generation.samples_file import SamplesFile
from vllm_prm.durable_file import DurableFile

NAMES = [f"ü{index}" for index in range(9)]
QUESTIONS = [Question(name, f"{name}?", "1") for name in NAMES]


def scores(folder: Path) -> None:
    with DurableFile(folder / "scores.jsonl", {"prm": "a"}) as file:
        for name in NAMES:
            if name not in file.finished:
                file.append([{"key": name, "step_scores": [0.5, None]}])


def samples(folder: Path) -> None:
    with SamplesFile(folder / "samples.jsonl", {"policy": "a"}) as file:
        for question in QUESTIONS:
            if question.id not in file.finished:
                sampled = SampledQuestion(3, 1, [Candidate("ü\n", ["ü"], 2, [0.5]), Candidate("b", ["b"], 1)])
                file.append_all([(question, sampled)])


def chains(folder: Path) -> None:
    with WorkFile(folder / "chains.jsonl.work.jsonl", {"scheme": "a"}) as file:
        for question in QUESTIONS:
            if question.id not in file.finished:
                file.append_all([(question, {"id": question.id, "chain": [{"kind": "step", "text": "ü\n"}]})])


def labels(folder: Path) -> None:
    solution = LabelledSolution("é=1", ["é=1"], [1.0], [1], [1.0], [0], [0], [0], True, False, [0])
    with LabelFile(folder / "labels.jsonl", {"rollouts": 8}) as file:
        for question in QUESTIONS:
            if question.id not in file.finished:
                labelled = AnnotatedQuestion(Root(2, 2), [solution] * 3, {})
                dropped = AnnotatedQuestion(Root(0, 8), [], {}, dropped="all_wrong")
                file.append(question, dropped if question.id == "ü2" else labelled)


def score_command(folder: Path) -> None:
    from vllm_prm import score_file

    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps({"id": name, "question": "q", "steps": [name]}) + "\n" for name in NAMES))
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.set_defaults(family=None, family_options={})
    score_file.add_arguments(parser)
    flags = ["the/prm", "--input", str(source), "--output", str(folder / "out.jsonl"), "--batch-size", "1"]

    def output_fields(items, truncate):
        return [{"step_rewards": [0.5]} for _ in items]

    scorer = SimpleNamespace(output_fields=output_fields, shutdown=lambda: None)
    with patch.object(score_file, "_start", lambda *_: scorer):
        score_file.score_file(parser.parse_args([*flags, "--aggregate", "min"]))


def cells(folder: Path) -> None:
    from benchmarks import runs

    with (
        patch.multiple(runs, hardware=dict, versions=dict),  # slow to find out
        patch.object(os, "getloadavg", lambda: (0.0, 0.0, 0.0)),
        patch.object(sys, "argv", ["bench"]),
    ):
        results = runs.Cells(folder / "results.json", {"updates": 4})
        results.fill({name: lambda name=name: {"figure": name} for name in NAMES})
        results.write({"cells": len(results.filled)})


def stages(folder: Path) -> None:
    from examples.quickstart import stages as recipe

    with patch.object(recipe, "_run", lambda stage, *_: stage.outputs[0].write_text(stage.name) and 1.0):
        recipe.run_stages([recipe.Stage(name, name, [name], [folder / name], expected_s=1) for name in NAMES], folder)


USERS = {user.__name__: user for user in (scores, samples, chains, labels, score_command, cells, stages)}


def work_until_killed(name: str, folder: Path, writes: int, lost_bytes: int) -> None:
    written, sync = 0, os.fsync
    sizes = {path.stat().st_ino: path.stat().st_size for path in folder.rglob("*")}

    def dying_fsync(handle: int) -> None:
        nonlocal written
        state = os.fstat(handle)
        if stat.S_ISREG(state.st_mode):
            written += 1
            if written == writes:
                fresh = max(0, state.st_size - sizes.get(state.st_ino, 0))
                os.truncate(handle, state.st_size - min(lost_bytes, fresh))
                os.kill(os.getpid(), signal.SIGKILL)
            sizes[state.st_ino] = state.st_size
        sync(handle)

    os.fsync = dying_fsync
    USERS[name](folder)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # the root of the repository: `benchmarks` and `examples` are not installed
    work_until_killed(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
