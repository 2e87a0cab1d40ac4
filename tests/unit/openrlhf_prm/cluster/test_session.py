"""Which Ray a command starts or joins."""

import pytest

from openrlhf_prm.cluster import session
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.placement import Node


@pytest.mark.parametrize(
    ("cpu", "address", "expected"), [(True, None, "local"), (True, "x", None), (False, None, None)]
)
def test_only_a_cpu_run_outside_a_cluster_gets_a_ray_of_its_own(monkeypatch, cpu, address, expected):
    addresses: list = []
    monkeypatch.setattr(session, "on_cpu", lambda: cpu)
    monkeypatch.setattr(session.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(session.ray, "init", lambda address, **options: addresses.append(address))
    monkeypatch.setattr(session, "of_ray", lambda memory: [Node("a", 8, 8.0)])
    monkeypatch.setattr(session, "require_seen_by_nodes", lambda paths: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    session.start_ray({"vllm": EngineOptions("policy", num_engines=8)})
    assert addresses == [expected]
