"""Whether commands that start engines alone find their GPUs, and whether an engine's share holds its model."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.demands import Role
from openrlhf_prm.cluster.dry_run import memory_table, placed_or_refused, placement_table, require_memory
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.cluster.memory import GIB, Use, engine, fullest, require_share
from openrlhf_prm.cluster.nodes import at_hand, smallest_gpu, this_machine
from openrlhf_prm.cluster.placement import Node
from vllm_prm.engines import GPU_MEMORY

Engines = Mapping[str, EngineOptions]
"""Prefix of their flags -> engines, in the order in which they start."""


def engine_demands(engines: Engines, in_process: bool = False) -> list[Role]:
    """What Ray is asked for, actors without a group. in_process: there is one engine, in the command's own process."""
    return [
        Role(name=name, processes=options.num_engines, gpus=options.gpus, flags=_flags(name, options, in_process))
        for name, options in engines.items()
    ]


def dry_run_engines(args: SimpleNamespace, engines: Engines, in_process: bool = False) -> None:
    """Prints what the engines would take of `--dry_run.gpus` or what is at hand. Raises ValueError where it is not
    there.
    """
    nodes = args.dry_run.gpus or ([this_machine()] if in_process else at_hand())
    placed = placed_or_refused(engine_demands(engines, in_process), nodes)
    print(placement_table(placed, nodes), flush=True)
    gib = smallest_gpu(nodes)
    uses, unknown = _uses(engines, gib)
    # Engines with shares of a GPU may meet on one.
    sharing = {name: use for name, use in uses.items() if engines[name].gpus < 1}
    sizes = {name: fullest({name: use}, False) for name, use in uses.items() if name not in sharing}
    sizes |= {" + ".join(sharing): fullest(sharing, False)} if sharing else {}
    print("\n" + memory_table(sizes, unknown, gib), flush=True)
    _require_shares(engines, uses, gib, in_process)
    require_memory(sizes, gib, "fewer engines or smaller shares fit a GPU")


def require_room(engines: Engines, nodes: Sequence[Node]) -> None:
    """Raises ValueError where Ray would wait for ever, and where an engine's share of a GPU cannot hold its model."""
    placed_or_refused(engine_demands(engines), nodes)
    require_shares(engines, smallest_gpu(nodes))


def require_shares(engines: Engines, gib: float | None, in_process: bool = False) -> None:
    """Raises ValueError where an engine's share of a GPU of `gib` GiB, None for not known, cannot hold its model."""
    if gib is not None:
        _require_shares(engines, _uses(engines, gib)[0], gib, in_process)


def _require_shares(engines: Engines, uses: Mapping[str, Use], gib: float | None, in_process: bool) -> None:
    for name, use in uses.items():
        options = engines[name]
        of_memory = in_process or options.gpu_memory_utilization is not None
        flag = f"--{name}.{'gpu_memory_utilization' if of_memory else 'gpus_per_engine'}"
        if gib is not None:
            require_share(name, flag, use, share_of(options), gib, options)


def share_of(options: EngineOptions) -> float:
    """Of each of its GPUs' memory, what an engine takes."""
    given = options.gpu_memory_utilization
    return GPU_MEMORY * options.share if given is None else given


def _uses(engines: Engines, gib: float | None) -> tuple[dict[str, Use], list[str]]:
    from openrlhf_prm.cluster.rehearsal import CannotTell, model_size

    uses, unknown = {}, []
    for name, options in engines.items():
        width = 4 if options.dtype == "float32" or (options.dtype == "auto" and on_cpu() and gib is None) else 2
        try:
            weights = [
                model_size(model).parameters * width / options.tensor_parallel_size
                for model in (options.model, *options.beside)
            ]
        except CannotTell as error:
            unknown.append(f"{name}: {error}")
            continue
        uses[name] = engine(weights, None if gib is None else share_of(options) * gib * GIB)
    return uses, unknown


def _flags(name: str, options: EngineOptions, in_process: bool) -> str:
    if in_process:
        return f"--{name}.tensor_parallel_size"
    size = "tensor_parallel_size" if options.tensor_parallel_size > 1 else "gpus_per_engine"
    return f"--{name}.num_engines x --{name}.{size}"
