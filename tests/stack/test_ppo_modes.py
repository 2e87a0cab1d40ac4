"""The host's modes: asynchronous with partial rollouts, packing and dynamic batches, together with branches and a
length multiplier that the plugin keeps between rollouts; all models on one device, with a critic.
"""

import pytest
from ppo_runs import data, host_flags, lagrangian_flags, logged_steps, multiplier_after, one_gpu, prm, train  # noqa: F401 (fixtures)

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
        *("--prm.model_name_or_path", model, "--data.max_samples", 16, "--reward.remote_url", "math"),
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


WATCHING = """
from dataclasses import dataclass

import ray

from openrlhf_prm.answers.outcome import reward_func as judged
from openrlhf_prm.rewards import REWARD_SHAPINGS


def note(phase):
    worker = ray.get_actor("openrlhf_prm_prm_0")
    asleep = ray.get(worker.__ray_call__.remote(lambda worker: worker.asleep))
    with open("{log}", "a") as log:
        log.write(f"{{phase}}: {{'asleep' if asleep else 'awake'}}\\n")


def reward_func(queries, prompts, labels):
    note("the policy writes")
    return judged(queries, prompts, labels)


@dataclass(frozen=True, kw_only=True)
class Watched(REWARD_SHAPINGS["potential"]):
    def __call__(self, scores):
        note("it learns")
        return super().__call__(scores)
"""
"""An outcome reward, which the rollout actor calls, and a shaping, which the trainer calls before it trains."""


def test_a_critic_and_a_sleeping_prm_where_all_models_share_one_gpu(data, prm, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", one_gpu())
    watching = tmp_path / "watching.py"
    watching.write_text(WATCHING.format(log=tmp_path / "states"))
    done = train(
        *host_flags(data),
        *("--train.colocate_all", "--vllm.enable_sleep", "--vllm.gpu_memory_utilization", 0.5),
        *("--prm.colocate", "--prm.gpus_per_engine", 0.4, "--prm.model_name_or_path", prm, "--data.max_samples", 16),
        *("--process_reward.shaping", f"{watching}:Watched", "--reward.remote_url", watching),
        *("--algo.advantage.estimator", "gae", "--algo.advantage.length_alpha", 0.05, "--critic.freezing_steps", 0),
        *("--length_penalty.kind", "truncation_difficulty", "--length_penalty.easy_max_tokens", 1),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    states = (tmp_path / "states").read_text().splitlines()
    rollout = [*["the policy writes: awake"] * 32, *["it learns: asleep"] * 32]
    assert states == rollout * 2
    first, second = logged_steps(done.stdout + done.stderr)
    assert "policy_loss" in second and "policy_loss" not in first, "the host freezes one update more than it is told"
    for status in (first, second):
        assert status["critic_loss"] > 0 and status["process/reward"] != 0 and 0 <= status["process/step_score"] <= 1
        # Right answers to easy questions are too long with more than one token.
        assert -1 <= status["length_penalty"] < 0
    assert abs(second["vllm_kl"]) < 0.005
