"""The tables of upstream names hold what the source uses, no more and no less; what was checked is what is pinned."""

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from upstream_names import names_used

import openrlhf_prm.hosts
import vllm_prm.hosts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("hosts", [vllm_prm.hosts, openrlhf_prm.hosts], ids=["vllm_prm", "openrlhf_prm"])
def test_the_table_is_what_the_source_uses(hosts):
    listed = {(module, name) for module, names in hosts.NAMES.items() for name in names}
    used = names_used(Path(hosts.__file__).parent)
    assert listed == used, f"not listed: {sorted(used - listed)}; not used: {sorted(listed - used)}"


def test_a_missing_name_and_a_missing_module_are_named():
    missing = vllm_prm.hosts.missing_names({"json": ("dumps", "nothing"), "json.nowhere": ("x",), "os": ("path",)})
    assert missing[0] == "json:nothing" and missing[1].startswith("json.nowhere (") and len(missing) == 2


def test_the_versions_are_the_pinned_ones():
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements/cpu.lock").read_text(), re.M))
    for name, checked in {**vllm_prm.hosts.VERSIONS, **openrlhf_prm.hosts.VERSIONS}.items():
        assert lock.get(name, lock.get(f"{name}-cpu")) == checked
        try:
            assert version(name) == checked
        except PackageNotFoundError:  # vLLM for CPUs is another distribution
            assert version(f"{name}-cpu") == checked


def test_another_openrlhf_is_refused(monkeypatch):
    monkeypatch.setitem(openrlhf_prm.hosts.VERSIONS, "openrlhf", "0.0.1")
    with pytest.raises(ValueError, match="openrlhf 0.0.1 is needed, found"):
        openrlhf_prm.hosts.require_openrlhf()
