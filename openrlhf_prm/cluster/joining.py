"""The Ray that a command runs on: the cluster that this machine belongs to, or one of its own.

Ray asks nobody for a key, and whoever reaches its ports may run code. One that a command starts is for this machine
alone, so it listens on the loopback interface.
"""

import os

from ray._private import ray_constants, services

from openrlhf_prm.cluster.ray_start import init_ray

LOOPBACK = "127.0.0.1"
OF_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable that Ray reads when it is imported: with 0 a node's address is the loopback one, as Ray has it
by default on Windows and macOS.
"""


def join(*, alone: bool = False, **options) -> None:
    """Joins the cluster of `RAY_ADDRESS`, or of `ray start` on this machine; starts a Ray of our own where there is
    none, or `alone` asks for it. `options`: those of `ray.init`.
    """
    # Of what else runs here nothing is joined: "auto" would take the private Ray of somebody's other command.
    if not alone and ("RAY_ADDRESS" in os.environ or services.find_bootstrap_address(None) is not None):
        init_ray(**options)
        return
    # vLLM tells the nodes of a Ray by their addresses, and would look for this one at another.
    os.environ.setdefault("VLLM_HOST_IP", LOOPBACK)
    os.environ.setdefault(OF_CLUSTERS, "0")  # for the processes that Ray starts
    ray_constants.ENABLE_RAY_CLUSTER = os.environ[OF_CLUSTERS] != "0"  # for this one
    init_ray("local", **options)
