"""Which Ray a command starts or joins."""

import json

import pytest

from openrlhf_prm.cluster import session
from openrlhf_prm.cluster.checks import TooFewGPUs
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.placement import Node


@pytest.mark.parametrize(("cpu", "address", "expected"), [(True, None, True), (True, "x", False), (False, None, False)])
def test_only_a_cpu_run_outside_a_cluster_gets_a_ray_of_its_own(monkeypatch, cpu, address, expected):
    alone: list = []
    monkeypatch.setattr(session, "on_cpu", lambda: cpu)
    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(session, "join", lambda **options: alone.append(options["alone"]))
    monkeypatch.setattr(session, "of_ray", lambda memory: [Node("a", 8, 8.0)])
    monkeypatch.setattr(session, "require_seen_by_nodes", lambda paths: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    session.start_ray({"vllm": EngineOptions("policy", num_engines=8)})
    assert alone == [expected]


def test_a_model_that_its_share_cannot_hold_is_refused(monkeypatch, tmp_path):
    """Where GPUs are, their memory is asked for; on a CPU it is not."""
    config = {"model_type": "qwen2", "hidden_size": 4096, "num_hidden_layers": 32, "num_key_value_heads": 32}
    (tmp_path / "config.json").write_text(json.dumps(config))
    asked: list[bool] = []
    monkeypatch.setattr(session.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(session, "require_seen_by_nodes", lambda paths: None)
    monkeypatch.setattr(
        session, "of_ray", lambda memory: asked.append(memory) or [Node("a", 8, 8.0, 8.0 if memory else None)]
    )
    engines = {"vllm": EngineOptions(str(tmp_path))}
    monkeypatch.setattr(session, "on_cpu", lambda: False)
    with pytest.raises(TooFewGPUs, match="--vllm.gpus_per_engine: an engine may take 7.2 GiB"):
        session.start_ray(engines)
    monkeypatch.setattr(session, "on_cpu", lambda: True)
    session.start_ray(engines)
    assert asked == [True, False]
