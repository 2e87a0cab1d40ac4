"""What the nodes of the Ray cluster mean: does a worker on each see what this machine sees?"""

from openrlhf_prm.diagnosis.finding import Finding
from openrlhf_prm.diagnosis.machine import of_folders
from openrlhf_prm.diagnosis.packages import of_plugins

PPO = ("train-ppo",)


def of_nodes(nodes: list[dict] | None, fault: str, here: dict, cpu: bool) -> list[Finding]:
    """`nodes` as `node_facts.collect` gives them, or None and why there are none; `here`: the facts of this machine."""
    if nodes is None:
        return [Finding("Ray", fault, PPO, "RAY_ADDRESS names a cluster; without it one is started here")]
    gpus = sum(node["gpus"] for node in nodes)
    found = f"{len(nodes)} node{'s' if len(nodes) > 1 else ''}, {gpus:g} GPUs{' (slots of a CPU run)' if cpu else ''}"
    head = (
        Finding("Ray", found) if gpus else Finding("Ray", found, PPO, "PPO needs GPUs: ray start on a node with some")
    )
    return [head, *(finding for node in nodes for finding in of_node(node, here))]


def of_node(node: dict, here: dict) -> list[Finding]:
    """A node's plugin, versions and paths; its disks too, where it is another machine."""
    name = f"node {node['address']}"
    if node["fault"]:
        remedy = "is this project installed there, and the same Python?"
        return [Finding(name, node["fault"], PPO, remedy)]
    facts = node["facts"]
    remedy = "a shared folder, or a copy at the same path"
    findings = [Finding(name, f"{facts['host']} has no {path}", PPO, remedy) for path in facts["missing"]]
    for package in {**here["versions"], **facts["versions"]}:
        there, ours = facts["versions"].get(package), here["versions"].get(package)
        if there != ours:
            found = f"{package} {there or 'is not installed'}, here {ours or 'it is not'}"
            findings.append(Finding(name, found, PPO, "the same environment on every node"))
    plugin = of_plugins(facts["plugins"], name)
    if plugin.blocks:
        findings.append(Finding(name, plugin.found, PPO, plugin.remedy))
    if not findings:
        findings.append(
            Finding(name, f"{facts['host']}, {node['gpus']:g} GPUs: the same versions, the plugin, every path")
        )
    return findings + (of_folders(facts["folders"], f"{facts['host']}: ") if facts["host"] != here["host"] else [])
