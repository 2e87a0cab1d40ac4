"""How large a model is and what its passes hold in memory, found out on PyTorch's meta device: tensors have shapes and
no content there, so a model of any size passes forward and backward in seconds, without a GPU and without its weights.

Attention is rehearsed as the fused kernels do it: queries, keys, values, output and one float per head and token are
kept for the backward pass, no scores.
"""

import contextlib
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_ATTENTION = "openrlhf_prm_rehearsed"


class LiveBytes(TorchDispatchMode):
    """Within the block, the bytes of the tensors that were made in it and are still there: `now`, and at most `peak`.
    Views count once. `known`: tensors that are not counted.
    """

    def __init__(self, known: Iterator[torch.Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self._storages = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, torch.Tensor):
                self._count(result.untyped_storage())
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        self._storages.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self.now -= size


@dataclass(frozen=True)
class ModelSize:
    """Parameters in all, and those of LoRA's updates for each unit of its rank."""

    parameters: int
    lora_per_rank: int


@dataclass(frozen=True)
class Passes:
    """Bytes beside weights and their gradients at the peak of a pass: forward alone, and forward with backward."""

    forward: int
    training: int


class CannotTell(ValueError):
    """A model whose size or passes cannot be found out; the message says why."""


@cache
def config_of(model: str | None) -> Any:
    """The checkpoint's configuration, of a folder or of the hub. Raises CannotTell."""
    from transformers import AutoConfig

    if not model:
        raise CannotTell("no checkpoint is named")
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise CannotTell(f"{model} has no configuration that can be read ({type(error).__name__})") from None


@cache
def model_size(model: str, critic: bool = False) -> ModelSize:
    """Parameters of a checkpoint's language model, or of the critic that the host makes of it. Raises CannotTell."""
    built = _on_meta(model, "bf16", critic)
    linear = [module for module in built.modules() if isinstance(module, torch.nn.Linear)]
    per_rank = sum(layer.in_features + layer.out_features for layer in linear if layer.out_features > 1)
    return ModelSize(sum(parameter.numel() for parameter in built.parameters()), per_rank)


@cache
def passes(
    model: str, dtype: str, sequences: int, tokens: int, checkpointing: bool = False, critic: bool = False
) -> Passes:
    """What the host's own forward and backward hold for a micro-batch. Raises CannotTell, for some mixtures of experts
    among others, whose routing needs contents.
    """
    measured = []
    for training in (False, True):
        built = _on_meta(model, dtype, critic).train(training)
        built.config.use_cache = False
        if checkpointing and training:
            built.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        for parameter in built.parameters():
            parameter.register_post_accumulate_grad_hook(_drop_gradient)  # counted elsewhere
        try:
            measured.append(_peak(built, sequences, tokens, critic, training))
        except Exception as error:  # whatever a model does that has no meaning without contents
            raise CannotTell(f"the passes of {model} cannot be rehearsed ({type(error).__name__})") from None
    return Passes(*measured)


def kv_bytes_per_token(model: str, dtype_bytes: int, split: int) -> int:
    """Of the cache of keys and values on one of `split` GPUs. Raises CannotTell where layers are not all alike."""
    config = config_of(model).get_text_config()
    if hasattr(config, "kv_lora_rank") or set(getattr(config, "layer_types", None) or ["full_attention"]) - {
        "full_attention",
        "sliding_attention",
    }:
        raise CannotTell(f"the cache of {model} is not one of keys and values per head")
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * max(1, heads // split) * width * dtype_bytes


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _peak(model: Any, sequences: int, tokens: int, critic: bool, training: bool) -> int:
    from openrlhf.models import Actor

    tokens_B_L = torch.ones(sequences, tokens, dtype=torch.long, device="meta")
    mask = torch.ones_like(tokens_B_L)
    forward = model
    if not critic:
        forward = Actor(model)
        forward.packing_samples = False
    known = [*model.parameters(), *model.buffers(), tokens_B_L, mask]
    with _without_triton(), LiveBytes(known) as live, torch.set_grad_enabled(training):
        result = forward(tokens_B_L, mask[:, 1:], mask)
        if training:
            result.mean().backward()
    return live.peak


@contextlib.contextmanager
def _without_triton() -> Iterator[None]:
    """The host's loss takes a Triton kernel where flash-attn is there, which needs contents."""
    name = "flash_attn.ops.triton.cross_entropy"
    kept = sys.modules.get(name)
    sys.modules[name] = None
    try:
        yield
    finally:
        if kept is None:
            del sys.modules[name]
        else:
            sys.modules[name] = kept


def _on_meta(model: str, dtype: str, critic: bool) -> torch.nn.Module:
    import copy

    from transformers import AutoModel, AutoModelForCausalLM
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)
    config = copy.deepcopy(config_of(model))
    config._attn_implementation = _ATTENTION
    try:
        if critic:
            from openrlhf.models.model import _get_critic_model

            config.normalize_reward = False
            base = AutoModel._model_mapping[type(config)]
            kind = _get_critic_model(base.__base__, base, "score", False)
            with torch.device("meta"):
                return kind(config).to(DTYPES[dtype])
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CannotTell(f"{model} is no language model that can be built ({type(error).__name__})") from None


class _FusedAttention(torch.autograd.Function):
    """Keeps what a fused kernel keeps; the contents are none."""

    @staticmethod
    def forward(context, queries, keys, values):
        result = torch.empty_like(queries.transpose(1, 2), memory_format=torch.contiguous_format)
        per_head = torch.empty(queries.shape[:-1], dtype=torch.float32, device=queries.device)
        context.save_for_backward(queries, keys, values, result, per_head)
        return result

    @staticmethod
    def backward(context, gradient):
        queries, keys, values, *_ = context.saved_tensors
        return torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)


def _attention(module, query, key, value, attention_mask, **options):
    return _FusedAttention.apply(query, key, value), None
