"""Flags of a training that were left open: what device, model and head make of them.

Learning rate. The best rate of Adam falls with the width of a transformer (arXiv:2203.03466), so with h the model's
hidden size

    rate = r * 4096 / h,   10 times that with LoRA (Schulman, "LoRA Without Regret", 2025)

r is the head's (`PRMHead.rate`), within what models of 7B are fine-tuned with: 1e-5 where the language-model head is
read, 2e-5 where new layers are, 1e-6 for `implicit`.

Memory of a device, in bytes, with P parameters (per tensor-parallel rank) of w bytes on n data-parallel devices, and
s = 16 bytes of optimizer per parameter (DeepSpeed's float32 copies of weight and gradient, Adam's two moments); with
LoRA there are no gradients and no states to speak of:

    ZeRO-2   w P + (w + s) P / n         ZeRO-3   (2 w + s) P / n + 4 GB of gathered layers
    offload  s = 0                       reference model of the head `implicit`: w P, in ZeRO-3 w P / n

and the activations of B solutions of T tokens with L layers, recomputed layer by layer or, without, kept:

    2 B T h (L + 30)   or   34 B T h L,   for `implicit` with logits of V words: + 10 B T V

On GPUs the first of ZeRO-2, ZeRO-3, either with the optimizer's states on the CPU, that fits 90% of a device is taken.
A CPU run is small and stays as it is: ZeRO-2, nothing recomputed.
"""

import os
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.hosts import flash_attn_fault
from openrlhf_prm.prm_training.heads import PRMHead
from openrlhf_prm.prm_training.training_options import TrainingOptions

SHARE = 0.9
STATE_BYTES = 16
GATHERED_BYTES = 4e9
LORA_RATE = 10
MICRO_BATCH = {"cpu": 8, "gpu": 4}


@dataclass(frozen=True)
class ModelSize:
    """What memory depends on."""

    parameters: int
    hidden: int
    layers: int
    words: int

    @classmethod
    def of(cls, config: Any) -> "ModelSize":
        """Of a transformers configuration; no weight is made."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        config = config.get_text_config()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return cls(parameters, config.hidden_size, config.num_hidden_layers, config.vocab_size)


@dataclass(frozen=True)
class Setup:
    """How the training of a model is spread over devices."""

    zero_stage: int
    adam_offload: bool
    checkpointing: bool


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


def device_bytes(
    size: ModelSize, setup: Setup, host: SimpleNamespace, head: type[PRMHead], *, devices: int, max_len: int
) -> float:
    """Memory of one of `devices` data-parallel devices, see the module's formulas."""
    width = 4 if host.ds.param_dtype == "fp32" else 2
    weights = width * size.parameters / host.ds.tensor_parallel_size
    trained = 0.0 if host.ds.lora.rank else size.parameters / host.ds.tensor_parallel_size
    states = 0 if setup.adam_offload else STATE_BYTES
    spread = devices if setup.zero_stage == 3 else 1
    gathered = GATHERED_BYTES if setup.zero_stage == 3 else 0.0
    total = weights / spread + gathered + trained * (width + states) / (devices if setup.zero_stage > 0 else 1)
    tokens = host.train.micro_batch_size * max_len
    kept = 2 * (size.layers + 30) if setup.checkpointing else 34 * size.layers
    total += tokens * size.hidden * kept
    if head.outcome:
        total += weights / spread + 10 * tokens * size.words
    return total


def fitting_setup(
    size: ModelSize, host: SimpleNamespace, head: type[PRMHead], *, devices: int, max_len: int, memory: float
) -> Setup:
    """The first set-up that fits a device of `memory` bytes, of those that the flags leave open; the last one, which
    takes the least, where none does."""
    ds, setup = host.ds, None
    for offload in (False, True):
        for stage in (2, 3) if devices > 1 else (2,):
            checkpointing = _either(host.model.gradient_checkpointing_enable, True)
            setup = Setup(_either(ds.zero_stage, stage), _either(ds.adam_offload, offload), checkpointing)
            if device_bytes(size, setup, host, head, devices=devices, max_len=max_len) <= SHARE * memory:
                return setup
    return setup


def _either(given: Any, usual: Any) -> Any:
    return usual if given is None else given


def fill_in(options: TrainingOptions, memory: float | None = None) -> dict[str, Any]:
    """Gives every open flag of `options.host` a value; returns those, flag -> value. memory: bytes of a GPU that is
    not this machine's. Raises ValueError or OSError where
    the model's configuration cannot be read."""
    from transformers import AutoConfig

    host, head = options.host, options.head
    config = AutoConfig.from_pretrained(host.model.model_name_or_path, trust_remote_code=True)
    devices = int(os.environ["WORLD_SIZE"]) // host.ds.tensor_parallel_size
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
    fill("train", "micro_batch_size", usual_micro_batch(host.train.batch_size, devices, on))
    setup = Setup(zero_stage=2, adam_offload=False, checkpointing=False)
    if on == "gpu":
        limits = {"devices": devices, "max_len": options.data.max_len, "memory": memory or _device_memory()}
        setup = fitting_setup(ModelSize.of(config), host, head, **limits)
    fill("ds", "zero_stage", setup.zero_stage)
    fill("ds", "adam_offload", setup.adam_offload)
    fill("model", "gradient_checkpointing_enable", setup.checkpointing)
    return filled


def _device_memory() -> float:
    """Bytes of this process's GPU; whole GiB, so that equal devices give equal numbers."""
    import torch

    return torch.cuda.get_device_properties(int(os.environ["LOCAL_RANK"])).total_memory // 2**30 * 2**30
