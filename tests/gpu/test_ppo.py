"""PRM-guided PPO on GPUs: Ray, vLLM rollouts, a vLLM PRM worker, DeepSpeed in bfloat16, weights back to vLLM."""

import json
import os
import subprocess
import sys

import pytest
import torch
from commands import ROOT
from ppo_runs import POLICY, data, host_flags, logged_steps, prm  # noqa: F401 (fixtures)

pytestmark = pytest.mark.gpu

ROLES = 3  # actor, rollout engine, PRM worker


def shared_gpu() -> dict[str, str]:
    """Environment in which every role gets the one GPU of a machine with fewer than `ROLES`.

    Ray takes each entry of CUDA_VISIBLE_DEVICES for a GPU of its own, and shows a role the one that it was given.
    """
    resources = {"CPU": 16, "GPU": ROLES, "object_store_memory": 1_000_000_000}
    return {"CUDA_VISIBLE_DEVICES": ",".join("0" * ROLES), "RAY_OVERRIDE_RESOURCES": json.dumps(resources)}


def test_step_rewards_train_a_policy_and_its_weights_reach_vllm(data, prm, tmp_path):  # noqa: F811
    shared = torch.cuda.device_count() < ROLES
    flags = [
        *("--prm.gpu_memory_utilization", 0.2, "--vllm.gpu_memory_utilization", 0.2),
        *("--vllm.sync_backend", "gloo" if shared else "nccl"),
    ]
    steps = updates(data, prm, tmp_path, flags, shared_gpu() if shared else {})
    assert len(steps) == 3


def test_all_roles_sleep_in_turns_on_one_gpu(data, prm, tmp_path):  # noqa: F811
    flags = [
        *("--train.colocate_all", "--vllm.enable_sleep", "--ds.enable_sleep", "--vllm.sync_backend", "nccl"),
        *("--vllm.gpu_memory_utilization", 0.4, "--prm.colocate", "--prm.gpus_per_engine", 0.3),
        *("--train.num_episodes", 4),
    ]
    assert len(updates(data, prm, tmp_path, flags, {})) == 12


def updates(questions, model, folder, flags, environment) -> list[dict]:
    """What each update of a run logged, in which the policy learned and vLLM has its weights."""
    flags = [
        *(*host_flags(questions), *flags, "--prm.model_name_or_path", model),
        *("--process_reward.shaping", "min_form", "--algo.advantage.estimator", "step_group"),
        *("--ds.attn_implementation", "sdpa"),
        *("--ckpt.output_dir", folder / "out", "--ckpt.path", folder / "ckpt"),
    ]
    # Not captured: where it hangs, what it said is in the file.
    log = folder / "log.txt"
    with log.open("w") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "openrlhf_prm.cli.train_ppo_ray", *map(str, flags)],
            env={**os.environ, "DS_ACCELERATOR": "cuda", "HF_HUB_OFFLINE": "1", **environment},
            stdout=sink,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    assert done.returncode == 0, log.read_text()[-6000:]
    steps = logged_steps(log.read_text())
    print(steps)
    for status in steps:
        # bfloat16 rounds differently in both; weights that did not reach vLLM would show, the learning rate is high.
        assert abs(status["vllm_kl"]) < 0.05
        assert 0 <= status["process/step_score"] <= 1
        assert status["process/steps"] >= 2
    assert (folder / "out" / "model.safetensors").read_bytes() != (POLICY / "model.safetensors").read_bytes()
    return steps
