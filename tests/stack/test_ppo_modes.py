"""The host's modes: asynchronous with partial rollouts, packing and dynamic batches, together with branches and a
length multiplier that the plugin keeps between rollouts; all models on one device, with a critic.
"""

import pytest
from commands import ROOT
from ppo_runs import data, host_flags, lagrangian_flags, logged_steps, multiplier_after, prm, train  # noqa: F401 (fixtures)

pytestmark = pytest.mark.stack


def async_flags(questions, model, folder) -> list:
    return [
        *host_flags(questions),
        *(
            "--train.async_enable",
            "--train.partial_rollout_enable",
            "--train.dynamic_batch_enable",
            "--ds.packing_samples",
        ),
        *("--rollout.max_tokens_per_gpu", 2048, "--train.max_tokens_per_gpu", 2048),
        *("--prm.model_name_or_path", model, "--data.max_samples", 16),
        # Branches also where all outcomes agree: this test is not about how good the policy is.
        *("--algo.advantage.estimator", "vine", "--vine.k", 2),
        *("--vine.control_variate", "--vine.probes", 2, "--vine.probe_tokens", 16),
        *lagrangian_flags(),
        *("--ckpt.output_dir", folder / "out", "--ckpt.path", folder / "ckpt"),
    ]


def test_branches_in_async_mode_with_partial_rollouts_and_dynamic_batches(data, prm, tmp_path):  # noqa: F811
    done = train(*async_flags(data, prm, tmp_path))
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


def test_steps_and_turns_with_a_critic_where_all_models_share_a_device(data, prm, tmp_path):  # noqa: F811
    done = train(
        *host_flags(data),
        *("--train.agent_func_path", ROOT / "tests/stack/two_turn_agent.py", "--credit.turn_rewards"),
        *("--train.colocate_all", "--data.max_samples", 8, "--prm.model_name_or_path", prm),
        *("--process_reward.shaping", "potential", "--algo.advantage.estimator", "gae"),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (status,) = logged_steps(done.stdout + done.stderr)
    assert status["process/turns"] == 2 and 0.25 <= status["process/turn_reward"] <= 1.75
    assert status["critic_loss"] > 0 and status["process/reward"] != 0 and 0 <= status["process/step_score"] <= 1
