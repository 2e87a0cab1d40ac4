"""What the machine means: its GPUs, compilers, ports and disks."""

import os
import socket
from collections.abc import Mapping

from openrlhf_prm.diagnosis.finding import EVERY_USE, TRAINING, Finding

PORTS = {6379: "ray start --head --port", 8265: "ray start --head --dashboard-port", 8000: "vllm-prm serve --port"}
"""Port -> the flag that takes another."""
SCANT_GIB = {"this folder": 20, "model cache": 20, "Ray's files": 10, "/dev/shm": 1}
"""Folder -> GiB below which it may not do."""
FULL = 0.95
"""Share of its disk from which Ray spills no more objects."""


def of_device(facts: dict | None, fault: str) -> list[Finding]:
    """PyTorch and what it runs on. `facts` as `device_facts.collect` gives them."""
    if facts is None:
        return [Finding("PyTorch", fault, EVERY_USE, "PyTorch does not start; nothing here will")]
    if facts["cuda"] is None:
        found = [Finding("PyTorch", f"{facts['torch']}, built for CPUs")]
        return found if facts["g++"] else [*found, Finding("g++", "missing", (), "Debian: apt-get install g++")]
    findings = [Finding("PyTorch", f"{facts['torch']}, CUDA {facts['cuda']}"), _of_gpus(facts["gpus"])]
    if facts["gpus"]:
        findings.append(_of_nccl(facts))
    return [*findings, _of_nvcc(facts, os.environ), _of_compiler(facts)]


def _of_gpus(gpus: list) -> Finding:
    if not gpus:
        remedy = "nvidia-smi, CUDA_VISIBLE_DEVICES; all right on a login node of a cluster that has some"
        return Finding("GPUs", "none here", ("serve", "train-prm"), remedy)
    kinds = dict.fromkeys(map(tuple, gpus))
    counts = [f"{sum(tuple(gpu) == kind for gpu in gpus)} x {kind[0]}, {kind[1]} GiB" for kind in kinds]
    return Finding("GPUs", "; ".join(counts))


def _of_nccl(facts: dict) -> Finding:
    if facts["nccl_fault"]:
        return Finding("NCCL", facts["nccl_fault"], TRAINING, "NCCL_DEBUG=INFO says more; GPUs train together by it")
    return Finding("NCCL", f"{facts['nccl']}, an all-reduce over {len(facts['gpus'])} GPUs is right")


def _of_nvcc(facts: dict, environment: Mapping[str, str]) -> Finding:
    """DeepSpeed compiles its Adam when training starts, with the very CUDA that PyTorch was built for; up to CUDA 12
    another minor version will do, and it does with DS_SKIP_CUDA_CHECK=1.
    """
    blocks = TRAINING if facts["gpus"] else ()
    wanted, found = ".".join(facts["cuda"].split(".")[:2]), facts["nvcc"]
    if found is None:
        remedy = f"DeepSpeed compiles its Adam with it: install CUDA {wanted}'s toolkit, CUDA_HOME names its folder"
        return Finding("nvcc", "missing", blocks, remedy)
    major = wanted.split(".")[0]
    if found == wanted or (found.split(".")[0] == major and int(major) <= 12):
        return Finding("nvcc", found)
    if environment.get("DS_SKIP_CUDA_CHECK") == "1":
        return Finding("nvcc", f"{found}, where PyTorch has {wanted}; DS_SKIP_CUDA_CHECK=1 allows it")
    same = found.split(".")[0] == major
    remedy = "DS_SKIP_CUDA_CHECK=1 lets DeepSpeed take it" if same else f"CUDA_HOME must name a CUDA {wanted}"
    return Finding("nvcc", f"{found}, where PyTorch has {wanted}: DeepSpeed will not compile", blocks, remedy)


def _of_compiler(facts: dict) -> Finding:
    if facts["g++"]:
        return Finding("g++", "is there")
    return Finding("g++", "missing", EVERY_USE if facts["gpus"] else (), "Debian: apt-get install g++")


def of_paths(missing: list[str], paths: list[str]) -> list[Finding]:
    """The files and models that were asked for, on this machine."""
    if missing:
        return [Finding("path", f"{path} is not here", EVERY_USE, "or give a folder that is") for path in missing]
    return [Finding("path", f"{path} is here") for path in paths]


def of_ports() -> list[Finding]:
    """A port that is taken is a warning: by a cluster's own head it has to be."""
    findings = []
    for port, flag in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                findings.append(Finding(f"port {port}", "taken", (), f"{flag} takes another one"))
    return findings or [Finding("ports", f"{', '.join(map(str, PORTS))} are free")]


def of_folders(folders: dict[str, dict[str, float]], where: str = "") -> list[Finding]:
    """Space, of one machine."""
    findings = []
    for name, gib in folders.items():
        found, remedy = f"{gib['free']:g} of {gib['all']:g} GiB free", ""
        if gib["free"] < SCANT_GIB[name]:
            shm = "Ray and NCCL share memory there (docker run --shm-size 16g)"
            remedy = shm if name == "/dev/shm" else "checkpoints may not fit"
        if name == "Ray's files" and gib["free"] < (1 - FULL) * gib["all"]:
            remedy = "Ray spills nothing to a disk that is 95% full; RAY_TMPDIR names another"
        findings.append(Finding(f"{where}{name}", found, (), remedy))
    return findings
