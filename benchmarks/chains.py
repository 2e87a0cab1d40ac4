"""How many chains an hour `openrlhf-prm generate` writes: `python -m benchmarks.chains`.

    scaling   1, 2 and 8 stub engines, each of which answers 16 calls at a time in 50 ms. A simulation: no model runs;
              it shows what the generator itself allows. `ideal` is what the engines alone would do.
    real      a policy of the arithmetic task on one engine of vLLM, with the task's own checker as critic: questions in
              flight together, and one question at a time on the same engine (`one_at_a_time`).

Chains are of `--scheme deliberate` without a planner and without a verifier, which the arithmetic policy cannot play.
Each part's figures are kept in OUTPUT as they are made, so an interrupted run goes on there.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.runs import POLICY, Cells, main, parser
from openrlhf_prm.annotation.scheduler import annotate_all
from openrlhf_prm.cli import generate
from openrlhf_prm.cli.parser import nested
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.data.questions import Question, write_question_file
from openrlhf_prm.generation.chains.asking import Answer
from openrlhf_prm.generation.chains.checks import faults
from openrlhf_prm.generation.chains.generating import ChainWriter
from openrlhf_prm.generation.chains.roles import Role
from openrlhf_prm.generation.chains.starting import started_models
from openrlhf_prm.generation.chains.task import Generation
from openrlhf_prm.tasks import arithmetic

LATENCY_S, PLACES = 0.05, 16
ENGINES = (1, 2, 8)
ROLES = """
separator: "\\n"
roles: {elaborator: {form: text, prompt: "{question}{steps}", stop: ["\\n"], max_tokens: 64}}
"""


class StubEngine:
    """Answers after `LATENCY_S`, `PLACES` calls at a time: the quick habit, which is wrong where there is a carry, or
    the careful one.
    """

    def __init__(self):
        self.places = asyncio.Semaphore(PLACES)
        self.calls = 0

    async def answer(self, role: Role, system: str, prompt: str, seed: int) -> Answer:
        """The next step, by the seed."""
        async with self.places:
            await asyncio.sleep(LATENCY_S)
        self.calls += 1
        question, *done = prompt.rstrip("\n").split("\n")
        operands = arithmetic.operands_of(question)
        if len(done) == len(operands) - 1:
            return Answer(f"Answer: {sum(operands)}", 3, 20, False)
        habit = arithmetic.quick_step if random.Random(seed).random() < 0.6 else arithmetic.careful_step
        return Answer(habit(sum(operands[: len(done) + 1]), operands[len(done) + 1])[0], 9, 20, False)


class StubEngines:
    """Several, the next one asked each time."""

    def __init__(self, count: int):
        self.engines, self.next = [StubEngine() for _ in range(count)], 0

    async def answer(self, *asked: Any) -> Answer:
        """Of the engine whose turn it is."""
        self.next += 1
        return await self.engines[self.next % len(self.engines)].answer(*asked)


async def rate(task: Generation, models: Mapping, questions: list[Question], in_flight: int) -> dict:
    """Chains per hour, and what came of them."""
    writer, rows = ChainWriter(task, models, None, len), []
    began = time.perf_counter()
    await annotate_all(questions, [writer], in_flight, lambda question, row: rows.append(row))
    seconds = time.perf_counter() - began
    return {
        "questions": len(rows),
        "kept": sum(not faults(row, task.length) for row in rows),
        "calls": sum(row["calls"] for row in rows),
        "seconds": round(seconds, 2),
        "chains_per_hour": round(len(rows) / seconds * 3600),
    }


def scaling_cells(task: Generation, per_engine: int) -> dict[str, Callable[[], dict]]:
    """`per_engine` questions for each engine, enough in flight to keep all busy."""

    def cell(engines: int) -> dict:
        questions = list(task.run.questions)[: per_engine * engines]
        models = {"policy": StubEngines(engines)}
        found = asyncio.run(rate(task, models, questions, 4 * PLACES * engines))
        ideal = found["questions"] / (found["calls"] * LATENCY_S / PLACES / engines) * 3600
        return {**found, "ideal": round(ideal), "share_of_ideal": round(found["chains_per_hour"] / ideal, 3)}

    return {f"scaling/{engines}": lambda engines=engines: cell(engines) for engines in ENGINES}


def real_cells(task: Generation, models: Mapping, count: int) -> dict[str, Callable[[], dict]]:
    """Together, and one at a time on an eighth of the questions, with one engine for both."""
    questions, few = list(task.run.questions)[:count], max(4, count // 8)
    return {
        "real/together": lambda: asyncio.run(rate(task, models, questions, count)),
        "real/one_at_a_time": lambda: asyncio.run(rate(task, models, questions[:few], 1)),
    }


def task_for(folder: Path, policy: str, count: int, seed: int) -> Generation:
    """What `generate` would do with questions of the arithmetic task."""
    data = write_question_file(folder / "questions.jsonl", arithmetic.questions("train", count, seed))
    (folder / "roles.yaml").write_text(ROLES)
    flags = ["--actor.model_name_or_path", policy, "--data.input", str(data), "--train.seed", str(seed)]
    flags += ["--data.output", str(folder / "chains.jsonl"), "--roles", str(folder / "roles.yaml")]
    flags += ["--chain.no_plan", "--chain.no_recheck", "--critic.kind", "exact", "--critic.task", "arithmetic"]
    return generate.task_of(nested(generate.build_parser().parse_args(flags)))


def measure(args: argparse.Namespace) -> dict:
    """Runs what is missing in the output; chains per hour by cell, and the ratio of the real ones."""
    settings = {name: getattr(args, name) for name in ("questions", "seed")}
    settings |= {"policy": Path(args.policy).name, "latency_s": LATENCY_S, "places": PLACES}
    prepare_environment()
    task = task_for(args.work_dir, args.policy, args.questions * max(ENGINES), args.seed)
    results = Cells(args.output, settings, args.fresh)
    if "scaling" in args.parts:
        results.fill(scaling_cells(task, args.questions), args.seconds)
    if "real" in args.parts:
        with started_models(task) as (models, _):
            asyncio.run(rate(task, models, list(task.run.questions)[:8], 8))  # what an engine does once
            results.fill(real_cells(task, models, args.questions), args.seconds)
    summary = {name: figures["chains_per_hour"] for name, figures in results.filled.items()}
    if {"real/together", "real/one_at_a_time"} <= summary.keys():
        summary["ratio"] = round(summary["real/together"] / summary["real/one_at_a_time"], 1)
    results.write(summary)
    return summary


def build_parser() -> argparse.ArgumentParser:
    """The flags of this benchmark."""
    flags = parser("chains", __doc__)
    flags.add_argument("--parts", nargs="+", default=["scaling", "real"], choices=["scaling", "real"])
    flags.add_argument("--policy", default=str(POLICY), help="real: checkpoint of an arithmetic policy")
    flags.add_argument("--questions", type=int, default=400, help="real: questions; scaling: for each engine")
    flags.add_argument("--seed", type=int, default=0, help="of the questions and the calls")
    return flags


if __name__ == "__main__":
    sys.exit(main("chains", measure, build_parser().parse_args()))
