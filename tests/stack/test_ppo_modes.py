"""The host's asynchronous mode, packing, dynamic batches and resuming, together with branches and what the plugin keeps
between rollouts.
"""

import pytest
from ppo_runs import data, host_flags, logged_steps, prm, train  # noqa: F401 (fixtures)

pytestmark = pytest.mark.stack

TARGET = 40


def flags(questions, model, folder) -> list:
    return [
        *host_flags(questions),
        *("--train.async_enable", "--train.dynamic_batch_enable", "--ds.packing_samples"),
        *("--rollout.max_tokens_per_gpu", 2048, "--train.max_tokens_per_gpu", 2048),
        *("--prm.model_name_or_path", model, "--data.max_samples", 16),
        # Branches also where all outcomes agree: this test is not about how good the policy is.
        *("--algo.advantage.estimator", "vine", "--vine.k", 2, "--vine.skip_uniform", 0),
        *("--vine.control_variate", "--vine.probes", 2, "--vine.probe_tokens", 16),
        *("--length_penalty.kind", "lagrangian", "--length_penalty.target", TARGET, "--length_penalty.rate", 0.01),
        *("--ckpt.output_dir", folder / "out", "--ckpt.path", folder / "ckpt", "--ckpt.save_steps", 1),
    ]


def multiplier_after(multiplier: float, status: dict) -> float:
    return multiplier + 0.01 * (status["response_length"] / TARGET - 1)


def test_branches_in_async_mode_with_dynamic_batches_and_a_resumed_run_goes_on(data, prm, tmp_path):  # noqa: F811
    done = train(*flags(data, prm, tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    first = logged_steps(done.stdout + done.stderr)
    assert len(first) == 2
    # Packed log-probs agree with vLLM's; later rollouts of async training come from older weights than the update's.
    assert abs(first[0]["vllm_kl"]) < 0.005
    multiplier = 0.0
    for status in first:
        assert 1 <= status["vine/k"] <= 2 and status["vine/branch_tokens"] > 0
        assert 0 <= status["process/step_score"] <= 1 and status["process/steps"] >= 2
        multiplier = multiplier_after(multiplier, status)
        assert status["length_multiplier"] == pytest.approx(multiplier, abs=1e-3) and multiplier > 0

    resumed = train(*flags(data, prm, tmp_path), "--ckpt.load_enable", "--train.num_episodes", 2)
    assert resumed.returncode == 0, resumed.stdout[-3000:] + resumed.stderr[-3000:]
    second = logged_steps(resumed.stdout + resumed.stderr)
    assert "Global step 3" in resumed.stdout + resumed.stderr
    expected = multiplier_after(multiplier, second[0])
    assert second[0]["length_multiplier"] == pytest.approx(expected, abs=1e-3)
