"""Which Ray a PPO run is part of."""

import pytest

from openrlhf_prm import plugin
from openrlhf_prm.cluster import accelerator, joining


@pytest.mark.parametrize(
    ("cpu", "address", "alone"),
    [(True, None, True), (True, "10.0.0.1:6379", False), (False, None, False), (False, "10.0.0.1:6379", False)],
)
def test_on_a_cpu_outside_a_cluster_it_is_a_ray_of_our_own(monkeypatch, cpu, address, alone):
    started = []
    monkeypatch.setattr(accelerator, "on_cpu", lambda: cpu)
    monkeypatch.setattr(joining, "join", lambda alone=False, **options: started.append(alone))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    plugin.join_ray()
    assert started == [alone]
