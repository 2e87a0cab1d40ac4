"""`openrlhf-prm doctor` on this machine: every host imported, a Ray of its own, a worker asked on its node."""

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stack


def test_this_machine_can_run_everything_but_a_path_that_is_not_there(tmp_path):
    command = [sys.executable, "-m", "openrlhf_prm.cli.doctor", "--timeout", "1800"]
    done = subprocess.run([*command, "--paths", tmp_path, tmp_path / "nowhere"], capture_output=True, text=True)
    table, _, uses = done.stdout.partition("\n\n")
    rows = [re.split(r" {2,}", line, maxsplit=2) for line in table.splitlines() if not line.startswith(" ")]
    faults = [(check, found) for verdict, check, found in rows if verdict == "FAULT"]
    # The node's worker says so, and this process.
    assert [found.partition("has no ")[2] or found for _, found in faults] == [
        f"{tmp_path}/nowhere",
        f"{tmp_path}/nowhere is not here",
    ], done.stdout + done.stderr
    found = {check: found for _, check, found in rows}
    assert re.fullmatch(r"all \d+ are there", found["names of vLLM"])
    assert re.fullmatch(r"all \d+ are there", found["names of hosts"])
    assert found["plugin"].startswith("found in vllm.general_plugins")
    assert found["patches"] == "0001, 0002, 0003, 0004 applied"
    assert found["Ray"].startswith("1 node, ")
    assert done.returncode == 4 + 8 + 16
    assert [line.split()[0] for line in uses.splitlines()] == ["serve", "train-prm", "train-ppo"]
