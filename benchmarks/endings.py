"""What it saves to count the endings of solutions as rollouts of their states: `python -m benchmarks.endings`.

`math_shepherd` labels solutions of planted chains (`benchmarks.planted`), right and wrong ones, with N rollouts per
state: `with` and `without` --annotation.count_endings. A simulation: no model runs. Per label

    label_accuracy       share of hard labels that equal the exact ones
    false_errors         share of the steps of right solutions without an error that are labelled wrong
    value_error          root mean squared error of the values against the chain's exact ones
    rollouts_per_label   what it cost

and, for each N without endings, the share of its rollouts that is saved with them at the same label accuracy, and at
the same error of the values. No two planted solutions begin alike; where they do, each one's ending counts for the
others, and more is saved. Writes `--output`; the last line is a JSON object.
"""

import argparse
import asyncio
import json
import math
import random
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from benchmarks.planted import GOOD, Lines, PlantedEngine, exact_labels, is_right
from openrlhf_prm.annotation.math_shepherd import MathShepherd
from vllm_prm.durable_file import write_atomically

STEPS = 8
ROLLOUTS = (1, 2, 3, 4, 6, 7, 8, 16)
CHAINS = {"half right": (0.5, 0.0), "one in five right": (0.2, 0.0), "half right, 5% recovery": (0.5, 0.05)}
"""Name -> accuracy of the policy and its chance to recover from an error."""


def exact_values(steps: list[str], accuracy: float, recovery: float) -> list[float]:
    """The chance of a right answer after each step."""
    ahead = [accuracy ** ((len(steps) - step) / len(steps)) for step in range(1, len(steps) + 1)]
    return [a + (1 - a) * recovery if step.startswith(GOOD) else recovery for step, a in zip(steps, ahead, strict=True)]


async def figures(chain: str, rollouts: int, count_endings: bool, questions: int, seed: int) -> dict[str, float]:
    """The measures of one setting. The last step is left out: its value is the outcome."""
    accuracy, recovery = CHAINS[chain]
    engine = PlantedEngine(random.Random(f"{seed}-{chain}"), steps=STEPS, accuracy=accuracy, recovery=recovery)
    options = MathShepherd.Options(rollouts=rollouts, count_endings=count_endings, max_new_tokens=100_000)
    annotator = MathShepherd(engine, Lines(), is_right, options)
    totals = Counter()
    for index in range(questions):
        found = await annotator.annotate(f"Q{index}?\n", "right")
        totals["rollouts"] += found.usage["rollouts"]
        for solution in found.solutions:
            exact = exact_labels(solution.steps)[:-1]
            values = exact_values(solution.steps, accuracy, recovery)[:-1]
            totals["labels"] += len(exact)
            totals["equal"] += sum(a == b for a, b in zip(exact, solution.hard_labels[:-1], strict=True))
            totals["squares"] += sum((a - b) ** 2 for a, b in zip(values, solution.mc_values[:-1], strict=True))
            if solution.correct and all(exact):
                totals["clean"] += len(exact)
                totals["false_errors"] += solution.hard_labels[:-1].count(0)
    return {
        "label_accuracy": round(totals["equal"] / totals["labels"], 4),
        "false_errors": round(totals["false_errors"] / totals["clean"], 4),
        "value_error": round(math.sqrt(totals["squares"] / totals["labels"]), 4),
        "rollouts_per_label": round(totals["rollouts"] / totals["labels"], 2),
    }


def saved(rows: dict[str, dict[str, dict]], measure: str) -> dict[str, float | None]:
    """N without endings -> the share of its rollouts that is saved where labels with them are as good, on straight
    lines between the settings; None where none of them is that good, or all are better.
    """
    curve = sorted((row["rollouts_per_label"], row[measure]) for row in rows["with"].values())
    shares: dict[str, float | None] = {}
    for n, row in rows["without"].items():
        shares[n] = None
        for (cost, value), (dearer, better) in pairwise(curve):
            if min(value, better) <= row[measure] <= max(value, better) and value != better:
                at = cost + (dearer - cost) * (row[measure] - value) / (better - value)
                shares[n] = round(1 - at / row["rollouts_per_label"], 3)
                break
    return shares


def main(argv: list[str] | None = None) -> int:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(prog="benchmarks.endings", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/endings.json"), help="file to write")
    parser.add_argument("--questions", type=int, default=1000, help="questions of 2 solutions for each setting")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    result = {"settings": {"questions": args.questions, "seed": args.seed, "steps": STEPS}, "chains": {}}
    for chain in CHAINS:
        rows: dict[str, dict[str, dict]] = {"without": {}, "with": {}}
        for name, row in rows.items():
            for n in ROLLOUTS:
                row[str(n)] = asyncio.run(figures(chain, n, name == "with", args.questions, args.seed))
                print(f"{chain}, {n} rollouts, {name}: {row[str(n)]}", file=sys.stderr)
        shares = {measure: saved(rows, measure) for measure in ("label_accuracy", "value_error")}
        result["chains"][chain] = {**rows, "saved": shares}
    write_atomically(args.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps({chain: row["saved"] for chain, row in result["chains"].items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
