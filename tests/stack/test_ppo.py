"""PRM-guided PPO for real: Ray, vLLM rollouts, a vLLM PRM worker, DeepSpeed, weights back to vLLM."""

import re

import pytest
from ppo_runs import POLICY, data, host_flags, logged_steps, prm, train  # noqa: F401 (fixtures)

from openrlhf_prm.report.run_folder import read_run

pytestmark = pytest.mark.stack


def test_step_rewards_train_a_policy_and_its_weights_reach_vllm(data, prm, tmp_path):  # noqa: F811
    done = train(
        *host_flags(data),
        *("--prm.model_name_or_path", prm, "--process_reward.shaping", "min_form"),
        *("--algo.advantage.estimator", "step_group", "--algo.advantage.no_std_norm"),
        *("--length_penalty.kind", "kimi", "--length_penalty.coef", 0.1),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt"),
        *("--logger.tensorboard_dir", tmp_path / "tensorboard"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    steps = logged_steps(done.stdout + done.stderr)
    assert len(steps) == 3
    for status in steps:
        assert abs(status["vllm_kl"]) < 0.005
        assert 0 <= status["process/step_score"] <= 1
        assert status["process/steps"] >= 2
        assert 0 <= status["accuracy"] <= 1
        assert "length_penalty" in status and "process/reward" in status
    assert steps[0]["process/reward"] != 0
    trained = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert trained != (POLICY / "model.safetensors").read_bytes()
    lines = re.findall(r"openrlhf_prm: update (\d)/3 · accuracy .* · step score .* s \(rollout .*\)", done.stdout)
    assert lines == ["1", "2", "3"] and "· 0:00:00 left" in done.stdout
    live = read_run(tmp_path / "tensorboard").scalars["after"]
    assert [update for update, _ in live["train/process/step_score"]] == [1, 2, 3]
    assert live["train/progress/share"][-1] == (3, 1.0)


@pytest.mark.parametrize(
    "module, first, program",
    [
        ("openrlhf_prm.cli.train_ppo_ray", (), "python -m openrlhf_prm.cli.train_ppo_ray: "),
        ("openrlhf_prm.cli.main", ("train-ppo",), "openrlhf-prm train-ppo: "),
        ("openrlhf.cli.train_ppo_ray", ("--train.plugin", "openrlhf_prm.plugin"), ""),
    ],
)
def test_a_wrong_flag_is_one_line_before_anything_starts(data, module, first, program):  # noqa: F811
    done = train(*first, *host_flags(data), "--prm.model_name_or_path", "/no/such/prm", module=module)
    assert done.returncode == 2
    error = f"{program}error: --prm.model_name_or_path: there is no folder /no/such/prm"
    assert done.stderr.splitlines()[-1].endswith(error)
    assert "Started a local Ray instance" not in done.stderr


def test_the_patched_host_takes_outcome_rewards_by_name_and_says_which_there_are(data):  # noqa: F811
    seam = ("--train.plugin", "openrlhf_prm.plugin")
    done = train(*seam, *host_flags(data), "--reward.remote_url", "maths", module="openrlhf.cli.train_ppo_ray")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "argument --reward.remote_url: 'maths' must be one of math, exact, reasoning_gym, one FILE.py" in last
