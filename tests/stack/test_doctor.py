"""`openrlhf-prm doctor` on this machine: every host imported, and a worker asked on each of two nodes."""

import os
import re
import subprocess
import sys

import pytest
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.stack


@pytest.fixture
def address():
    """A Ray cluster of two nodes with four slots each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 4})
    cluster.add_node(num_cpus=1, num_gpus=4)
    yield cluster.address
    cluster.shutdown()


def test_this_machine_can_run_everything_but_a_path_that_is_not_there(address, tmp_path):
    command = [sys.executable, "-m", "openrlhf_prm.cli.doctor", "--timeout", "1800"]
    done = subprocess.run(
        [*command, "--paths", tmp_path, tmp_path / "nowhere"],
        env={**os.environ, "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
    )
    table, _, uses = done.stdout.partition("\n\n")
    rows = [re.split(r" {2,}", line, maxsplit=2) for line in table.splitlines() if not line.startswith(" ")]
    faults = [found for verdict, _, found in rows if verdict == "FAULT"]
    # A worker on each node says so, and this process.
    on_a_node, here = f"has no {tmp_path}/nowhere", f"{tmp_path}/nowhere is not here"
    assert [on_a_node in found for found in faults] == [True, True, False], done.stdout + done.stderr
    assert faults[2] == here
    found = {check: found for _, check, found in rows}
    assert re.fullmatch(r"all \d+ are there", found["names of vLLM"])
    assert re.fullmatch(r"all \d+ are there", found["names of hosts"])
    assert found["plugin"].startswith("found in vllm.general_plugins")
    assert found["patches"] == "0001, 0002, 0003, 0004 applied"
    assert found["Ray"] == "2 nodes, 8 GPUs (slots of a CPU run)"
    assert done.returncode == 4 + 8 + 16
    assert [line.split()[0] for line in uses.splitlines()] == ["serve", "train-prm", "train-ppo"]
