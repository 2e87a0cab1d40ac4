"""Self-correction for real: two attempts in vLLM rollouts with step rewards, both stages in one run that is killed in a
checkpoint, and goes on asynchronously with attempts that are one chain.
"""

import json
import os
from pathlib import Path

import pytest
from ppo_runs import POLICY, data, host_flags, logged_steps, prm, train  # noqa: F401 (fixtures)

from openrlhf_prm.data.ledger import balances

pytestmark = pytest.mark.stack

DYING = Path(__file__).parent / "faults" / "dying"
CORRECTS = (
    *("--self_correction.stage", 1, "--self_correction.stage1_steps", 1, "--self_correction.attempt_tokens", 80),
    *("--self_correction.instruction", "Q: 12+35+21=?", "--algo.advantage.estimator", "rloo"),
    *("--algo.kl.init_coef", 0.01),
)


def check(steps, stages):
    assert [status["self_correction/stage"] for status in steps] == stages
    for status in steps:
        # Log-probs of both attempts, the second one's under x2, are the engine's.
        assert abs(status["vllm_kl"]) < 0.005
        gained = status["self_correction/wrong_to_right"] - status["self_correction/right_to_wrong"]
        first, second = status["self_correction/accuracy_t1"], status["self_correction/accuracy_t2"]
        assert second - first == pytest.approx(gained, abs=1e-3)
        assert status["self_correction/difference"] == pytest.approx(gained, abs=1e-3)
        assert status["process/accuracy"] == pytest.approx(second, abs=1e-3)
        assert 0 <= status["self_correction/copied"] <= 1 and status["self_correction/edit_ratio"] > 0
        bins = [value for name, value in status.items() if name.startswith("self_correction/edits_")]
        assert len(bins) == 5 and sum(bins) == pytest.approx(1, abs=1e-3)


def test_both_stages_killed_in_a_checkpoint_and_resumed_as_one_chain_in_async_mode(data, prm, tmp_path, monkeypatch):  # noqa: F811
    base = tmp_path / "base.jsonl"
    rows = [json.loads(line) for line in (data / "questions.jsonl").read_text().splitlines()]
    base.write_text(
        "".join(json.dumps({"question": row["question"], "response": "Answer: 1\n"}) + "\n" for row in rows)
    )
    flags = [
        *(*host_flags(data), *CORRECTS, "--data.max_samples", 16),
        *("--prm.model_name_or_path", prm, "--process_reward.shaping", "min_form"),
        *("--length_penalty.kind", "kimi", "--length_penalty.coef", 0.1),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt", "--ckpt.save_steps", 1),
        *("--ckpt.max_num", 1),
    ]
    with monkeypatch.context() as dying:
        dying.setenv("PYTHONPATH", os.pathsep.join([str(DYING), *filter(None, [os.environ.get("PYTHONPATH")])]))
        dying.setenv("DIE_AT", str(tmp_path / "ckpt" / "_actor" / "global_step2" / "metric.json"))
        done = train(*flags, "--self_correction.offline_share", 1, "--self_correction.offline_file", base)
    assert done.returncode == 1 and "error: a process of the run died" in done.stderr, done.stderr[-3000:]
    assert {path.name for path in (tmp_path / "ckpt" / "_actor").iterdir()} > {"global_step1", "global_step2"}
    steps = logged_steps(done.stdout + done.stderr)
    assert [status["self_correction/stage"] for status in steps] == [1, 2]
    # In stage 1 the policy writes all, in stage 2 the file has every first attempt.
    assert [status["self_correction/offline"] for status in steps] == [0, 1]
    check(steps[:1], [1])
    assert steps[0]["process/steps"] >= 1 and steps[0]["process/reward"] != 0 and "length_penalty" in steps[0]
    assert abs(steps[1]["vllm_kl"]) < 0.005

    resumed = train(
        *(*flags, "--ckpt.load_enable", "--train.num_episodes", 2),
        *("--self_correction.within_chain", "--train.async_enable"),
    )
    assert resumed.returncode == 0, resumed.stdout[-3000:] + resumed.stderr[-3000:]
    later = logged_steps(resumed.stdout + resumed.stderr)
    assert len(later) == 3, "the second update again, and two of the second episode"
    assert all(status["self_correction/stage"] == 2 for status in later)
    # Later rollouts of async training come from older weights than the update's.
    check(later[:1], [2])
    balance = balances(tmp_path / "ckpt")
    assert [(each.unit, each.came) for each in balance][:2] == [("prompts", 32), ("responses", 128)]
    assert [each.faults for each in balance] == [[]] * len(balance)
    trained = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert trained != (POLICY / "model.safetensors").read_bytes()
