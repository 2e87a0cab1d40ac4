"""Ray places, or does not place, what the dry run says, over the grid of a run's shapes."""

import itertools
from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster
from ray_placements import is_placed
from real_ppo_flags import ppo_args
from step_reward_server import LIMIT_S, until

from openrlhf_prm.cluster.nodes import of_ray
from openrlhf_prm.cluster.placement import DoesNotFit, place
from openrlhf_prm.ppo.demands import demands_of
from openrlhf_prm.ppo.plugin_options import read_options

pytestmark = pytest.mark.stack

GPUS = (4, 4, 2, 2)
"""Of the nodes; the first 1, 2, 3 and 4 of them are the clusters that are tried."""
CPUS = (12, 12, 2, 4)
"""The third node has fewer CPUs than its GPUs and one more process need."""
NO_CRITIC = ("--algo.advantage.estimator", "rloo", "--rollout.n_samples_per_prompt", 8)
LAYOUTS = {
    "separate": NO_CRITIC,
    "no KL": (*NO_CRITIC, "--algo.kl.init_coef", 0),
    "critic": (),
    "actor and reference": (*NO_CRITIC, "--train.colocate_actor_ref"),
    "in pairs": ("--train.colocate_actor_ref", "--train.colocate_critic_reward"),
    "async": (*NO_CRITIC, "--train.async_enable", "--train.colocate_all"),
}
HYBRID = {
    "hybrid": (*NO_CRITIC, "--train.colocate_all"),
    "hybrid with critic": ("--train.colocate_all",),
    "hybrid, critic apart": ("--train.colocate_all", "--train.colocate_critic_reward"),
}
PRM = ("--prm.model_name_or_path", "owner/prm")
PRMS = {
    "none": (),
    "server": ("--prm.url", "http://x"),
    "one": PRM,
    "two halves": (*PRM, "--prm.num_engines", 2, "--prm.gpus_per_engine", 0.5),
    "three of 0.6": (*PRM, "--prm.num_engines", 3, "--prm.gpus_per_engine", 0.6),
    "TP 2": (*PRM, "--prm.tensor_parallel_size", 2),
}
INSIDE = {
    "inside": (*PRM, "--prm.colocate"),
    "inside, TP 2": (*PRM, "--prm.colocate", "--prm.tensor_parallel_size", 2),
}
ONLINE = (
    *("--process_reward.shaping", "implicit", "--algo.advantage.estimator", "prime"),
    *("--rollout.n_samples_per_prompt", 8),
)


def models(nodes: int, gpus: int) -> list[object]:
    flags: list[object] = []
    for name in ("actor", "ref", "critic", "reward"):
        flags += [f"--{name}.num_nodes", nodes, f"--{name}.num_gpus_per_node", gpus]
    return flags


def grid() -> Iterator[tuple[object, ...]]:
    """Flags of runs, from those that fit one small node to those that fit nowhere."""
    for layout, prm, size, split in itertools.product(LAYOUTS, PRMS, ((1, 1), (1, 2), (2, 1), (2, 2)), (1, 2)):
        engines = ("--vllm.num_engines", 1 if split == 2 else 2, "--vllm.tensor_parallel_size", split)
        if (size, split) in (((1, 2), 2), ((2, 1), 1)) and prm not in ("none", "TP 2"):
            continue
        yield (*LAYOUTS[layout], *PRMS[prm], *models(*size), *engines)
    for layout, prm, size, split in itertools.product(HYBRID, {**PRMS, **INSIDE}, ((1, 2), (2, 2)), (1, 2)):
        engines = size[0] * size[1] // split
        engines = ("--vllm.num_engines", engines, "--vllm.tensor_parallel_size", split)
        yield (*HYBRID[layout], *{**PRMS, **INSIDE}[prm], *models(*size), *engines)
    for layout, gpus, share in itertools.product(("separate", "hybrid"), (1, 2), (0.5, 1)):
        online = (*ONLINE, "--online_prm.num_gpus_per_node", gpus, "--online_prm.gpus_per_actor", share)
        yield (*{**LAYOUTS, **HYBRID}[layout], *online, *models(1, 2), "--vllm.num_engines", 2)
    yield (*HYBRID["hybrid"], *ONLINE, "--online_prm.colocate", *models(1, 2), "--vllm.num_engines", 2)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of one node, to which the tests add theirs."""
    head = {"num_gpus": GPUS[0], "num_cpus": CPUS[0], "include_dashboard": False, "object_store_memory": 80_000_000}
    started = Cluster(initialize_head=True, connect=True, head_node_args=head)
    yield started
    ray.shutdown()
    started.shutdown()


def test_ray_places_what_the_dry_run_says(cluster, monkeypatch):
    runs = [(flags, ppo_args(*flags)) for flags in grid()]
    monkeypatch.delenv("RAY_OVERRIDE_RESOURCES", raising=False)  # the command has set it, for its own Ray
    wrong, fitted, tried = [], 0, 0
    for nodes in range(1, len(GPUS) + 1):
        if nodes > 1:
            resources = {"num_gpus": GPUS[nodes - 1], "num_cpus": CPUS[nodes - 1]}
            cluster.add_node(**resources, object_store_memory=80_000_000)
        there = of_ray(memory=False)
        assert sorted(node.gpus for node in there) == sorted(GPUS[:nodes])
        for flags, args in runs[nodes - 1 :: 3]:  # of the first three clusters each has a third
            try:
                expected = bool(place(demands_of(args, read_options(args)), there))
            except DoesNotFit as error:
                if not error.always:
                    continue  # up to Ray
                expected = False
            tried, fitted = tried + 1, fitted + expected
            # Ray's counts lag behind what it got back, so it may say no too early; where there is no room it never
            # says yes.
            limit_s = LIMIT_S if expected and not wrong else 0
            if until(lambda args=args: is_placed(args, monkeypatch), limit_s) is not expected:
                wrong.append((nodes, expected, flags))
    assert wrong == []
    assert len(runs) > 300 and tried > 400 and 50 < fitted < tried - 50
