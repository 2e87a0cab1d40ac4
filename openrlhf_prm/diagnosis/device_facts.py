"""PyTorch, its GPUs and NCCL, the compiler, flash-attn. Touches CUDA: for a process apart."""

import os
import re
import shutil
import subprocess

from openrlhf_prm.hosts import flash_attn_fault


def collect() -> dict:
    """`torch` and the `cuda` it was built for (None: a CPU build), `gpus` as name and GiB, `nccl`'s version, and the
    `nccl_fault` of an all-reduce over all GPUs; the releases of `nvcc` and whether there is a `g++`;
    `flash_attn_fault`, why flash-attn cannot be imported. "" is no fault.
    """
    import torch

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    facts = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": [(gpu.name, round(gpu.total_memory / (1 << 30))) for gpu in gpus],
        "nccl": None,
        "nccl_fault": "",
        "nvcc": nvcc_release(),
        "g++": shutil.which("g++") is not None,
        "flash_attn_fault": flash_attn_fault() or "",
    }
    if gpus:
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        facts["nccl_fault"] = _all_reduce_fault(len(gpus))
    return facts


def _all_reduce_fault(gpus: int) -> str:
    """What goes wrong where every GPU adds a one."""
    import torch

    try:
        ones = [torch.ones(1 << 20, device=f"cuda:{index}") for index in range(gpus)]
        torch.cuda.nccl.all_reduce(ones)
        sums = [tensor.cpu() for tensor in ones]
    except RuntimeError as error:
        return str(error)
    return "" if all((each == gpus).all() for each in sums) else f"{gpus} ones do not add up"


def nvcc_release() -> str | None:
    """CUDA's compiler, "13.0", where PyTorch's extensions look for it; None where it does not run."""
    from torch.utils.cpp_extension import CUDA_HOME

    if CUDA_HOME is None:
        return None
    try:
        said = subprocess.check_output([os.path.join(CUDA_HOME, "bin", "nvcc"), "-V"], text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    release = re.search(r"release (\d+\.\d+)", said)
    return release and release[1]
