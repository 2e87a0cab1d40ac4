"""The installed hosts have every name that the packages use."""

import json
import subprocess
import sys

CODE = """
import json, openrlhf_prm.hosts, vllm_prm.hosts
names = [name for hosts in (vllm_prm.hosts, openrlhf_prm.hosts) for name in vllm_prm.hosts.missing_names(hosts.NAMES)]
print(json.dumps(names))
"""


def test_every_upstream_name_is_there():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == []
