r"""How often the verdict on an answer is wrong: `python -m benchmarks.answers --data DIR`.

`DIR` holds `gsm8k/test.jsonl`, `gsm8k/example_model_solutions.jsonl` and `math500/test500.jsonl`; answers like AIME's
and AMC's (three digits, a letter) are made here.

  false negatives   every reference answer, stated in each of the phrasings, must be right for itself
  false positives   of pairs of different reference answers none may be the same; pairs that are (`90^\circ` and 90,
                    `x=5` and 5) are listed, to be looked at
  solutions         the published verdicts on GSM8K's example solutions
  speed             answers a second of one process, each a new one

Beside ours stands stock math-verify, `verify(parse(gold), parse(response))`. The last line is one JSON object.
"""

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from openrlhf_prm.answers.checkers import math_answer
from openrlhf_prm.answers.comparison import same_answer
from openrlhf_prm.evaluation.versions import versions
from vllm_prm.durable_file import write_atomically

PHRASINGS = {
    "the answer is": "Some steps.\nThe answer is {}.",
    "boxed": "So we get $\\boxed{{{}}}$.",
    "####": "Some steps.\n#### {}",
    "Answer:": "Answer: {}",
    "bold line": "**Answer: {}**",
    "bold": "Answer: **{}**",
    "display, brackets": "The final answer is:\n\\[\n{}\n\\]",
    "display, dollars": "The final answer is:\n$$\n{}\n$$",
    "heading": "## Answer\n\n${}$",
    "display in a line": "Answer: \\[ {} \\]",
    "I hope": "Final Answer: The final answer is ${}$. I hope it is correct.",
    "letter A": "A: {}",
    "therefore": "The answer is therefore {}.",
    "code": "Answer: `{}`",
    "after thinking": "<think>Is it \\boxed{{0}}?</think>\nThe answer is ${}$.",
}
OF_NUMBERS = {
    "dollars": "The answer is {} dollars.",
    "dollars per week": "The answer is {} dollars per week.",
    "boxed people": "\\boxed{{{} people}}",
    "because": "The answer is {} because 3 + 5 = 8.",
}
SOLUTIONS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def stock(response: str, gold: str) -> bool:
    """math-verify as its README uses it."""
    from math_verify import parse, verify

    return bool(verify(parse(f"${gold}$"), parse(response)))


def misses(golds: Iterable[str], phrasing: str, judge: Callable[[str, str], bool]) -> list[str]:
    """The answers that are wrong for themselves."""
    return [gold for gold in golds if not judge(phrasing.format(gold), gold)]


def references(data: Path) -> dict[str, list[str]]:
    """Name of a data set -> its reference answers."""
    gsm8k = [json.loads(line)["answer"].rpartition("####")[2].strip() for line in open(data / "gsm8k/test.jsonl")]
    math500 = [json.loads(line)["answer"] for line in open(data / "math500/test500.jsonl")]
    return {"gsm8k": gsm8k, "math500": math500, "aime": [f"{n:03d}" for n in range(1000)], "amc": list("ABCDE")}


def same_pairs(answers: list[str], count: int, seed: int) -> tuple[list[tuple[str, str]], float]:
    """Of `count` pairs of different texts those judged the same, and pairs a second."""
    rng, pairs = random.Random(seed), set()
    while len(pairs) < count:
        pairs.add(tuple(rng.sample(answers, 2)))
    start = time.perf_counter()
    same = [pair for pair in sorted(pairs) if same_answer(*pair)]
    return same, count / (time.perf_counter() - start)


def solution_verdicts(data: Path) -> dict[str, int]:
    """How many published verdicts on GSM8K's example solutions ours agrees with."""
    agreed = total = 0
    for line in open(data / "gsm8k/example_model_solutions.jsonl"):
        row = json.loads(line)
        for name in SOLUTIONS:
            total += 1
            agreed += math_answer(row[name]["solution"], row["ground_truth"]) == row[name]["is_correct"]
    return {"solutions": total, "agreed": agreed}


def main() -> int:
    """Measures, writes `--output`, prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with gsm8k/ and math500/")
    parser.add_argument(
        "--output", type=Path, default=Path("benchmarks/results/answers.json"), help="JSON file to write"
    )
    parser.add_argument("--pairs", type=int, default=5000, help="pairs of different answers")
    parser.add_argument(
        "--stock", type=int, default=100, help="answers of each data set for stock math-verify, 0: none"
    )
    args = parser.parse_args()
    for file in ("gsm8k/test.jsonl", "gsm8k/example_model_solutions.jsonl", "math500/test500.jsonl"):
        if not (args.data / file).is_file():
            parser.error(f"--data: there is no file {args.data / file}")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    golds = references(args.data)
    negatives: dict[str, dict] = {}
    for name, answers in golds.items():
        phrasings = PHRASINGS | (OF_NUMBERS if name in ("gsm8k", "aime") else {})
        for phrasing, text in phrasings.items():
            start = time.perf_counter()
            missed = misses(answers, text, math_answer)
            row = {"missed": len(missed), "of": len(answers), "examples": missed[:5]}
            row["answers_per_s"] = round(len(answers) / (time.perf_counter() - start))
            if args.stock:
                sample = answers[:: max(1, len(answers) // args.stock)]
                row["stock_missed"] = f"{len(misses(sample, text, stock))} of {len(sample)}"
            negatives[f"{name}, {phrasing}"] = row
            print(f"{name:8} {phrasing:20} {row}", flush=True)
    distinct = list(dict.fromkeys(golds["math500"]))
    same, rate = same_pairs(distinct, args.pairs, seed=0)
    print(f"pairs judged the same: {same}", flush=True)
    solutions = solution_verdicts(args.data)
    result = {
        "false_negatives": negatives,
        "same_pairs": same,
        "pairs": args.pairs,
        "pairs_per_s": round(rate),
        **solutions,
        "command": f"python -m benchmarks.answers --pairs {args.pairs} --stock {args.stock}",
        "versions": versions(),
    }
    write_atomically(args.output, json.dumps(result, indent=2) + "\n")
    worst = max(row["missed"] / row["of"] for row in negatives.values())
    print(json.dumps({"worst_false_negatives": worst, "same_pairs": len(same), "pairs": args.pairs, **solutions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
