"""A PRM whose vocabulary is not the policy's: a placeholder that the tokenizer lacks."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_chat_lm import save_tiny_chat_lm
from warm import run

from vllm_prm.families import load_family

pytestmark = pytest.mark.stack

NAMED = ("--prm.placeholder_token", "<end of step>")
ZERO_3 = ("--ds.zero_stage", "3")


def train_prm(folder: Path, *flags: str, tied: bool = False) -> subprocess.CompletedProcess:
    """One update, too small to change a weight, of a model whose vocabulary lacks the placeholder and has no row for
    it."""
    policy, rows = save_tiny_chat_lm(folder / "policy", "llama", tied=tied), folder / "rows.jsonl"
    row = {"question": "Q: 1+2=?\n", "steps": ["1+2=3", "1+2=4"], "hard_labels": [1, 0]}
    rows.write_text(f"{json.dumps(row)}\n" * 2)
    files = ("--model.model_name_or_path", policy, "--data.dataset", rows, "--ckpt.output_dir", folder / "prm")
    sizes = ("--train.batch_size", "2", "--train.micro_batch_size", "2", "--adam.lr", "1e-30")
    return run("openrlhf_prm.cli.train_prm", *files, *sizes, *flags)


def test_an_unknown_placeholder_is_an_error_of_one_line(tmp_path):
    done = train_prm(tmp_path, *NAMED)
    assert done.returncode == 2
    assert "has no token '<end of step>'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "prm").exists()


@pytest.mark.parametrize(
    ("flags", "tied"),
    [
        ((*NAMED, "--prm.add_placeholder_token"), False),
        (ZERO_3, False),
        (ZERO_3, True),
        ((*ZERO_3, "--prm.head", "qwen_prm"), False),
    ],
)
def test_the_placeholder_is_added_with_a_row_of_its_own(tmp_path, flags, tied):
    """Its row is the mean of the others, which stay as they are; also where ZeRO-3 has taken the weights apart."""
    done = train_prm(tmp_path, *flags, tied=tied)
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("policy", "prm"))
    resized = {name for name in before.keys() & after.keys() if before[name].shape != after[name].shape}
    both = not tied and "qwen_prm" not in flags
    assert resized == {"model.embed_tokens.weight", *(["lm_head.weight"] if both else [])}
    for name in before.keys() & after.keys():
        old, new = before[name], after[name]
        assert torch.equal(new[: len(old)], old), name
        if name in resized:
            assert len(new) == len(old) + 1 == json.loads((tmp_path / "prm" / "config.json").read_text())["vocab_size"]
            torch.testing.assert_close(new[-1], old.mean(dim=0), rtol=1e-5, atol=1e-6)
    family = load_family(str(tmp_path / "prm"))
    rendered = family.render("Q: 1+2=?\n", ["1+2=3", "1+2=4"])
    new = len(family.tokenizer) - 1
    assert [rendered.token_ids[position] for position in rendered.step_positions] == [new, new]
