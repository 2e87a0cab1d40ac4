"""Whether Ray can place what a run asks for, by Ray's own rules; nothing is started.

A placement group of strategy PACK goes node by node: to the node with the largest share of what is asked for left,
with as many bundles as fit there, then to the next. A process outside a group goes to any node that has room; which
one is up to Ray, and may leave too little in one piece for a later process of more of them. There every choice is
followed, and a run fits where none leads into a dead end. Shares of a GPU come from one GPU: of two GPUs with
0.4 left each there is no 0.6.

Ray counts in units of 1/10000, and so does this.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from openrlhf_prm.cluster.demands import Demand, Group, Role

UNIT = 10_000
Free = tuple[tuple[int, ...], int]
"""What is left on a node, in units: of each GPU, the fullest first, and of the CPUs."""
State = tuple[Free, ...]


@dataclass(frozen=True)
class Node:
    """A machine. cpus: None where they are not counted. gib: memory of each of its GPUs, None where not known."""

    name: str
    gpus: int
    cpus: float | None = None
    gib: float | None = None


@dataclass(frozen=True)
class Placed:
    """A demand and the node of each of its bundles or processes, by index."""

    demand: Demand
    nodes: tuple[int, ...]


class DoesNotFit(ValueError):
    """Ray could not place a demand: it would wait for ever. `demand`: the first that finds no room; `always`: whatever
    Ray chooses for those before it.
    """

    def __init__(self, demand: Demand, always: bool):
        super().__init__(f"no room for {demand.name}")
        self.demand, self.always = demand, always


def place(demands: Sequence[Demand], nodes: Sequence[Node]) -> list[Placed]:
    """Where everything goes, one of the ways in which Ray may do it. Raises DoesNotFit where there is a way in which
    something finds no room.
    """
    start = tuple(((UNIT,) * node.gpus, _units(10**6 if node.cpus is None else node.cpus)) for node in nodes)
    # State as a set of nodes -> a state that is like it, with what led there.
    reached: dict[State, tuple[State, list[Placed]]] = {_like(start): (start, [])}
    for number, demand in enumerate(demands):
        matters = any(_piece(later) > _piece(demand) for later in demands[number + 1 :])
        after: dict[State, tuple[State, list[Placed]]] = {}
        dead_end = False
        for state, placed in reached.values():
            for following, way in _ways(state, demand, matters):
                complete = len(way) == _pieces(demand)
                dead_end |= not complete
                if complete:
                    after.setdefault(_like(following), (following, [*placed, Placed(demand, way)]))
        if dead_end:
            raise DoesNotFit(demand, always=not after)
        reached = after
    return next(iter(reached.values()))[1]


def _pieces(demand: Demand) -> int:
    return demand.bundles if isinstance(demand, Group) else demand.processes


def _piece(demand: Demand) -> float:
    """GPUs that must lie on one node."""
    return 1.0 if isinstance(demand, Group) else demand.gpus


def _units(amount: float) -> int:
    return round(amount * UNIT)


def _like(state: State) -> State:
    """The same for states that differ in the order of nodes alone."""
    return tuple(sorted(state))


def _ways(state: State, demand: Demand, all_of_them: bool) -> Iterator[tuple[State, tuple[int, ...]]]:
    """Each way of placing a demand, or one: what is left, and the nodes. A way that is too short is a dead end."""
    if isinstance(demand, Group):
        yield _packed(state, demand.bundles)
        return
    ways: dict[State, tuple[State, tuple[int, ...]]] = {_like(state): (state, ())}
    for _ in range(demand.processes):
        further: dict[State, tuple[State, tuple[int, ...]]] = {}
        for now, way in ways.values():
            choices = {free: index for index, free in reversed(list(enumerate(now)))}
            taken = [(index, left) for free, index in choices.items() if (left := _taken(free, demand)) is not None]
            if not taken:
                yield now, way
            for index, left in taken if all_of_them else taken[:1]:
                following = (*now[:index], left, *now[index + 1 :])
                further.setdefault(_like(following), (following, (*way, index)))
        ways = further
    yield from ways.values()


def _packed(state: State, bundles: int) -> tuple[State, tuple[int, ...]]:
    left, way = list(state), []
    candidates = set(range(len(state)))
    while len(way) < bundles and candidates:
        best = max(candidates, key=lambda index: (_share_left(left[index]), -index))
        candidates.remove(best)
        while len(way) < bundles and (after := _taken(left[best], _BUNDLE)) is not None:
            left[best] = after
            way.append(best)
    return tuple(left), tuple(way)


def _share_left(free: Free) -> float:
    """Ray's `LeastResourceScorer`, for a bundle."""
    gpus, cpus = sum(free[0]), free[1]
    if _taken(free, _BUNDLE) is None:
        return -1.0
    return (gpus - UNIT) / gpus + (cpus - UNIT) / cpus


def _taken(free: Free, role: Role) -> Free | None:
    """What a process of the role leaves on a node; None where it has no room there."""
    gpus, cpus, share = list(free[0]), free[1] - _units(role.cpus), _units(role.gpus)
    if cpus < 0:
        return None
    if share > UNIT:
        needed = share // UNIT
        if gpus.count(UNIT) < needed:
            return None
        gpus = [0] * needed + gpus[: len(gpus) - needed]  # in order: whole ones stand last
    elif share:
        fullest = next((index for index, left in enumerate(gpus) if left >= share), None)
        if fullest is None:
            return None
        gpus[fullest] -= share
    return tuple(sorted(gpus)), cpus if role.holds_cpus else free[1]


_BUNDLE = Role(name="bundle", processes=1, gpus=1.0)
