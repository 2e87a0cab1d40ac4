"""A Ray of our own is for this machine alone; a cluster is joined as it is."""

import pytest
from ray._private import ray_constants, services

from openrlhf_prm.cluster import joining
from openrlhf_prm.cluster.joining import OF_CLUSTERS, join


@pytest.fixture
def started(monkeypatch):
    """What `ray.init` was asked for, on a machine without a cluster."""
    asked = []

    def init(address=None, **options):
        asked.append((address, ray_constants.ENABLE_RAY_CLUSTER, options))

    monkeypatch.setattr(joining, "init_ray", init)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    for name in (OF_CLUSTERS, "VLLM_HOST_IP", "RAY_ADDRESS"):
        monkeypatch.setenv(name, "x")  # so that it is taken back at the end
        monkeypatch.delenv(name)
    return asked


def test_without_a_cluster_nobody_else_reaches_it(started):
    join(include_dashboard=False)
    join(alone=True)
    assert started == [("local", False, {"include_dashboard": False}), ("local", False, {})]


def test_who_wants_it_otherwise_says_so(started, monkeypatch):
    monkeypatch.setenv(OF_CLUSTERS, "1")
    join(alone=True)
    assert started == [("local", True, {})]


def test_a_cluster_is_joined_as_it_is(started, monkeypatch):
    with monkeypatch.context() as there:
        there.setenv("RAY_ADDRESS", "head:6379")
        join()
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: "10.0.0.1:6379")
    join(include_dashboard=False)
    assert started == [(None, True, {}), (None, True, {"include_dashboard": False})]
    started.clear()
    join(alone=True)
    assert started == [("local", False, {})]
