"""Whether a PPO run finds its GPUs, and whether they hold it, before anything but Ray is started."""

from collections.abc import Sequence
from types import SimpleNamespace

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.demands import Demand, Group
from openrlhf_prm.cluster.dry_run import memory_table, placed_or_refused, placement_table, require_memory
from openrlhf_prm.cluster.memory import GpuUse, fullest, require_share
from openrlhf_prm.cluster.nodes import at_hand, of_ray, smallest_gpu
from openrlhf_prm.cluster.placement import Node, Placed
from openrlhf_prm.ppo.demands import check_batches, demands_of
from openrlhf_prm.ppo.fitting_flags import fitting_flags
from openrlhf_prm.ppo.memory_plan import uses_of
from openrlhf_prm.ppo.plugin_options import PluginOptions, read_options

ADVICE = (
    "what makes it smaller: --ds.zero_stage 3, --ds.adam_offload, more GPUs per model, "
    "--actor.gradient_checkpointing_enable, a lower --train.micro_batch_size, --data.max_len or "
    "--vllm.gpu_memory_utilization, and with --train.colocate_all --vllm.enable_sleep --ds.enable_sleep"
)


def require_room(args: SimpleNamespace) -> None:
    """Raises ValueError where the Ray that this process is connected to could not place the run, which would wait for
    ever, with the sum per role and flags that fit; and where its GPUs cannot hold weights, gradients and optimizer.
    """
    options, nodes = read_options(args), of_ray(memory=not on_cpu())
    demands = [found.demand for found in _placed(args, options, nodes)]
    gib = smallest_gpu(nodes)
    if gib is not None:
        uses, _ = uses_of(args, options, gib, rehearsed=False)
        _require_shares(uses, args, options, gib)
        sizes = _by_demand(demands, uses, args)
        require_memory({name: use.certain() for name, use in sizes.items()}, gib, ADVICE)


def dry_run(args: SimpleNamespace) -> None:
    """Prints what the run would take. Raises ValueError where it is not there."""
    options, nodes = read_options(args), args.dry_run.gpus or at_hand()
    placed, gib = _placed(args, options, nodes), smallest_gpu(nodes)
    print(placement_table(placed, nodes), flush=True)
    uses, unknown = uses_of(args, options, gib, rehearsed=True)
    sizes = _by_demand([found.demand for found in placed], uses, args)
    print("\n" + memory_table(sizes, unknown, gib), flush=True)
    _require_shares(uses, args, options, gib)
    require_memory(sizes, gib, ADVICE)


def _placed(args: SimpleNamespace, options: PluginOptions, nodes: Sequence[Node]) -> list[Placed]:
    check_batches(args)
    demands = demands_of(args, options)
    try:
        return placed_or_refused(demands, nodes)
    except ValueError as error:
        flags = fitting_flags(args, options, nodes)
        raise ValueError(f"{error}. " + (f"These fit: {flags}" if flags else "No smaller sizes fit either")) from None


def _by_demand(demands: Sequence[Demand], uses: dict, args: SimpleNamespace) -> dict[str, GpuUse]:
    """The fullest GPU of each demand, as far as its roles are known."""
    sizes = {}
    for demand in demands:
        roles = demand.roles if isinstance(demand, Group) else (demand,)
        known = {role.name: uses[role.name] for role in roles if role.name in uses}
        if known:
            sizes[demand.name] = fullest(known, together=not args.ds.enable_sleep)
    return sizes


def _require_shares(uses: dict, args: SimpleNamespace, options: PluginOptions, gib: float | None) -> None:
    """Raises ValueError where an engine's share of a GPU cannot hold its model."""
    shares = {"vllm": (args.vllm.gpu_memory_utilization, "--vllm.gpu_memory_utilization", args.vllm)}
    if options.workers is not None:
        shares["prm"] = (options.workers.memory, "--prm.gpus_per_engine", options.workers)
    for name, (share, flag, sizes) in shares.items():
        if gib is not None and name in uses:
            require_share(name, flag, uses[name], share, gib, sizes)
