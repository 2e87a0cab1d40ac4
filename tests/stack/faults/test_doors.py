"""A Ray that a command starts is reached from this machine alone."""

import ipaddress
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.stack
LISTENING = """
import json
import os

os.environ.pop("RAY_ADDRESS", None)
from openrlhf_prm.cluster.accelerator import prepare_environment

prepare_environment()
import psutil
import ray

from openrlhf_prm.cluster.joining import join

join(alone=True, include_dashboard=False)
assert ray.get(ray.remote(num_cpus=0)(lambda: 1).remote()) == 1
listening = []
for process in psutil.Process().children(recursive=True):
    for each in process.net_connections("inet"):
        if each.status == psutil.CONN_LISTEN:
            listening.append((" ".join(process.cmdline())[:150], each.laddr.ip))
print(json.dumps(listening))
"""


def test_no_other_machine_reaches_a_ray_of_our_own():
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    listening = json.loads(done.stdout.splitlines()[-1])
    assert any("gcs_server" in name for name, _ in listening) and any("raylet" in name for name, _ in listening)
    assert [(name, ip) for name, ip in listening if not is_loopback(ip)] == []


def is_loopback(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
