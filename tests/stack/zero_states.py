"""Processes that train a small policy as the host does, and say what their tensors take: run by test_memory.py.

`zero_states.py JSON`: a list of ZeRO stage, data type, number of processes, and a free port. For each, one after the
other, prints a JSON line: parameters, and bytes at rest after an update and after a backward pass.
"""

import gc
import json
import os
import sys
import traceback
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


def train(stage: int, dtype: str, ranks: int) -> SimpleNamespace:
    flags = ["--ds.zero_stage", stage, "--ds.param_dtype", dtype, "--train.micro_batch_size", 1]
    args = ppo_args(*flags, "--train.batch_size", ranks)
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
        strategy.backward(-actor(tokens, mask[:, 1:], mask).mean(), actor, optimizer)
        said.backward = sum(tensors().values()) - before
        strategy.optimizer_step(optimizer, actor, scheduler)
        said.rest = sum(tensors().values()) - before
    return said


def start(rank: int, stage: int, dtype: str, ranks: int, port: int) -> int:
    """The id of a process that is one of the ranks: a fork, which has imported all that takes long."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        said = train(stage, dtype, ranks)
        if rank == 0:
            print(json.dumps(vars(said)), flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def main(jobs: str) -> None:
    for stage, dtype, ranks, port in json.loads(jobs):
        children = [start(rank, stage, dtype, ranks, port) for rank in range(ranks)]
        codes = [os.waitpid(child, 0)[1] for child in children]
        assert codes == [0] * ranks, (stage, dtype, codes)


if __name__ == "__main__":
    main(*sys.argv[1:])
