"""Whether every node of a Ray cluster sees what this machine sees: paths, and environment variables."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from openrlhf_prm.cluster.checks import NotSeen
from vllm_prm.api_keys import key_is_set


def require_seen_by_nodes(
    paths: Sequence[tuple[str, str]],
    *,
    folders: Sequence[str] = (),
    variables: Mapping[str, str | None] | None = None,
) -> None:
    """Raises NotSeen for the first of `paths`, flags with what they name, that another node does not have, and of
    `variables`, flags with the names of environment variables for keys, that is not set there.

    `folders`: those of the paths that are written to; they are made here first. A node is asked in a process of Ray's,
    as engines run in.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    wanted = {flag: name for flag, name in (variables or {}).items() if name is not None}
    if not nodes or not (paths or wanted):
        return
    for folder in folders:
        os.makedirs(folder, exist_ok=True)
    asked = ray.remote(num_cpus=0)(_faults)
    answers = []
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
        answers.append(asked.options(scheduling_strategy=there).remote(paths, wanted))
    for node, faults in zip(nodes, ray.get(answers), strict=True):
        if faults:
            raise NotSeen(f"{faults[0]} on the node {node['NodeManagerAddress']}")


def _faults(paths: Sequence[tuple[str, str]], variables: Mapping[str, str]) -> list[str]:
    unseen = [f"{flag}: there is no {path}" for flag, path in paths if not Path(path).exists()]
    return unseen + [f"{flag}: {name} is not set" for flag, name in variables.items() if not key_is_set(name)]
