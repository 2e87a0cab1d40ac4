"""CPU/GPU differences, in one place.

On a GPU nothing here is needed. On CPU the same Ray, vLLM, DeepSpeed and OpenRLHF run with a few environment variables
(`cpu_environment`), a few flags of OpenRLHF (`cpu_host_flags`) and the patches in `patches/` applied.
"""

import importlib.util
import json
import os
import runpy
from functools import cache
from pathlib import Path

# Environment variable: MiB of KV cache per rollout engine, for small models on small machines.
ROLLOUT_KV_CACHE_MB = "OPENRLHF_PRM_ROLLOUT_KV_CACHE_MB"


def on_cpu() -> bool:
    """Whether this is a CPU run: `DS_ACCELERATOR`, which DeepSpeed obeys, decides where it is set, else the build of
    PyTorch.

    That this process sees no GPU means nothing: a driver on a login node has none, nor has an actor whose engine's
    workers hold them. CUDA is not touched, after which vLLM could no longer fork.
    """
    accelerator = os.environ.get("DS_ACCELERATOR")
    return accelerator == "cpu" if accelerator else _cpu_build()


@cache
def _cpu_build() -> bool:
    """Whether PyTorch was built without CUDA and ROCm. Its version file says so, without PyTorch being imported."""
    package = Path(importlib.util.find_spec("torch").origin).parent
    build = runpy.run_path(str(package / "version.py"))
    return build["cuda"] is None and build["hip"] is None


def cpu_environment(cpus: int = 32, gpus: int = 8) -> dict[str, str]:
    """Environment variables for a CPU run; they must be set before Ray, vLLM and DeepSpeed are imported.

    OpenRLHF asks Ray for one GPU and one CPU per actor, so Ray is told that it has `gpus` and `cpus` of them: these are
    slots for processes, which then share the real cores. One OpenMP thread per process, because several processes with
    several threads each slow one another down. `TORCHDYNAMO_DISABLE`: compiling costs more than it saves here.
    `MALLOC_*`: glibc gives freed memory back, of which ten processes would each keep a few hundred MiB.
    `RAY_worker_niceness`: at Ray's own 15, workers hardly run beside any other program that wants the same cores.
    """
    return {
        "RAY_ENABLE_ZERO_COPY_TORCH_TENSORS": "1",
        "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": cpus, "GPU": gpus, "object_store_memory": 200_000_000}),
        "RAY_worker_niceness": "0",
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCHDYNAMO_DISABLE": "1",
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": "8388608",
        "MALLOC_TRIM_THRESHOLD_": "8388608",
        "TOKENIZERS_PARALLELISM": "false",
    }


def prepare_environment(dry_run: bool = False) -> None:
    """For a CPU run, sets what `cpu_environment` asks for, where the user has not set it; else nothing. A dry run may
    ask the hub how large a model is.
    """
    if on_cpu():
        for name, value in cpu_environment().items():
            if not (dry_run and name == "HF_HUB_OFFLINE"):
                os.environ.setdefault(name, value)


def cpu_host_environment() -> dict[str, str]:
    """Environment variables of OpenRLHF's own PPO for a CPU run outside a cluster: a Ray of its own. It would join one
    that another command has started, and end with it.
    """
    return {} if "RAY_ADDRESS" in os.environ else {"RAY_ADDRESS": "local"}


def cpu_host_flags() -> list[str]:
    """Flags of OpenRLHF's PPO for a CPU run: weights over gloo, no CUDA graphs, no flash-attn, float32."""
    return ["--vllm.sync_backend", "gloo", "--vllm.enforce_eager", *cpu_training_flags()]


def cpu_training_flags() -> list[str]:
    """Flags of any of OpenRLHF's trainers for a CPU run.

    float32, because a CPU without AVX-512 multiplies bfloat16 matrices 3 to 35 times slower.
    """
    return ["--ds.attn_implementation", "eager", "--ds.param_dtype", "fp32"]


def engine_dtype(dtype: str) -> str:
    """The data type of a vLLM engine for `dtype`, of which "auto" is float32 on CPU, and vLLM's own choice on a GPU."""
    return "float32" if dtype == "auto" and on_cpu() else dtype
