"""How far the chains are, and what they cost."""

import time
from collections import Counter

from openrlhf_prm.generation.chains.checks import faults
from openrlhf_prm.generation.chains.task import Generation, PriceOptions


class ChainProgress:
    """A bar: chains per hour, the share that is kept, tokens, and with prices what a kept chain costs."""

    def __init__(self, task: Generation, questions: int):
        from tqdm import tqdm

        self.task, self.totals = task, Counter(rows=0, kept=0, prompt_tokens=0, completion_tokens=0)
        self.began = time.perf_counter()
        self.bar = tqdm(total=questions, desc="writing", unit="chain", mininterval=1)

    def add(self, row: dict) -> None:
        """Counts a finished question."""
        self.totals.update(rows=1, kept=not faults(row, self.task.length))
        self.totals.update({name: row[name] for name in ("prompt_tokens", "completion_tokens")})
        self.bar.set_postfix_str(self.line(), refresh=False)
        self.bar.update()

    def line(self) -> str:
        """As it stands beside the bar."""
        totals = self.totals
        hours = (time.perf_counter() - self.began) / 3600
        parts = [
            f"{totals['rows'] / hours:,.0f} chains/h",
            f"{totals['kept'] / totals['rows']:.0%} kept",
            f"{totals['prompt_tokens']:,} + {totals['completion_tokens']:,} tokens",
        ]
        if self.task.price != PriceOptions() and totals["kept"]:
            parts.append(f"{self.task.price.of(totals) / totals['kept']:.4g} per kept chain")
        return ", ".join(parts)
