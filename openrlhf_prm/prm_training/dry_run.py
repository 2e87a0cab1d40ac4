"""`train_prm --dry_run`: what the training would hold on each of its GPUs; no row is read and no model loaded."""

import os
from types import SimpleNamespace

from openrlhf_prm.cluster.demands import Group, Role
from openrlhf_prm.cluster.dry_run import memory_table, placed_or_refused, placement_table, require_memory
from openrlhf_prm.cluster.memory import GIB
from openrlhf_prm.cluster.nodes import at_hand, smallest_gpu
from openrlhf_prm.prm_training.memory_plan import Setup, fullest_use
from openrlhf_prm.prm_training.open_flags import fill_in
from openrlhf_prm.prm_training.training_options import TrainingOptions

ADVICE = (
    "what makes it smaller: --ds.zero_stage 3, --ds.adam_offload, more GPUs, --model.gradient_checkpointing_enable, "
    "--ds.lora.rank, a lower --train.micro_batch_size or --data.max_len"
)


def assume_devices(args: SimpleNamespace) -> None:
    """Without a launcher a dry run is of one process per GPU of `--dry_run.gpus`, else of one."""
    gpus = sum(node.gpus for node in args.dry_run.gpus or ())
    os.environ.setdefault("WORLD_SIZE", str(gpus or 1))


def dry_run(args: SimpleNamespace, options: TrainingOptions) -> None:
    """Prints what the training would take, from the first process alone. Raises ValueError where it is not there."""
    processes = int(os.environ["WORLD_SIZE"])
    nodes = args.dry_run.gpus or at_hand()
    gib = smallest_gpu(nodes)
    role = Role(name="train_prm", processes=processes, gpus=1.0, flags="processes of torchrun or deepspeed")
    placed = placed_or_refused([Group(bundles=processes, roles=(role,))], nodes)
    filled = fill_in(options, None if gib is None else gib * GIB)
    ds, model = options.host.ds, options.host.model
    setup = Setup(ds.zero_stage, ds.adam_offload, model.gradient_checkpointing_enable)
    use, unknown = fullest_use(options, setup, processes)
    sizes = {} if use is None else {"train_prm": use}
    if os.environ.get("RANK", "0") == "0":
        if filled:
            print("flags left open:", *(f"{flag} {value}" for flag, value in filled.items()))
        print(placement_table(placed, nodes))
        print("\n" + memory_table(sizes, unknown, gib), flush=True)
    require_memory(sizes, gib, ADVICE)
