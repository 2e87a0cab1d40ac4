"""Whether a run is one on CPU."""

from types import SimpleNamespace

import pytest

from openrlhf_prm.cluster import accelerator


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Makes PyTorch a build of the given kind, which nobody may import."""
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=tmp_path / name))

    def become(cuda: str | None, hip: str | None = None) -> None:
        (tmp_path / "version.py").write_text(f"cuda = {cuda!r}\nhip = {hip!r}\n")
        accelerator._cpu_build.cache_clear()

    yield become
    accelerator._cpu_build.cache_clear()


def test_the_build_decides_and_not_the_gpus_that_are_seen(build, monkeypatch):
    build(None)
    assert accelerator.on_cpu()
    build(None, hip="7.2")
    assert not accelerator.on_cpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    build("13.0")
    assert not accelerator.on_cpu()
    accelerator.prepare_environment()
    assert "HF_HUB_OFFLINE" not in accelerator.os.environ
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert accelerator.on_cpu()


def test_the_build_of_the_machine_is_what_pytorch_says(monkeypatch):
    import torch

    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    assert accelerator.on_cpu() == (torch.version.cuda is None and torch.version.hip is None)
    monkeypatch.setenv("DS_ACCELERATOR", "cuda")
    assert not accelerator.on_cpu()


def test_the_hosts_own_run_joins_no_other_commands_ray(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert accelerator.cpu_host_environment() == {"RAY_ADDRESS": "local"}
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert accelerator.cpu_host_environment() == {}, "the cluster that was asked for"
