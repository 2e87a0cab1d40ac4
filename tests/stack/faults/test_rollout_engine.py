"""PPO of whose two rollout engines one is killed: it ends as it would have, with every question once in the ledger."""

import contextlib
import os

import psutil
import pytest
from ppo_runs import POLICY, data, host_flags, logged_steps, prm, train  # noqa: F401 (fixtures)
from step_reward_server import until

from openrlhf_prm.data.ledger import balances

pytestmark = pytest.mark.stack


def cores_of(folder) -> list[psutil.Process]:
    """Engines' cores that were started for the run in this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "EngineCore" in " ".join(process.cmdline()) and process.environ().get("DEADLY_FOLDER") == str(folder):
                found.append(process)
    return found


def test_an_engine_that_dies_comes_back_with_the_weights_of_today(data, prm, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("DEADLY_FOLDER", str(tmp_path))
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")  # a core of its own, as on GPUs
    done = train(
        *host_flags(data),
        *("--reward.remote_url", os.path.join(os.path.dirname(__file__), "deadly_reward.py")),
        *("--prm.model_name_or_path", prm, "--algo.advantage.estimator", "step_group"),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt", "--data.max_samples", 16),
        *("--vllm.num_engines", 2),
    )
    output = done.stdout + done.stderr
    assert until(lambda: not cores_of(tmp_path)), "a core outlived its actor"
    assert done.returncode == 0, output[-5000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "core", "out"]
    assert output.count("questions of this rollout are asked again") == 1
    steps = logged_steps(output)
    assert len(steps) == 2
    for status in steps:  # what wrote the responses is what was trained: 0.02 would be the weights of the start
        assert abs(status["vllm_kl"]) < 0.005
    assert [(each.unit, each.came, each.faults) for each in balances(tmp_path / "ckpt")][:2] == [
        ("prompts", 16, []),
        ("responses", 64, []),
    ]
