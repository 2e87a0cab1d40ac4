"""One process that trains a small policy as the host does, and says what its tensors take: run by test_memory.py.

Prints a JSON line: parameters, and bytes at rest after an update and after a backward pass.
"""

import gc
import json
import os
import sys
from types import SimpleNamespace

import torch
from openrlhf.models import Actor
from openrlhf.utils import get_strategy
from real_ppo_flags import POLICY, ppo_args


def tensors() -> dict[int, int]:
    """Storage -> bytes, of everything that Python knows, gradients included."""
    gc.collect()
    sizes: dict[int, int] = {}
    for known in gc.get_objects():
        if isinstance(known, torch.Tensor):
            for each in (known, known.grad if known.is_leaf else None):
                if each is not None and each.device.type == "cpu":
                    sizes[each.untyped_storage().data_ptr()] = each.untyped_storage().nbytes()
    return sizes


def main(stage: str, dtype: str, world: str, micro_batches: str) -> None:
    ranks = int(world)
    flags = ["--ds.zero_stage", stage, "--ds.param_dtype", dtype, "--train.micro_batch_size", 1]
    args = ppo_args(*flags, "--train.batch_size", int(micro_batches) * ranks)
    strategy = get_strategy(args)
    strategy.setup_distributed()
    before = sum(tensors().values())
    config = strategy.get_ds_train_config()
    actor = Actor(str(POLICY), attn_implementation="eager", param_dtype=dtype, ds_config=config)
    parameters = sum(getattr(each, "ds_numel", each.numel()) for each in actor.model.parameters())
    schedule = {"lr_scheduler": "constant", "scheduler_steps": 9, "max_norm": 1.0}
    adam = {"optim": "adam", "adam": vars(args.actor.adam), **schedule}
    actor, optimizer, scheduler = strategy.prepare((actor, adam))
    tokens = torch.randint(3, 9, (1, 8))
    mask = torch.ones_like(tokens)
    said = SimpleNamespace(parameters=parameters)
    for _ in range(2):
        for _ in range(int(micro_batches)):
            strategy.backward(-actor(tokens, mask[:, 1:], mask).mean(), actor, optimizer)
            said.backward = sum(tensors().values()) - before
            strategy.optimizer_step(optimizer, actor, scheduler)
        said.rest = sum(tensors().values()) - before
    if os.environ["RANK"] == "0":
        print(json.dumps(vars(said)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
