"""The installed hosts have every name that the packages use."""

import subprocess
import sys

CODE = """
import openrlhf_prm.hosts, vllm_prm.hosts
for names in (vllm_prm.hosts.NAMES, openrlhf_prm.hosts.NAMES):
    print(*vllm_prm.hosts.missing_names(names), sep="\\n", end="")
"""


def test_every_upstream_name_is_there():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1:] == []
