"""What a run asks of Ray: placement groups and processes, in the order in which they are asked for."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Role:
    """Processes of one kind.

    gpus: what Ray sets aside for each; inside a group a share of every bundle that it works on. cpus: the same; Ray's
    actors without any of their own need one to be placed and give it back (`holds_cpus`). spans: bundles of the group
    per process, one per rank of tensor parallelism. flags: those that decide how many GPUs the role takes.
    """

    name: str
    processes: int
    gpus: float
    cpus: float = 1.0
    holds_cpus: bool = True
    spans: int = 1
    flags: str = ""

    def __post_init__(self):
        if self.gpus > 1 and not float(self.gpus).is_integer():
            raise ValueError(f"{self.flags}: {self.gpus:g} GPUs for a process: above 1 it must be a whole number")

    @property
    def total(self) -> float:
        """GPUs of all its processes, where they lie in no group."""
        return self.processes * self.gpus


@dataclass(frozen=True, kw_only=True)
class Group:
    """A placement group of `bundles` times one GPU and one CPU, strategy PACK, which its roles share: process i of a
    role lies in bundles `i * spans` to `(i + 1) * spans - 1`.
    """

    bundles: int
    roles: tuple[Role, ...]

    def __post_init__(self):
        for role in self.roles:
            if role.processes * role.spans > self.bundles:
                first, others = self.roles[0], f"{role.processes * role.spans} GPUs"
                raise ValueError(
                    f"{role.flags}: {role.name} needs {others} of the {self.bundles} that it shares with {first.name} "
                    f"({first.flags})"
                )
        for bundle in range(self.bundles):
            sharing = [role for role in self.roles if bundle < role.processes * role.spans]
            if math.fsum(role.gpus for role in sharing) > 1 + 1e-9:
                shares = " + ".join(f"{role.name} {role.gpus:g}" for role in sharing)
                raise ValueError(f"{sharing[-1].flags}: the shares of one GPU are more than 1: {shares}")

    @property
    def name(self) -> str:
        """Its roles."""
        return " + ".join(role.name for role in self.roles)

    @property
    def total(self) -> int:
        """GPUs that it holds."""
        return self.bundles

    @property
    def flags(self) -> str:
        """Those of the role that decides its size."""
        return self.roles[0].flags


Demand = Role | Group
