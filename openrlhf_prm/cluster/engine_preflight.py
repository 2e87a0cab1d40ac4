"""Whether commands that start engines alone find their GPUs, and whether an engine's share holds its model."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.demands import Role
from openrlhf_prm.cluster.dry_run import memory_table, placed_or_refused, placement_table, require_memory
from openrlhf_prm.cluster.engine_options import GPU_MEMORY, EngineOptions
from openrlhf_prm.cluster.memory import GIB, Use, engine, fullest, require_share
from openrlhf_prm.cluster.nodes import at_hand
from openrlhf_prm.cluster.placement import Node

Engines = Mapping[str, EngineOptions]
"""Prefix of their flags -> engines, in the order in which they start."""


def engine_demands(engines: Engines) -> list[Role]:
    """What Ray is asked for, actors without a group."""
    return [
        Role(name=name, processes=options.num_engines, gpus=options.gpus, flags=_flags(name, options))
        for name, options in engines.items()
    ]


def dry_run_engines(args: SimpleNamespace, engines: Engines) -> None:
    """Prints what the engines would take of `--dry_run.gpus` or what is at hand. Raises ValueError where it is not
    there.
    """
    nodes = args.dry_run.gpus or at_hand()
    placed = placed_or_refused(engine_demands(engines), nodes)
    print(placement_table(placed, nodes), flush=True)
    gib = min((node.gib for node in nodes if node.gib is not None), default=None)
    uses, unknown = _uses(engines, gib)
    # Engines with shares of a GPU may meet on one.
    sharing = {name: use for name, use in uses.items() if engines[name].gpus < 1}
    sizes = {name: fullest({name: use}, False) for name, use in uses.items() if name not in sharing}
    sizes |= {" + ".join(sharing): fullest(sharing, False)} if sharing else {}
    print("\n" + memory_table(sizes, unknown, gib), flush=True)
    for name, use in uses.items():
        if gib is not None:
            flag = f"--{name}.gpus_per_engine"
            require_share(name, flag, use.working["weights"], share_of(engines[name]), gib, engines[name])
    require_memory(sizes, gib, "fewer engines or smaller shares fit a GPU")


def require_room(engines: Engines, nodes: Sequence[Node]) -> None:
    """Raises ValueError where Ray would wait for ever."""
    placed_or_refused(engine_demands(engines), nodes)


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
            weights = model_size(options.model).parameters * width / options.tensor_parallel_size
        except CannotTell as error:
            unknown.append(f"{name}: {error}")
            continue
        uses[name] = engine(weights, None if gib is None else share_of(options) * gib * GIB)
    return uses, unknown


def _flags(name: str, options: EngineOptions) -> str:
    size = "tensor_parallel_size" if options.tensor_parallel_size > 1 else "gpus_per_engine"
    return f"--{name}.num_engines x --{name}.{size}"
