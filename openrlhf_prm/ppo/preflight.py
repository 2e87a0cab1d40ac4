"""Whether a PPO run finds its GPUs, before anything but Ray is started."""

from types import SimpleNamespace

from openrlhf_prm.cluster.dry_run import placed_or_refused, placement_table
from openrlhf_prm.cluster.nodes import at_hand, of_ray
from openrlhf_prm.cluster.placement import Node, Placed
from openrlhf_prm.ppo.demands import check_batches, demands_of
from openrlhf_prm.ppo.fitting_flags import fitting_flags
from openrlhf_prm.ppo.plugin_options import read_options


def require_room(args: SimpleNamespace) -> None:
    """Raises ValueError where the Ray that this process is connected to could not place the run, which would wait for
    ever; with the sum per role and flags that fit.
    """
    _placed(args, of_ray(memory=False))


def dry_run(args: SimpleNamespace) -> None:
    """Prints what the run would take. Raises ValueError where it is not there."""
    nodes = args.dry_run.gpus or at_hand()
    print(placement_table(_placed(args, nodes), nodes), flush=True)


def _placed(args: SimpleNamespace, nodes: list[Node]) -> list[Placed]:
    options = read_options(args)
    check_batches(args)
    demands = demands_of(args, options)
    try:
        return placed_or_refused(demands, nodes)
    except ValueError as error:
        flags = fitting_flags(args, options, nodes)
        raise ValueError(f"{error}. " + (f"These fit: {flags}" if flags else "No smaller sizes fit either")) from None
