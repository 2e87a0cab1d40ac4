"""Which Ray a PPO run is part of."""

import pytest

from openrlhf_prm import plugin
from openrlhf_prm.cluster import accelerator, ray_start


@pytest.mark.parametrize(
    ("cpu", "address", "joined"),
    [(True, None, "local"), (True, "10.0.0.1:6379", None), (False, None, None), (False, "10.0.0.1:6379", None)],
)
def test_on_a_cpu_outside_a_cluster_it_is_a_ray_of_our_own(monkeypatch, cpu, address, joined):
    """None: Ray looks for RAY_ADDRESS, then for a Ray that runs on the machine."""
    started = []
    monkeypatch.setattr(accelerator, "on_cpu", lambda: cpu)
    monkeypatch.setattr(ray_start, "init_ray", lambda address=None, **options: started.append(address))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    plugin.join_ray()
    assert started == [joined]
