"""One process that trains a weight under the host's strategy, as test_checkpoints.py asks for it.

`checkpoint_run.py save FOLDER STAGE UPDATES DIE`: trains, saves a checkpoint after each update, keeps one, and kills
itself in the middle of writing that of update DIE (0: of none). `checkpoint_run.py load FOLDER STAGE`: prints what was
loaded as JSON. `checkpoint_run.py bad FOLDER STAGE`: trains on a loss that is NaN, and on a gradient that is, and saves
where the disk is full.
"""

import json
import os
import resource
import signal
import sys

import torch
from openrlhf.utils import get_strategy
from real_ppo_flags import ppo_args

from openrlhf_prm.cluster import guarded_strategy
from openrlhf_prm.cluster.checkpoints import CheckpointError


class Weight(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)
        torch.nn.init.constant_(self.linear.weight, 1.0)

    def forward(self, x):
        return self.linear(x)


def prepared(stage: str):
    flags = ["--ds.zero_stage", stage, "--ds.param_dtype", "fp32"]
    args = ppo_args(*flags, "--train.micro_batch_size", 1, "--train.batch_size", 1)
    guarded_strategy.install()
    strategy = get_strategy(args)
    strategy.setup_distributed()
    schedule = {"lr_scheduler": "constant", "scheduler_steps": 9, "max_norm": 1.0}
    adam = {"optim": "adam", "adam": {**vars(args.actor.adam), "lr": 0.1}, **schedule}
    return strategy, *strategy.prepare((Weight(), adam))


def weight(model) -> list[float]:
    return model.module.linear.weight.detach().flatten().tolist()


def update(strategy, model, optimizer, scheduler, loss=torch.sum) -> None:
    strategy.backward(loss(model(torch.ones(1, 4))), model, optimizer)
    strategy.optimizer_step(optimizer, model, scheduler)


def die_in_torch_save() -> None:
    """The next file is half written when the process is gone."""
    save = torch.save

    def half(state, path, **kwargs):
        save(state, path, **kwargs)
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


def main(mode: str, folder: str, stage: str, updates: str = "0", die: str = "0") -> None:
    strategy, model, optimizer, scheduler = prepared(stage)
    if mode == "save":
        for number in range(1, int(updates) + 1):
            update(strategy, model, optimizer, scheduler)
            if number == int(die):
                die_in_torch_save()
            strategy.save_ckpt(model, folder, f"s{number}", 1, 1000, {"update": number, "data": {"seed": 7}})
    elif mode == "load":
        try:
            path, states = strategy.load_ckpt(model, folder)
            ours = {name: states[name] for name in ("update", "data") if name in states}
            print(json.dumps({"path": path, "states": ours, "weight": weight(model)}))
        except CheckpointError as error:
            print(json.dumps({"error": str(error)}))
    else:
        update(strategy, model, optimizer, scheduler)
        before, said = weight(model), []
        for loss in (lambda y: y.sum() * float("nan"), lambda y: (y - y.detach()).pow(2).sum().sqrt()):
            try:
                update(strategy, model, optimizer, scheduler, loss)
            except guarded_strategy.NotFinite as error:
                said.append([str(error), weight(model) == before])
        strategy.save_ckpt(model, folder, "s1", 1, 1000, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            strategy.save_ckpt(model, folder, "s2", 1, 1000, {})
        except CheckpointError as error:
            said.append(str(error))
        print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
