"""PRIME for real: a PRM that learns in the PPO loop, is saved with the policy, and goes on where it was, as does the
length multiplier.

The first run is the host's own command with the host's own critic, the second ours with PRIME's estimator.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from ppo_runs import (  # noqa: F401 (fixtures)
    data,
    host_flags,
    lagrangian_flags,
    logged_steps,
    multiplier_after,
    one_gpu,
    train,
)
from safetensors.torch import load_file

from openrlhf_prm.ppo.trainers import _KeepsState

pytestmark = pytest.mark.stack


def flags(questions: Path, folder: Path) -> list:
    return [
        *host_flags(questions),
        *("--process_reward.shaping", "implicit", "--data.max_samples", 16),
        *("--online_prm.update", "after", "--online_prm.lr", 1e-3, "--online_prm.batch_size", 32),
        *("--online_prm.save", *lagrangian_flags()),
        *("--ckpt.output_dir", folder / "out", "--ckpt.path", folder / "ckpt", "--ckpt.save_steps", 1),
    ]


def run(*arguments, **options) -> list[dict]:
    done = train(*arguments, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return logged_steps(done.stdout + done.stderr)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> SimpleNamespace:  # noqa: F811
    """A run of two updates, each with its checkpoint: folder, logged."""
    folder = tmp_path_factory.mktemp("prime")
    seam = ("--train.plugin", "openrlhf_prm.plugin", "--algo.advantage.estimator", "gae")
    own = ("--online_prm.gpus_per_actor", 0.5)
    logged = run(*flags(data, folder), *own, *seam, module="openrlhf.cli.train_ppo_ray")
    return SimpleNamespace(folder=folder, logged=logged)


def test_the_prm_and_the_hosts_critic_learn_in_the_loop(trained):
    first = trained.logged
    assert all("critic_loss" in status for status in first)
    assert len(first) == 2
    # Untrained, the PRM equals its reference: no reward, a loss of log 2. Then it has learned from a rollout.
    assert first[0]["process/reward"] == 0.0 and first[0]["online_prm/loss"] == pytest.approx(0.6931, abs=1e-3)
    assert first[1]["process/reward"] != 0.0 and first[0]["online_prm/grad_norm"] > 0
    assert 0 <= first[1]["online_prm/accuracy"] <= 1 and abs(first[1]["vllm_kl"]) < 0.005
    expected = 0.0
    for status in first:
        expected = multiplier_after(expected, status)
        assert status["length_multiplier"] == pytest.approx(expected, abs=1e-3) and expected > 0
    config = json.loads((trained.folder / "out_online_prm" / "config.json").read_text())
    assert config["prm"]["family"] == "implicit"


def test_it_goes_on_after_a_resume(data, trained, tmp_path, monkeypatch):  # noqa: F811
    shutil.copytree(trained.folder / "ckpt", tmp_path / "ckpt")
    # Half the micro-batches' size: the same optimizer step in two parts.
    on = ("--algo.advantage.estimator", "prime", "--ckpt.load_enable", "--train.num_episodes", 2)
    # All on one GPU, where the states of both optimizers leave it between updates.
    shared = ("--train.colocate_all", "--online_prm.colocate", "--vllm.enable_sleep", "--ds.enable_sleep")
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", one_gpu())
    second = run(*flags(data, tmp_path), "--train.micro_batch_size", 8, *on, *shared)
    assert second[0]["process/reward"] != 0.0, "the resumed run has a fresh PRM"
    expected = multiplier_after(trained.logged[-1]["length_multiplier"], second[0])
    assert second[0]["length_multiplier"] == pytest.approx(expected, abs=1e-3)
    before, after = (
        load_file(folder / "out_online_prm" / "model.safetensors") for folder in (trained.folder, tmp_path)
    )
    assert any(not after[name].equal(before[name]) for name in before)


def test_a_checkpoint_without_its_prm_is_refused():
    class Host:
        args = SimpleNamespace(ckpt=SimpleNamespace(path="ckpt"))
        experience_maker = SimpleNamespace(online_prm=object())

        def init_checkpoint_states(self):
            return {"global_step": 2}

    class Trainer(_KeepsState, Host):
        pass

    with pytest.raises(ValueError, match="--ckpt.load_enable: the checkpoint in ckpt has no online PRM"):
        Trainer().init_checkpoint_states()
