"""How far labelling is, and what it cost."""

import time
from collections import Counter

from tqdm import tqdm

from openrlhf_prm.annotation.records import AnnotatedQuestion


class LabellingProgress:
    """What was labelled and what it cost, as a bar while it grows and as the summary's counts at the end."""

    def __init__(self, questions: int):
        self.start = time.perf_counter()
        self.totals = Counter()
        self.cache = (0, 0)
        """Prompt tokens that the engines found in their KV caches, and prompt tokens in all."""
        self.bar = tqdm(total=questions, desc="labelling", unit="question", mininterval=1, disable=not questions)

    def add(self, annotated: AnnotatedQuestion) -> None:
        """Counts a finished question."""
        labels = sum(len(solution.steps) for solution in annotated.solutions)
        dropped = bool(annotated.dropped)
        self.totals.update(annotated.usage)
        self.totals["truncated_solutions"] += sum(solution.truncated for solution in annotated.solutions)
        self.totals.update(solutions=len(annotated.solutions), labels=labels, dropped_questions=dropped)
        self.bar.set_postfix_str(self._rates(), refresh=False)
        self.bar.update()

    def summary(self) -> dict:
        """The counts as they stand now."""
        names = ("solutions", "labels", "dropped_questions", "rollouts", "rollout_tokens", "solution_tokens")
        counts = {
            name: self.totals[name]
            for name in (*names, "reused_rollouts", "merged_copies", "truncated_solutions", "retried_questions")
        }
        seconds = time.perf_counter() - self.start if self.totals else 0.0
        rate = self.totals["labels"] / seconds if seconds else 0.0
        counts |= {"cache_hit_rate": self._hit_rate(), "seconds": round(seconds, 2), "labels_per_s": round(rate, 1)}
        return counts

    def _hit_rate(self) -> float | None:
        hits, queries = self.cache
        return round(hits / queries, 3) if queries else None

    def _rates(self) -> str:
        rate = self.totals["labels"] / (time.perf_counter() - self.start)
        per_label = self.totals["rollouts"] / max(self.totals["labels"], 1)
        hits = self._hit_rate()
        shown = "–" if hits is None else f"{hits:.0%}"
        return f"{rate:.1f} labels/s, {per_label:.2f} rollouts/label, cache hits {shown}"
