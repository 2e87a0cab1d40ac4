"""Rejection sampling as a user runs it: a small policy on real Ray and vLLM, ranked by a random PRM, stopped by a full
disk, and resumed; the host's SFT trains on the result.
"""

import json

import pytest
from commands import ROOT, fine_tune, summary_of
from killed_command import fill_disk_midway
from tiny_prm import save_tiny_prm

from openrlhf_prm.data.ledger import balances
from openrlhf_prm.tasks.arithmetic import questions

pytestmark = pytest.mark.stack

POLICY = ROOT / "benchmarks" / "policies" / "short"
COUNT, SAMPLES = 24, 4


def test_samples_are_ranked_kept_and_trained_on(tmp_path):
    data, output = tmp_path / "in.jsonl", tmp_path / "sft.jsonl"
    rows = [{"question": text, "label": label} for text, label in questions("train", COUNT, seed=0)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prm = save_tiny_prm(tmp_path / "prm")
    command = ["openrlhf_prm.cli.rejection_sample", "--actor.model_name_or_path", POLICY]
    command += ["--data.input", data, "--data.output", output, "--prm.model_name_or_path", prm]
    command += ["--rollout.n_samples_per_prompt", SAMPLES, "--rollout.max_new_tokens", 160]

    kept = tmp_path / "sft.jsonl.samples.jsonl"
    told = fill_disk_midway(kept, 1, *command, "--rollout.concurrency", "1")
    assert f"error: {kept} cannot be written: File too large; once there is room" in told
    before = kept.read_text()
    before = before[: before.rindex("\n") + 1]
    assert 1 < len(before.splitlines()) < COUNT
    assert not output.exists() and [each.faults for each in balances(tmp_path)] == [["the run has not ended"]]

    summary = summary_of(*command)
    assert kept.read_text().startswith(before)
    assert summary["questions"] == COUNT and summary["sampled"] == COUNT * SAMPLES
    assert summary["resumed_questions"] == len(before.splitlines()) - 1
    left_out = sum(summary[name] for name in ("below_score", "duplicates", "beyond_cap"))
    assert summary["correct"] == summary["kept"] + left_out and summary["kept"] > COUNT // 2

    assert [(each.came, each.faults) for each in balances(tmp_path)] == [(COUNT, []), (COUNT * SAMPLES, [])]

    sft = [json.loads(line) for line in output.read_text().splitlines()]
    labels = {row["question"]: row["label"] for row in rows}
    assert len(sft) == summary["kept"] == len({(row["input"], row["output"]) for row in sft})
    for row in sft:
        assert row["output"].endswith(f"Answer: {labels[row['input']]}\n<eos>") and 0 <= row["score"] <= 1
    scores: dict[str, list[float]] = {}
    for row in sft:
        scores.setdefault(row["id"], []).append(row["score"])
    assert all(ranked == sorted(ranked, reverse=True) for ranked in scores.values())

    tuned = fine_tune(output, "--model.model_name_or_path", POLICY, *summary["train_sft"].split())
    assert (tuned / "config.json").exists() and (tuned / "model.safetensors").exists()
