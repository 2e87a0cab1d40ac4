"""What went into a run and what became of it, part by part, so that somebody else can add it up.

`ledger.jsonl` stands beside what the run writes. Lines of one run, as its updates or commands end:

    {"run": "labels.jsonl", "event": "began", "kept": 0}
    {"run": "labels.jsonl", "event": "part", "part": 1, "unit": "questions", "in": 24, "out": {"labelled": 22},
     "left_out": {"no rollout ended": 2}}
    {"run": "labels.jsonl", "event": "ended", "all": {"questions": 24}}

A run that goes on after a kill begins anew with `kept`, the last part that stands; later ones are done again and count
once. It balances where every part came once, in = out + left_out, and all that there was came in.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vllm_prm.disk import naming
from vllm_prm.durable_file import json_line

NAME = "ledger.jsonl"


class Ledger:
    """The lines of one run. Each is on disk when a method returns; several runs may share a folder."""

    def __init__(self, folder: str | Path, run: str):
        self.path = Path(folder) / NAME
        self.run = run

    def began(self, kept: int = 0) -> None:
        """`kept`: parts before this that stand; 0 where the run starts afresh, or its parts are totals."""
        self._write({"event": "began", "kept": kept})

    def part(
        self, part: int, unit: str, came: int, out: Mapping[str, int], left_out: Mapping[str, int] | None = None
    ) -> None:
        """Of `came` things of a kind, how many became what, and how many were left out why."""
        left_out = {reason: count for reason, count in (left_out or {}).items() if count}
        self._write({"event": "part", "part": part, "unit": unit, "in": came, "out": dict(out), "left_out": left_out})

    def ended(self, everything: Mapping[str, int]) -> None:
        """The run is over. `everything`: unit -> how many there were to begin with."""
        self._write({"event": "ended", "all": dict(everything)})

    def _write(self, line: dict) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"  # by a kill
            else:
                torn = False
            with naming(self.path):
                file.write(b"\n" * torn + json_line({"run": self.run, **line}))  # at once: others may append, too
                file.flush()
                os.fsync(file.fileno())


@dataclass(frozen=True)
class Balance:
    """The sums of a run's parts of one unit. `all`: how many there were to begin with, None where nobody said."""

    run: str
    unit: str
    came: int = 0
    out: Counter = field(default_factory=Counter)
    left_out: Counter = field(default_factory=Counter)
    all: int | None = None
    ended: bool = False
    missing: tuple[int, ...] = ()

    @property
    def faults(self) -> list[str]:
        """What does not balance, one sentence each."""
        accounted = self.out.total() + self.left_out.total()
        faults = []
        if self.came != accounted:
            faults.append(f"{self.came} {self.unit} went in, {accounted} are accounted for")
        if self.missing:
            faults.append(f"parts {', '.join(map(str, self.missing[:9]))} are missing")
        if self.all is not None and self.all != self.came:
            faults.append(f"there were {self.all} {self.unit}, {self.came} went in")
        if not self.ended:
            faults.append("the run has not ended")
        return faults

    def __str__(self) -> str:
        parts = [f"{count} {name}" for name, count in self.out.items()]
        reasons = ", ".join(f"{name} {count}" for name, count in self.left_out.items())
        if self.left_out:
            parts.append(f"{self.left_out.total()} left out ({reasons})")
        return f"{self.run}: {self.came} {self.unit} = {' + '.join(parts) or 0}"


def balances(folder: str | Path) -> list[Balance]:
    """The ledger of a folder added up: one balance for each run and unit, in the order in which they began.

    Raises ValueError where there is none.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        raise ValueError(f"there is no {NAME} in {folder}")
    runs: dict[str, _Run] = {}
    for line in _lines(path):
        run = runs.setdefault(line["run"], _Run())
        if line["event"] == "began":
            run.begin(line["kept"])
        elif line["event"] == "part":
            run.parts[line["unit"], line["part"]] = line
        else:
            run.everything = line["all"]
    return [balance for name, run in runs.items() for balance in run.balances(name)]


class _Run:
    def __init__(self) -> None:
        self.parts: dict[tuple[str, int], dict] = {}
        self.everything: dict[str, int] | None = None

    def begin(self, kept: int) -> None:
        self.parts = {(unit, part): line for (unit, part), line in self.parts.items() if part <= kept}
        self.everything = None

    def balances(self, name: str) -> Iterator[Balance]:
        ended, everything = self.everything is not None, self.everything or {}
        units = list(dict.fromkeys([*(unit for unit, _ in self.parts), *everything]))
        for unit in units or [""]:
            lines = {part: line for (of, part), line in self.parts.items() if of == unit}
            balance = Balance(
                name,
                unit or "things",
                sum(line["in"] for line in lines.values()),
                all=everything.get(unit),
                ended=ended,
                missing=tuple(sorted(set(range(1, max(lines, default=0) + 1)) - set(lines))),
            )
            for line in lines.values():
                balance.out.update(line["out"])
                balance.left_out.update(line["left_out"])
            yield balance


def _lines(path: Path) -> Iterator[dict]:
    """The lines of a ledger but for those that a kill tore, which nothing was built upon."""
    for line in path.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue
