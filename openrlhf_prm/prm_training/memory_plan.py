"""Memory of a process that trains a PRM, from its flags and the checkpoints' configurations (`cluster.memory`)."""

from dataclasses import dataclass

from openrlhf_prm.cluster.memory import GpuUse, Use, frozen, fullest, trained
from openrlhf_prm.prm_training.training_options import TrainingOptions


@dataclass(frozen=True)
class Setup:
    """How the training of a model is spread over devices."""

    zero_stage: int
    adam_offload: bool
    checkpointing: bool


def fullest_use(options: TrainingOptions, setup: Setup, processes: int) -> tuple[GpuUse | None, list[str]]:
    """A GPU at its fullest, None where the model's size cannot be told, and what of it cannot be told."""
    from openrlhf_prm.cluster.rehearsal import CannotTell

    try:
        use, unknown = _use(options, setup, processes)
    except CannotTell as error:
        return None, [f"train_prm: {error}"]
    return fullest({"train_prm": use}, together=True), unknown


def _use(options: TrainingOptions, setup: Setup, processes: int) -> tuple[Use, list[str]]:
    from openrlhf_prm.cluster.rehearsal import model_size

    host, ds = options.host, options.host.ds
    split, batch = ds.tensor_parallel_size, host.train.micro_batch_size
    ranks = max(1, processes // split)
    size = model_size(host.model.model_name_or_path)
    activations, unknown = _activations(options, setup)
    use = trained(
        size.parameters // split,
        ds.param_dtype,
        ranks,
        setup.zero_stage,
        offload=setup.adam_offload,
        accumulates=host.train.batch_size > batch * ranks,
        trainable=ds.lora.rank * size.lora_per_rank // split if ds.lora.rank else None,
        activations=activations / split,
    )
    if not options.head.outcome:
        return use, unknown
    reference = options.head_options.reference or host.model.model_name_or_path
    other = model_size(reference).parameters // split
    judge = frozen(other, ds.param_dtype, ranks, setup.zero_stage, offload=False, activations=0.0).resting
    both = {f"reference's {name}": amount for name, amount in judge.items()}
    return Use({**use.resting, **both}, {**use.working, **both}, learns=True), unknown


def _activations(options: TrainingOptions, setup: Setup) -> tuple[float, list[str]]:
    """Of a micro-batch of the longest solutions, whatever they are packed into. Heads that read steps alone make logits
    of those alone.
    """
    from openrlhf_prm.cluster.rehearsal import CannotTell, passes

    model, micro = options.host.model.model_name_or_path, options.host.train.micro_batch_size
    shape = (options.host.ds.param_dtype, micro, options.data.max_len, setup.checkpointing)
    try:
        return passes(model, *shape, critic=not options.head.outcome).training, []
    except CannotTell as error:
        return 0.0, [f"activations: {error}"]
