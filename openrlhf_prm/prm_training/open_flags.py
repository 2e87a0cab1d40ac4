"""Flags of a training that were left open: what device, model and head make of them.

Learning rate. The best rate of Adam falls with the width of a transformer (arXiv:2203.03466), so with h the model's
hidden size

    rate = r * 4096 / h,   10 times that with LoRA (Schulman, "LoRA Without Regret", 2025)

r is the head's (`PRMHead.rate`), within what models of 7B are fine-tuned with: 1e-5 where the language-model head is
read, 2e-5 where new layers are, 1e-6 for `implicit`.

Memory is what `--dry_run` shows (`prm_training.memory_plan`). On GPUs the first of ZeRO-2, ZeRO-3, either with the
optimizer's states on the CPU, that fits 85% of a device is taken; where the model's size cannot be told, ZeRO-3.
A CPU run is small and stays as it is: ZeRO-2, nothing recomputed.
"""

import os
from typing import Any

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.hosts import flash_attn_fault
from openrlhf_prm.prm_training.heads import PRMHead
from openrlhf_prm.prm_training.memory_plan import Setup, fullest_use
from openrlhf_prm.prm_training.training_options import TrainingOptions

SHARE = 0.85
"""Of a device's memory, what may be planned: the rest is for what the allocator cannot use and an estimate misses."""
LORA_RATE = 10
MICRO_BATCH = {"cpu": 8, "gpu": 4}


def learning_rate(head: type[PRMHead], hidden: int, *, lora: bool) -> float:
    """See the module's formula; rounded to two digits."""
    return float(f"{head.rate * 4096 / hidden * (LORA_RATE if lora else 1):.1e}")


def usual_micro_batch(batch_size: int, devices: int, on: str) -> int:
    """Solutions per device and forward pass: the largest power of two up to `MICRO_BATCH[on]` that divides
    `batch_size` with the number of data-parallel devices; 1 if none does."""
    size = MICRO_BATCH[on]
    while size > 1 and batch_size % (size * devices):
        size //= 2
    return size


def fitting_setup(options: TrainingOptions, processes: int, memory: float) -> Setup:
    """The first set-up that fits a device of `memory` bytes, of those that the flags leave open; the last one, which
    takes the least, where none does."""
    ds = options.host.ds
    stages = (2, 3) if processes > ds.tensor_parallel_size else (2,)
    checkpointing = _either(options.host.model.gradient_checkpointing_enable, True)
    setups = [
        Setup(_either(ds.zero_stage, stage), _either(ds.adam_offload, offload), checkpointing)
        for offload in (False, True)
        for stage in stages
    ]
    for setup in setups:
        use, _ = fullest_use(options, setup, processes)
        if use is None:
            return setups[len(stages) - 1]
        if use.total <= SHARE * memory:
            break
    return setup


def _either(given: Any, usual: Any) -> Any:
    return usual if given is None else given


def fill_in(options: TrainingOptions, memory: float | None = None) -> dict[str, Any]:
    """Gives every open flag of `options.host` a value; returns those, flag -> value. memory: bytes of a GPU that is
    not this machine's. Raises ValueError or OSError where the model's configuration cannot be read."""
    from transformers import AutoConfig

    host, head = options.host, options.head
    config = AutoConfig.from_pretrained(host.model.model_name_or_path, trust_remote_code=True)
    processes = int(os.environ["WORLD_SIZE"])
    on = "cpu" if on_cpu() and memory is None else "gpu"
    filled: dict[str, Any] = {}

    def fill(group: str, name: str, value: Any) -> None:
        flags = getattr(host, group)
        if getattr(flags, name) is None:
            setattr(flags, name, value)
            filled[f"--{group}.{name}"] = value

    fill("ds", "param_dtype", "fp32" if on == "cpu" else "bf16")
    fill("ds", "attn_implementation", "sdpa" if on == "cpu" or flash_attn_fault() else "flash_attention_2")
    rate = learning_rate(head, config.get_text_config().hidden_size, lora=host.ds.lora.rank > 0)
    fill("adam", "lr", rate)
    fill(
        "train",
        "micro_batch_size",
        usual_micro_batch(host.train.batch_size, processes // host.ds.tensor_parallel_size, on),
    )
    setup = Setup(zero_stage=2, adam_offload=False, checkpointing=False)
    if on == "gpu":
        setup = fitting_setup(options, processes, memory or _device_memory())
    fill("ds", "zero_stage", setup.zero_stage)
    fill("ds", "adam_offload", setup.adam_offload)
    fill("model", "gradient_checkpointing_enable", setup.checkpointing)
    return filled


def _device_memory() -> float:
    """Bytes of this process's GPU; whole GiB, so that equal devices give equal numbers."""
    import torch

    return torch.cuda.get_device_properties(int(os.environ["LOCAL_RANK"])).total_memory // 2**30 * 2**30
