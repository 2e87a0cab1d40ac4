"""The model of a PRM in training: loaded with a head, with LoRA where asked for, and saved so that it serves as it is.

OpenRLHF's `Actor` does the forward pass, with packing; it loads causal LMs in 16 bits only, so loading is done here.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from openrlhf.models import Actor
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig
from transformers.modeling_outputs import TokenClassifierOutput

from openrlhf_prm.prm_training.heads.head import PRMHead

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
RECORD = "prm_training.json"
PEFT_PREFIX = "base_model.model."


def load_actor(
    load: Callable[..., nn.Module],
    path: str,
    strategy,
    host: SimpleNamespace,
    *,
    vocabulary: int = 0,
    added_token_id: int | None = None,
) -> Actor:
    """The model that `load(path, **from_pretrained_arguments)` makes, in `host.ds.param_dtype`, as an `Actor`.

    `vocabulary`: the number of tokens that its embeddings must have rows for, at least. `added_token_id`: see
    `start_rows_at_mean`.
    """
    partitioned = None
    if host.ds.zero_stage == 3:
        from transformers.integrations import HfDeepSpeedConfig

        # from_pretrained and resize_token_embeddings look for a living object of this class.
        partitioned = HfDeepSpeedConfig(strategy.get_ds_train_config())
    model = load(path, dtype=DTYPES[host.ds.param_dtype], attn_implementation=host.ds.attn_implementation)
    rows = model.config.get_text_config().vocab_size
    if vocabulary > rows:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    new = {*range(rows, vocabulary), *([] if added_token_id is None else [added_token_id])}
    start_rows_at_mean(model, sorted(new))
    del partitioned
    model.config.use_cache = False  # a cache would hide from the attention where packed solutions begin
    actor = Actor(model)
    actor.packing_samples = host.ds.packing_samples
    return actor


@torch.no_grad()
def start_rows_at_mean(model: nn.Module, rows: Sequence[int]) -> None:
    """Sets `rows`, in ascending order, of the embeddings, and of the language-model head where it has one of its own,
    to the mean of all rows before them, as a token should start that the model has never seen (Hewitt, "Initializing
    New Word Embeddings", 2021). Weights that ZeRO-3 has spread over the devices are gathered for it."""
    if not rows:
        return
    from deepspeed.runtime.zero import GatheredParameters

    layers = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    weights = list({id(layer.weight): layer.weight for layer in layers}.values())
    for weight in weights:
        with GatheredParameters([weight], modifier_rank=0):
            weight[list(rows)] = weight[: rows[0]].float().mean(dim=0).to(weight.dtype)


def load_with_head(
    path: str, suffix: str, head: Callable[[int], nn.Module], num_labels: int, **arguments: Any
) -> nn.Module:
    """The checkpoint at `path` as a transformers model of a class made for it: its backbone as `model`, and
    `head(hidden size)` as `score`, read at every token. The class is called like the backbone with `suffix`, which
    config.json then says. `arguments` are those of `from_pretrained`."""
    config = AutoConfig.from_pretrained(path, num_labels=num_labels)
    backbone = MODEL_MAPPING[type(config)]

    class WithHead(backbone.__base__):
        base_model_prefix = "model"

        def __init__(self, config):
            super().__init__(config)
            self.model = backbone(config)
            self.score = head(config.hidden_size)
            self.post_init()

        def forward(self, input_ids=None, attention_mask=None, position_ids=None, **arguments):
            hidden = self.model(
                input_ids, attention_mask=attention_mask, position_ids=position_ids, **arguments
            ).last_hidden_state
            return TokenClassifierOutput(logits=self.score(hidden))

    WithHead.__name__ = WithHead.__qualname__ = backbone.__name__.removesuffix("Model") + suffix
    return WithHead.from_pretrained(path, config=config, **arguments)


def add_lora(actor: Actor, head: PRMHead, lora: SimpleNamespace) -> None:
    """Low-rank updates (arXiv:2106.09685) of `lora.target_modules`, with the head's layers trained whole; nothing
    where `lora.rank` is 0."""
    if lora.rank == 0:
        return
    actor.model.enable_input_require_grads()  # for gradient checkpointing: the embedding is frozen
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        exclude_modules=list(head.layers) or None,
        bias="none",
    )
    actor.model = get_peft_model(actor.model, config)
    for layer in head.layers:
        actor.model.get_base_model().get_submodule(layer).requires_grad_(True)


def merged(model: PeftModel, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The base model's tensors with the updates added, W + (alpha / rank) B A in float32, from the tensors of a model
    with LoRA."""
    merged_tensors = {
        name.removeprefix(PEFT_PREFIX).replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if ".lora_" not in name
    }
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, LoraLayer):
            down, up = (tensors[f"{PEFT_PREFIX}{name}.lora_{part}.default.weight"].float() for part in "AB")
            weight = merged_tensors[f"{name}.weight"]
            update = module.scaling["default"] * (up @ down)
            merged_tensors[f"{name}.weight"] = (weight.float() + update).to(weight.dtype)
    return merged_tensors


def save_prm(
    actor: Actor,
    tokenizer,
    strategy,
    output_dir: str | Path,
    declared: dict,
    *,
    record: dict,
    replace: bool = False,
) -> None:
    """Saves a Hugging Face checkpoint whose config.json declares the PRM family under "prm", so that `vllm_prm` serves
    it as it is; LoRA's updates are merged into a copy of the weights. It is written beside `output_dir` and renamed
    when complete, so a folder of that name is always whole. One that is there already is an error unless it is empty,
    or with `replace`. `record`: what `read_record` shall give back."""
    output_dir = Path(output_dir)
    partial = output_dir.with_name(f"{output_dir.name}.partial")
    if strategy.is_rank_0():
        shutil.rmtree(partial, ignore_errors=True)
    model = strategy._unwrap_model(actor)
    model.config.prm = declared
    if isinstance(model, PeftModel):
        gathered = strategy.args.ds.zero_stage > 2 or strategy.args.ds.tensor_parallel_size > 1
        tensors = actor.model._consolidated_16bit_state_dict() if gathered else model.state_dict()
        if strategy.is_rank_0():
            model.get_base_model().save_pretrained(partial, state_dict=merged(model, tensors))
            tokenizer.save_pretrained(partial)
    else:
        strategy.save_model(actor, tokenizer, str(partial))
    if strategy.is_rank_0():
        (partial / RECORD).write_text(json.dumps(record))
        if replace:
            shutil.rmtree(output_dir, ignore_errors=True)
        elif output_dir.is_dir():
            output_dir.rmdir()
        partial.rename(output_dir)
    dist.barrier()  # no rank goes on, or ends, before the checkpoint is there


def read_record(folder: Path) -> dict | None:
    """Update and metrics of the checkpoint in `folder`; None if there is none. Raises ValueError for a damaged one."""
    record = folder / RECORD
    if not record.is_file():
        return None
    try:
        return json.loads(record.read_text())
    except ValueError as error:
        raise ValueError(f"{record} is damaged ({error}); move {folder} away") from None
