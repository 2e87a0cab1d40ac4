"""`--dry_run`: what a run would take, as a table, and whether it is there."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace

from openrlhf_prm.cluster.demands import Demand, Group, Role
from openrlhf_prm.cluster.memory import GIB, GpuUse, shown
from openrlhf_prm.cluster.nodes import described
from openrlhf_prm.cluster.placement import DoesNotFit, Node, Placed, place


def add_dry_run_flags(parser: argparse.ArgumentParser) -> None:
    """`--dry_run` and `--dry_run.gpus`; `args.dry_run.on` and `args.dry_run.gpus`, a list of nodes or None."""
    group = parser.add_argument_group("dry run")
    text = "check every flag, show what the run would take and whether it is there, and start nothing; exit code 0 or 2"
    group.add_argument("--dry_run", dest="dry_run.on", action="store_true", help=text)
    text = "GPUs to compare with, instead of the cluster's: 8x80 is a node of 8 with 80 GiB each, 4x8x80 four of them"
    group.add_argument("--dry_run.gpus", type=_nodes, metavar="GPUSxGIB", help=text)


def _nodes(spec: str) -> list[Node]:
    try:
        return described(spec)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def asked_for(args: SimpleNamespace) -> bool:
    """Whether this is to be a dry run. Raises ValueError for GPUs that nothing would compare with."""
    if args.dry_run.gpus is not None and not args.dry_run.on:
        raise ValueError("--dry_run.gpus needs --dry_run")
    return args.dry_run.on


def placed_or_refused(demands: Sequence[Demand], nodes: Sequence[Node]) -> list[Placed]:
    """Where everything goes. Raises ValueError with the sum per role where Ray would wait for ever."""
    try:
        return place(demands, nodes)
    except DoesNotFit as error:
        raise ValueError(shortage(demands, nodes, error)) from None


def shortage(demands: Sequence[Demand], nodes: Sequence[Node], error: DoesNotFit) -> str:
    """Why a run finds no room, with the sum per role."""
    asked = sum(demand.total for demand in demands)
    sums = ", ".join(_sum(demand) for demand in demands if demand.total)
    have = f"{sum(node.gpus for node in nodes)} GPUs ({_kinds(nodes)})"
    whole = f"the run needs {asked:g} GPUs: {sums}; there are {have}"
    if asked > sum(node.gpus for node in nodes):
        return whole
    if all(node.cpus is None for node in nodes) or not _fits(demands, [_without_cpus(node) for node in nodes]):
        chance = "no room" if error.always else "no room where Ray spreads the others badly"
        return f"{whole}, but {_sum(error.demand)} finds {chance}: {_piece(error.demand)}"
    cpus = sum(node.cpus for node in nodes)
    return f"{whole}, but too few CPUs ({cpus:g}): every GPU takes one, and so does the trainer"


def _piece(demand: Demand) -> str:
    if isinstance(demand, Role) and demand.gpus > 1:
        return f"a process of it takes {demand.gpus:g} GPUs of one node"
    return f"a process of it takes {demand.gpus:g} of one GPU" if isinstance(demand, Role) else "it takes whole GPUs"


def _sum(demand: Demand) -> str:
    return f"{demand.name} {demand.total:g}" + (f" ({demand.flags})" if demand.flags else "")


def _fits(demands: Sequence[Demand], nodes: Sequence[Node]) -> bool:
    try:
        return bool(place(demands, nodes))
    except DoesNotFit:
        return False


def _without_cpus(node: Node) -> Node:
    return Node(node.name, node.gpus, None, node.gib)


def _kinds(nodes: Sequence[Node]) -> str:
    """`2 nodes with 8`."""
    kinds = Counter(node.gpus for node in nodes if node.gpus)
    return ", ".join(f"{n} node{'s' if n > 1 else ''} with {gpus}" for gpus, n in kinds.items()) or "no node with any"


def placement_table(placed: Sequence[Placed], nodes: Sequence[Node]) -> str:
    """Role -> processes -> GPUs -> nodes, a line for each role."""
    rows = [("role", "processes", "GPUs", "nodes")]
    for found in placed:
        for role in found.demand.roles if isinstance(found.demand, Group) else (found.demand,):
            taken = found.nodes[: role.processes * role.spans]
            rows.append((role.name, _processes(role), _gpus(role, found.demand), _where(taken, nodes)))
    asked, there = sum(found.demand.total for found in placed), sum(node.gpus for node in nodes)
    rows.append(("all", "", f"{asked:g} of {there}", _kinds(nodes)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def memory_table(fullest: Mapping[str, GpuUse], unknown: Sequence[str], gib: float | None) -> str:
    """Memory of one GPU of each demand at its fullest, in GiB, the fullest of all in parts."""
    lines = []
    for name, use in sorted(fullest.items(), key=lambda item: -item[1].total):
        of = "" if gib is None else f" of {gib:g}"
        lines.append(f"a GPU of {name}: {shown(use.total)}{of} GiB ({use.moment})")
        if len(lines) == 1:
            for role, parts in use.parts.items():
                sizes = ", ".join(f"{part} {shown(size)}" for part, size in parts.items() if size)
                lines.append(f"  {role}: {sizes or 'asleep'}")
            lines.append(f"  {use.processes} process{'es' if use.processes > 1 else ''}: 1.0 each, assumed")
    lines += [f"not estimated: {reason}" for reason in unknown]
    return "\n".join(lines)


def require_memory(fullest: Mapping[str, GpuUse], gib: float | None, advice: str) -> None:
    """Raises ValueError where a GPU would have to hold more than it has."""
    for name, use in fullest.items():
        if gib is not None and use.total > gib * GIB:
            parts = "; ".join(
                f"{role}: {', '.join(f'{part} {shown(size)}' for part, size in sizes.items() if size)}"
                for role, sizes in use.parts.items()
                if sizes
            )
            raise ValueError(
                f"a GPU of {name} would need {shown(use.total)} GiB and has {gib:g} ({use.moment}: {parts}); {advice}"
            )


def _processes(role: Role) -> str:
    return f"{role.processes} x {role.spans}" if role.spans > 1 else str(role.processes)


def _gpus(role: Role, demand: Demand) -> str:
    if isinstance(demand, Role):
        return (
            f"{role.total:g}" if role.gpus in (0, 1) or role.processes == 1 else f"{role.total:g}, {role.gpus:g} each"
        )
    taken = role.processes * role.spans
    others = [other.name for other in demand.roles if other is not role]
    return f"{taken}, shared with {', '.join(others)}" if others else str(taken)


def _where(taken: Sequence[int], nodes: Sequence[Node]) -> str:
    counts = Counter(taken)
    return ", ".join(f"{nodes[index].name}: {counts[index]}" for index in sorted(counts))
