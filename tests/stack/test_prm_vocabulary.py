"""A PRM whose vocabulary is not the policy's: `train_prm --prm.add_placeholder_token`."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from warm import run

from examples.quickstart.make_policy import build_model, build_tokenizer

pytestmark = pytest.mark.stack


def train_prm(folder: Path, *flags: str) -> subprocess.CompletedProcess:
    """One update from an untrained model whose vocabulary lacks the placeholder."""
    policy, rows = folder / "policy", folder / "rows.jsonl"
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    model.resize_token_embeddings(len(tokenizer))  # no spare row for another token
    model.to(torch.bfloat16).save_pretrained(policy)
    tokenizer.save_pretrained(policy)
    row = {"question": "Q: 1+2=?\n", "steps": ["1+2=3", "1+2=4"], "hard_labels": [1, 0]}
    rows.write_text(f"{json.dumps(row)}\n" * 2)
    files = ("--model.model_name_or_path", policy, "--data.dataset", rows, "--ckpt.output_dir", folder / "prm")
    sizes = ("--train.batch_size", "2", "--train.micro_batch_size", "2")
    return run("openrlhf_prm.cli.train_prm", *files, *sizes, "--prm.placeholder_token", "<end of step>", *flags)


def test_an_unknown_placeholder_is_an_error_of_one_line(tmp_path):
    done = train_prm(tmp_path)
    assert done.returncode == 2
    assert "has no token '<end of step>'" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "prm").exists()


def test_the_placeholder_is_added_with_a_row_of_its_own(tmp_path):
    from transformers import AutoModelForCausalLM

    from vllm_prm.families import load_family

    done = train_prm(tmp_path, "--prm.add_placeholder_token")
    assert done.returncode == 0, done.stderr[-3000:]
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("policy", "prm"))
    assert after.config.vocab_size == before.config.vocab_size + 1
    assert after.get_output_embeddings().weight.shape == after.get_input_embeddings().weight.shape
    family = load_family(str(tmp_path / "prm"))
    rendered = family.render("Q: 1+2=?\n", ["1+2=3", "1+2=4"])
    new = len(family.tokenizer) - 1
    assert [rendered.token_ids[position] for position in rendered.step_positions] == [new, new]
