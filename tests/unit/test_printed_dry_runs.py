"""Every whole command on a page that takes GPUs fits the machine that the pages speak of, eight GPUs of 80 GiB."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT, pages, shell_commands
from dry_runs import MODULES, dry_command

from examples.cluster.shapes import PRM, SHAPES

POLICY = ROOT / "examples" / "quickstart" / "policy"
SIZES = {"1.5B": "Qwen/Qwen2.5-Math-1.5B", "7B": "Qwen/Qwen2.5-Math-7B"}
QUESTION = {"question": "Q: 1 + 1 = ?", "label": "2", "steps": ["2"], "hard_labels": [1]}
PUZZLE = QUESTION | {"label": json.dumps({"answer": "2", "metadata": {"source_dataset": "basic_arithmetic"}})}
SOLUTIONS = [
    {"id": str(number), "problem": f"{number} + 1 = ?", "steps": ["2"], "label": number % 2 - 1} for number in range(20)
]


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with what the pages' commands read."""
    folder = tmp_path_factory.mktemp("here")
    for size, name in SIZES.items():
        for kind, more in (("policy", {}), ("prm", PRM)):
            path = folder / f"Qwen2.5-Math-{kind}-{size}"
            shutil.copytree(POLICY, path, ignore=shutil.ignore_patterns("*.safetensors"))
            (path / "config.json").write_text(json.dumps(SHAPES[name] | more))
    for name in ("questions", "labels", "heldout", "train", "steps", "heldout_steps"):
        (folder / f"{name}.jsonl").write_text(json.dumps(QUESTION) + "\n")
    (folder / "puzzles.jsonl").write_text(json.dumps(PUZZLE) + "\n")
    (folder / "ProcessBench").mkdir()
    (folder / "ProcessBench" / "gsm8k.json").write_text(json.dumps(SOLUTIONS))
    shutil.copy(ROOT / "tests" / "stack" / "two_turn_agent.py", folder / "agent.py")  # the reader's own
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def at_hand(arguments: list[str], here: Path) -> list[str]:
    """A command line with checkpoints of `here` in the place of those that it names; one without a size is a small one.
    A checker of puzzles gets some.
    """
    words, flag = [], ""
    for word in arguments:
        flag = word if word.startswith("--") else flag
        if word != flag and flag.endswith("model_name_or_path"):
            size = next((size for size in SIZES if f"-{size}" in word), "1.5B")
            word = str(here / f"Qwen2.5-Math-{'prm' if flag.startswith('--prm') else 'policy'}-{size}")
        words.append("puzzles.jsonl" if word == "questions.jsonl" and "reasoning_gym" in arguments else word)
    return words


def printed(here: Path) -> list[tuple[str, str, list[str]]]:
    """Page, module, arguments."""
    found = []
    for page in pages():
        name, text = str(page.relative_to(ROOT)), page.read_text()
        if name.startswith("benchmarks/history") or name == "CHANGELOG.md":
            continue
        for words in shell_commands(text):
            if command := dry_command(words):
                module, arguments = command
                found.append((name, module, at_hand(arguments, here)))
    return found


def test_every_printed_command_fits_eight_gpus(here):
    commands = printed(here)
    assert {module for _, module, _ in commands} == set(MODULES.values()) and len(commands) > 15
    gpus = ["--dry_run", "--dry_run.gpus", "8x80"]
    too_many = ("train_prm", ["--ds.zero_stage", "0", "--ds.param_dtype", "fp32", "--ds.no_adam_offload"])
    lines = [(module, [*arguments, *gpus]) for _, module, arguments in commands]
    wrong = next(arguments for _, module, arguments in commands if module == too_many[0])
    wrong = [word.replace("-1.5B", "-7B") for word in wrong]
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "dry_runs.py")],
        input=json.dumps([*lines, (too_many[0], [*wrong, *too_many[1], *gpus])]),
        capture_output=True,
        text=True,
        cwd=here,
        env={name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RAY_ADDRESS")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *said, refused = json.loads(done.stdout.splitlines()[-1])
    faults = [f"{page}: {line}: {fault}" for (page, *line), fault in zip(commands, said, strict=True) if fault]
    assert not faults, "\n".join(faults)
    assert refused.startswith("exit code 2: ") and "GiB" in refused
