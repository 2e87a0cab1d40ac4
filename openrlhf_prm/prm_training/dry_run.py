"""`train_prm --dry_run`: what the training would hold on each of its GPUs; no row is read and no model loaded."""

import os
from types import SimpleNamespace

from openrlhf_prm.cluster.demands import Group, Role
from openrlhf_prm.cluster.dry_run import memory_table, placed_or_refused, placement_table, require_memory
from openrlhf_prm.cluster.memory import GIB, Use, frozen, fullest, trained
from openrlhf_prm.cluster.nodes import at_hand
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
    gib = min((node.gib for node in nodes if node.gpus and node.gib is not None), default=None)
    role = Role(name="train_prm", processes=processes, gpus=1.0, flags="processes of torchrun or deepspeed")
    placed = placed_or_refused([Group(bundles=processes, roles=(role,))], nodes)
    filled = fill_in(options, None if gib is None else gib * GIB)
    use, unknown = _use(options, processes)
    sizes = {} if use is None else {"train_prm": fullest({"train_prm": use}, together=True)}
    if os.environ.get("RANK", "0") == "0":
        if filled:
            print("flags left open:", *(f"{flag} {value}" for flag, value in filled.items()))
        print(placement_table(placed, nodes))
        print("\n" + memory_table(sizes, unknown, gib), flush=True)
    require_memory(sizes, gib, ADVICE)


def _use(options: TrainingOptions, processes: int) -> tuple[Use | None, list[str]]:
    """Memory of a process, and what cannot be told. Heads that read steps alone make logits of those alone."""
    from openrlhf_prm.cluster.rehearsal import CannotTell, model_size, passes

    host, outcome = options.host, options.head.outcome
    model, ds = host.model.model_name_or_path, host.ds
    split, batch = ds.tensor_parallel_size, host.train.micro_batch_size
    ranks = max(1, processes // split)
    try:
        size = model_size(model)
        checkpointing = host.model.gradient_checkpointing_enable
        held = passes(model, ds.param_dtype, batch, options.data.max_len, checkpointing, critic=not outcome)
        use = trained(
            size.parameters // split,
            ds.param_dtype,
            ranks,
            ds.zero_stage,
            offload=ds.adam_offload,
            accumulates=host.train.batch_size > batch * ranks,
            trainable=ds.lora.rank * size.lora_per_rank // split if ds.lora.rank else None,
            activations=held.training / split,
        )
        if outcome:
            other = model_size(options.head_options.reference or model).parameters // split
            judge = frozen(other, ds.param_dtype, ranks, ds.zero_stage, offload=False, activations=0.0).resting
            both = {f"reference's {name}": amount for name, amount in judge.items()}
            use = Use({**use.resting, **both}, {**use.working, **both}, learns=True)
    except CannotTell as error:
        return None, [f"train_prm: {error}"]
    return use, []
