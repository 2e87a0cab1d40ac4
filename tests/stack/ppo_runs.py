"""Small PPO runs as tests start them: the command line, its data, a PRM, and what it logged."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from commands import ROOT, run

from benchmarks.overhead import as_prm
from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_host_flags
from openrlhf_prm.tasks.arithmetic import questions

POLICY = ROOT / "benchmarks" / "policies" / "short"


def train(*flags: object, module: str = "openrlhf_prm.cli.train_ppo_ray") -> subprocess.CompletedProcess:
    """The finished command; where the host lost the port that it had picked, long before it bound it, once more."""
    while True:
        done = run(module, *flags, *cpu_host_flags(), environment=cpu_environment() | os.environ)
        if done.returncode == 0 or "EADDRINUSE" not in done.stderr:
            return done


def one_gpu() -> str:
    """Ray's resources, as its environment variable has them, on a machine with a single GPU."""
    return json.dumps({**json.loads(cpu_environment()["RAY_OVERRIDE_RESOURCES"]), "GPU": 1})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ppo")
    rows = (json.dumps({"question": question, "label": label}) for question, label in questions("train", 24, seed=0))
    (folder / "questions.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def prm(data) -> Path:
    """A PRM checkpoint as `train_prm` writes it: here the untrained policy with the family declared."""
    return as_prm(POLICY, data / "prm")


def host_flags(data: Path) -> list[object]:
    return [
        *("--actor.model_name_or_path", POLICY, "--reward.remote_url", ROOT / "openrlhf_prm/answers/outcome.py"),
        *("--data.prompt_dataset", data / "questions.jsonl", "--data.input_key", "question"),
        *("--data.label_key", "label", "--data.max_len", 256, "--rollout.max_new_tokens", 200),
        *("--rollout.batch_size", 8, "--rollout.n_samples_per_prompt", 4, "--rollout.micro_batch_size", 16),
        # A high learning rate: weights that did not reach vLLM would show in vllm_kl.
        *("--train.batch_size", 16, "--train.micro_batch_size", 16, "--actor.adam.lr", 2e-3),
        *("--algo.kl.init_coef", 0, "--algo.advantage.is_correction_level", "token"),
        *("--ref.num_gpus_per_node", 1, "--reward.num_gpus_per_node", 1, "--critic.num_gpus_per_node", 1),
        *("--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--vllm.enable_prefix_caching"),
    ]


def logged_steps(output: str) -> list[dict]:
    """The host's one-line status of each global step."""
    return [
        {key: float(value) for key, value in re.findall(r"'([\w/]+)': (-?[\d.]+(?:e-?\d+)?)", line)}
        for line in output.splitlines()
        if "Global step" in line
    ]


TARGET_TOKENS, RATE = 40, 0.01


def lagrangian_flags() -> list[object]:
    """A target below the policy's length, so that the multiplier rises."""
    return [
        *("--length_penalty.kind", "lagrangian"),
        *("--length_penalty.target", TARGET_TOKENS, "--length_penalty.rate", RATE),
    ]


def multiplier_after(multiplier: float, status: dict) -> float:
    """The multiplier after the global step that logged `status`."""
    return multiplier + RATE * (status["response_length"] / TARGET_TOKENS - 1)
