"""One line of the doctor's table, and what the whole table says of serving, PRM training and PPO."""

from collections.abc import Iterable
from dataclasses import dataclass

USES = {"serve": 4, "train-prm": 8, "train-ppo": 16}
"""What a machine is used for -> what it adds to the exit code where it cannot be. 1 and 2 are a crash and a wrong
flag."""

EVERY_USE = tuple(USES)
TRAINING = ("train-prm", "train-ppo")


@dataclass(frozen=True)
class Finding:
    """`found` is what was seen of `check`; `blocks` the uses that it makes impossible; `remedy` what to do about it.

    Without `blocks` it is a warning where it has a remedy, and all right where it has none.
    """

    check: str
    found: str
    blocks: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def verdict(self) -> str:
        """`ok`, `warning` or `FAULT`."""
        if self.blocks:
            return "FAULT"
        return "warning" if self.remedy else "ok"


def blocked(findings: Iterable[Finding]) -> set[str]:
    """The uses that some finding makes impossible."""
    return {use for finding in findings for use in finding.blocks}


def exit_code(findings: Iterable[Finding], uses: Iterable[str] = EVERY_USE) -> int:
    """The sum of `USES` over those of `uses` that cannot be: 0 where all can."""
    return sum(USES[use] for use in blocked(findings).intersection(uses))


def table(findings: Iterable[Finding]) -> str:
    """A line a finding, and under it what to do."""
    findings = list(findings)
    width = max(len(finding.check) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:7}  {finding.check:{width}}  {' '.join(finding.found.split())}")
        if finding.remedy:
            lines.append(f"{'':7}  {'':{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def summary(findings: Iterable[Finding], uses: Iterable[str]) -> str:
    """A line a use: whether it can run, and which checks stand against it."""
    findings = list(findings)
    lines = []
    for use in uses:
        against = dict.fromkeys(finding.check for finding in findings if use in finding.blocks)
        lines.append(f"{use:9}  {'cannot run: ' + ', '.join(against) if against else 'can run'}")
    return "\n".join(lines)
