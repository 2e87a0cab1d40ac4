"""What the nodes of a cluster mean."""

import pytest

from openrlhf_prm.diagnosis import machine_facts
from openrlhf_prm.diagnosis.nodes import of_nodes
from vllm_prm.serve import ENTRY_POINT_GROUPS

GROUPS = list(ENTRY_POINT_GROUPS)


@pytest.fixture
def here():
    return machine_facts.collect([], GROUPS)


def node(facts=None, **changes):
    return {"address": "10.0.0.2", "gpus": 8, "fault": "", "facts": facts, **changes}


def found(findings):
    return [finding.found for finding in findings if finding.verdict == "FAULT"]


def test_nodes_that_see_the_same(here):
    findings = of_nodes([node(here), node(here, address="10.0.0.3")], "", here, cpu=False)
    assert [finding.verdict for finding in findings] == ["ok"] * 3
    assert findings[0].found == "2 nodes, 16 GPUs"


def test_no_ray_and_no_gpu_block_ppo(here):
    (finding,) = of_nodes(None, "no answer in 300 s (--timeout waits longer)", here, cpu=False)
    assert finding.blocks == ("train-ppo",) and finding.found.startswith("no answer")
    assert found(of_nodes([node(here, gpus=0)], "", here, cpu=False)) == ["1 node, 0 GPUs"]


def test_a_node_that_differs_is_named_with_what_differs(here):
    there = {**here, "host": "two", "missing": ["/data/prm"], "versions": {**here["versions"], "ray": "2.50.0"}}
    there["versions"].pop("deepspeed")
    there["plugins"] = {**here["plugins"], GROUPS[0]: []}
    assert sorted(found(of_nodes([node(there)], "", here, cpu=False))) == [
        f"deepspeed is not installed, here {here['versions']['deepspeed']}",
        f"no entry point in {GROUPS[0]}",
        f"ray 2.50.0, here {here['versions']['ray']}",
        "two has no /data/prm",
    ]


def test_a_node_that_does_not_answer_is_a_fault(here):
    findings = of_nodes([node(fault="no answer in 210 s")], "", here, cpu=False)
    assert found(findings) == ["no answer in 210 s"] and findings[1].check == "node 10.0.0.2"


def test_disks_of_another_machine_are_looked_at_too(here):
    there = {**here, "host": "elsewhere", "folders": {"/dev/shm": {"free": 0.06, "all": 0.06}}}
    warned = [f.check for f in of_nodes([node(there)], "", here, cpu=False) if f.verdict == "warning"]
    assert warned == ["elsewhere: /dev/shm"]
