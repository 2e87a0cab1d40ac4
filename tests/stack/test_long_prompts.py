"""Many prompts of real length at one time, each with its seed, as `evaluate` sends them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples.quickstart.make_policy import build_model, build_tokenizer

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]


def test_prompts_beyond_one_engine_step_are_answered(tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).to(torch.bfloat16).save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    # 128 requests of some 460 tokens each; vLLM takes 2048 tokens in a step.
    rows = [{"question": f"Q: {number}" + "+12" * 150 + "=?\n", "label": "3"} for number in range(10, 26)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--actor.model_name_or_path", tmp_path / "policy", "--data.input", tmp_path / "rows.jsonl"]
    flags += ["--eval.n_samples_per_prompt", 7, "--rollout.max_new_tokens", 8]
    done = subprocess.run(
        [sys.executable, "-m", "openrlhf_prm.cli.evaluate", *map(str, flags)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["questions"] == 16
