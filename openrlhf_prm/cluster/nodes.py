"""The machines that a run may use: those of Ray's cluster, or those that `--dry_run.gpus` describes."""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Sequence

from openrlhf_prm.cluster.accelerator import cpu_environment, on_cpu
from openrlhf_prm.cluster.placement import Node

_SPEC = re.compile(r"(?:(\d+)x)?(\d+)x(\d+(?:\.\d+)?)")


def described(spec: str) -> list[Node]:
    """`8x80`: one node with 8 GPUs of 80 GiB each; `4x8x80`: four of them; `2x8x80,1x4x24`: nodes of several kinds.

    Raises ValueError for anything else. CPUs are taken to be enough.
    """
    nodes: list[Node] = []
    for part in spec.split(","):
        found = _SPEC.fullmatch(part.strip())
        if found is None or int(found[2]) < 1 or float(found[3]) <= 0 or int(found[1] or 1) < 1:
            raise ValueError(
                f"must be GPUSxGIB as in 8x80, or NODESxGPUSxGIB as in 4x8x80, with commas between kinds, got {spec!r}"
            )
        for _ in range(int(found[1] or 1)):
            nodes.append(Node(name=f"node {len(nodes)}", gpus=int(found[2]), gib=float(found[3])))
    return nodes


def of_ray(*, memory: bool, patience_s: float = 60.0) -> list[Node]:
    """The living nodes of the Ray that this process is connected to. memory: asks every node for that of its GPUs."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    sizes = _memory_by_node([node["NodeID"] for node in nodes if _gpus(node)], patience_s) if memory else {}
    return [
        Node(node["NodeManagerAddress"], _gpus(node), node["Resources"].get("CPU", 0.0), sizes.get(node["NodeID"]))
        for node in nodes
    ]


def _gpus(node: dict) -> int:
    return int(node["Resources"].get("GPU", 0))


def _memory_by_node(ids: list[str], patience_s: float) -> dict[str, float]:
    """NodeID -> GiB of the smallest GPU. A node that cannot say so in time is left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = ray.remote(num_cpus=0)(local_gpu_gib)
    answers = {
        asked.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)).remote(): node
        for node in ids
    }
    ready = ray.wait(list(answers), num_returns=len(answers), timeout=patience_s)[0] if answers else []
    sizes = {}
    for answer in ready:
        with contextlib.suppress(ray.exceptions.RayError):  # what is wrong there is said by those who need the node
            sizes[answers[answer]] = ray.get(answer)
    return {node: size for node, size in sizes.items() if size is not None}


def local_gpu_gib() -> float | None:
    """Memory of this machine's smallest GPU in GiB; None without one."""
    return min(_local_gpus(), default=None)


def _local_gpus() -> list[float]:
    """Memory of each of this machine's GPUs in GiB, as their driver says. CUDA is left alone."""
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [int(line) / 1024 for line in said.splitlines() if line.strip().isdigit()]


def smallest_gpu(nodes: Sequence[Node]) -> float | None:
    """GiB of the smallest GPU of those whose memory is known; None where none is."""
    return min((node.gib for node in nodes if node.gpus and node.gib is not None), default=None)


def this_machine() -> Node:
    """What a run without Ray, or with a Ray of its own, would find; on a CPU the slots of `cpu_environment`."""
    if on_cpu():
        resources = json.loads({**cpu_environment(), **os.environ}["RAY_OVERRIDE_RESOURCES"])
        return Node("this machine", int(resources.get("GPU", 0)), resources.get("CPU"))
    sizes = _local_gpus()
    return Node("this machine", len(sizes), os.cpu_count(), min(sizes, default=None))


def at_hand() -> list[Node]:
    """What a run that is started here would find: the nodes of the cluster that it would join, else this machine."""
    if on_cpu() and "RAY_ADDRESS" not in os.environ:
        return [this_machine()]
    import ray

    try:
        ray.init("auto", log_to_driver=False, logging_level="error")
    except ConnectionError:
        return [this_machine()]
    try:
        return of_ray(memory=True)
    finally:
        ray.shutdown()
