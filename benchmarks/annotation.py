"""What a located error costs, and what the labels are worth, by annotator: `python -m benchmarks.annotation`.

    planted   chains of 8, 16 and 32 steps with a known first error (`benchmarks.planted`), policy right in half of its
              responses, never recovering from an error or in 5% of the continuations. A simulation: no model runs.
    real      solutions of a policy (`--policy`) of the arithmetic task, whose exact checker knows the first error.
    scaling   the scheduler and the label file over 1, 8 and 64 stub engines of fixed latency. A simulation: no engine
              computes anything; it shows what the scheduler itself allows.

Methods: `brute` (8 rollouts after every step), `sequential` (8 per step, stopping at the first value 0: Math-Shepherd
with early stop; solutions that begin with the same tokens share rollouts), `sequential_alone` (each solution by itself,
as public annotators do; on planted chains, where no two solutions begin alike, the same), `binary` (8 per halving),
`adaptive` (defaults), `adaptive_positive` (rule MC > 0), `omega_prm` (its own rollouts of the same questions; 8 per
halving); `..._fresh` without `count_endings`. All but `omega_prm` label the same wrong solutions. Tokens are rollout
tokens; those of the solutions, which every method needs, are not counted. A located error is a wrong solution whose
first error was searched. `label_accuracy`: share of the labels of these solutions that equal the exact ones.

`labels_per_s` on the real policy, all solutions: `one_at_a_time` is a loop over the questions with one request in
flight, stopping at the first value 0, on the same engine. Labels of solutions that are right count too.

Each part's figures are kept in OUTPUT as they are made, so an interrupted run goes on there. The last line is a JSON
object. `--quick` is a small run of everything that needs no model.
"""

import argparse
import asyncio
import json
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.planted import Lines, PlantedEngine, exact_labels, is_right
from openrlhf_prm.annotation.adaptive import Adaptive
from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.math_shepherd import MathShepherd
from openrlhf_prm.annotation.omega_prm import OmegaPRM
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root
from openrlhf_prm.annotation.scheduler import annotate_all
from openrlhf_prm.cluster.workers import Completion
from openrlhf_prm.data.background_writer import BackgroundWriter
from openrlhf_prm.data.questions import Question
from vllm_prm.durable_file import write_atomically

ROLLOUTS = 8
SOLUTIONS = 8
STEPS = (8, 16, 32)
RECOVERIES = (0.0, 0.05)

Checker = Callable[[str, Sequence[str]], list]


@dataclass(frozen=True)
class Method:
    """An annotator with its options. `wrong_only`: it needs no right solution to label a wrong one. `alone`: it
    sees one solution at a time. `real`: on planted chains, where no two solutions begin alike, it is another one.
    """

    annotator: type
    options: dict
    own_solutions: bool = False
    wrong_only: bool = False
    alone: bool = False
    real: bool = False


FRESH = {"count_endings": False}
"""For solutions that were chosen for being wrong, whose endings are no samples of what the policy does."""
METHODS = {
    "brute": Method(MathShepherd, {"rollouts": ROLLOUTS, "stop_at_zero": False, **FRESH}, wrong_only=True),
    "sequential": Method(MathShepherd, {"rollouts": ROLLOUTS, **FRESH}, wrong_only=True),
    "sequential_alone": Method(MathShepherd, {"rollouts": ROLLOUTS, **FRESH}, wrong_only=True, alone=True),
    "binary": Method(Adaptive, {"rollouts": ROLLOUTS, "round": ROLLOUTS, "rule": "positive"}),
    "omega_prm": Method(OmegaPRM, {"rollouts": ROLLOUTS, "searches": 16}, own_solutions=True),
    "adaptive_positive": Method(Adaptive, {"rule": "positive"}),
    "adaptive": Method(Adaptive, {}),
    "omega_prm_fresh": Method(OmegaPRM, {"rollouts": ROLLOUTS, "searches": 16, **FRESH}, own_solutions=True, real=True),
    "adaptive_positive_fresh": Method(Adaptive, {"rule": "positive", **FRESH}, real=True),
    "adaptive_fresh": Method(Adaptive, FRESH, real=True),
}


class GivenSolutions:
    """An engine whose first samples of each question are given; all else goes to the engine behind it."""

    def __init__(self, engine, given: dict[tuple[int, ...], list[Completion]]):
        self.engine = engine
        self.given = dict(given)

    async def generate(self, prompt: list[int], *, n: int, **sampling) -> list[Completion]:
        solutions = self.given.pop(tuple(prompt), None)
        if solutions is None:
            return await self.engine.generate(prompt, n=n, **sampling)
        assert len(solutions) == n
        return solutions


@dataclass(frozen=True)
class Task:
    """Questions with the solutions to label, the engine and the judges."""

    engine: object
    tokenizer: object
    is_correct: Callable[[str, str], bool]
    exact: Checker
    questions: list[Question]
    solutions: dict[str, list[Completion]]
    max_new_tokens: int

    def annotators(self, method: Method, question: Question) -> list:
        """The method on one question, with the solutions it labels; one annotator for each where they stand alone."""
        given = self.solutions[question.id]
        if method.wrong_only:
            given = [one for one in given if one.truncated or not self.is_correct(one.text, question.label)]
        if method.own_solutions:
            return [self._annotator(method, self.engine, {})]
        prompt = tuple(self.tokenizer(question.question, add_special_tokens=False)["input_ids"])
        groups = [[one] for one in given] if method.alone else [given]
        return [
            self._annotator(
                method, GivenSolutions(self.engine, {prompt: group}), {"solutions_per_question": len(group)}
            )
            for group in groups
        ]

    def _annotator(self, method: Method, engine, more: dict):
        options = method.annotator.Options(**{"max_new_tokens": self.max_new_tokens, **method.options, **more})
        return method.annotator(engine, self.tokenizer, self.is_correct, options)


async def measure(task: Task, method: Method, in_flight: int = 64) -> dict:
    """Cost and worth of one method's labels of wrong solutions."""
    usage, totals = Counter(), Counter()
    places = asyncio.Semaphore(in_flight)

    async def annotate(question: Question) -> None:
        async with places:
            answers = [
                await annotator.annotate(question.question, question.label)
                for annotator in task.annotators(method, question)
            ]
        for annotated in answers:
            usage.update(annotated.usage)
        for solution in (solution for annotated in answers for solution in annotated.solutions):
            if not solution.correct and solution.steps:
                exact = [int(label) for label in task.exact(question.question, solution.steps)]
                first, true = (labels.index(0) if 0 in labels else None for labels in (solution.hard_labels, exact))
                totals["errors"] += 1
                totals["exact_first"] += first == true
                totals["steps"] += len(exact)
                totals["right_labels"] += sum(a == b for a, b in zip(solution.hard_labels, exact, strict=True))

    await asyncio.gather(*map(annotate, task.questions))
    errors = totals["errors"]
    return {
        "errors": errors,
        "rollouts_per_error": round(usage["rollouts"] / errors, 2),
        "tokens_per_error": round(usage["rollout_tokens"] / errors, 1),
        "label_accuracy": round(totals["right_labels"] / totals["steps"], 4),
        "exact_first_error": round(totals["exact_first"] / errors, 4),
        "reused_rollouts_per_error": round(usage["reused_rollouts"] / errors, 2),
    }


def usable(questions: Sequence[Question], solutions: dict[str, list[Completion]], is_correct) -> list[Question]:
    """The questions with right and wrong solutions: without a right one no method can tell the steps apart."""

    def right(question: Question) -> int:
        return sum(not one.truncated and is_correct(one.text, question.label) for one in solutions[question.id])

    return [question for question in questions if 0 < right(question) < len(solutions[question.id])]


async def planted_task(steps: int, recovery: float, count: int, seed: int) -> Task:
    """Planted chains with solutions sampled from them."""
    engine = PlantedEngine(random.Random(f"{seed}-{steps}-{recovery}"), steps=steps, accuracy=0.5, recovery=recovery)
    questions = [Question(str(index), f"Q{index}?\n", "right") for index in range(count)]
    solutions = {
        question.id: await engine.generate([*map(ord, question.question)], n=SOLUTIONS, max_tokens=0)
        for question in questions
    }
    chosen = usable(questions, solutions, is_right)

    def exact(question: str, lines: Sequence[str]) -> list[int]:
        return exact_labels(lines)

    return Task(engine, Lines(), is_right, exact, chosen, solutions, max_new_tokens=100_000)


def planted_cells(args) -> dict[str, Callable[[], dict]]:
    """Name of a cell -> what makes its figures."""

    def cell(steps: int, recovery: float, method: Method) -> dict:
        async def run() -> dict:
            return await measure(await planted_task(steps, recovery, args.chains, args.seed), method)

        return asyncio.run(run())

    return {
        f"planted/{steps} steps/recovery {recovery}/{name}": lambda s=steps, r=recovery, m=method: cell(s, r, m)
        for steps in STEPS
        for recovery in RECOVERIES
        for name, method in METHODS.items()
        if not (method.alone or method.real)
    }


class StubEngine:
    """An engine that answers every question after `seconds`, with labels made beforehand."""

    def __init__(self, seconds: float, labels: int):
        self.seconds = seconds
        ones, values = [1] * labels, [1.0] * labels
        text = ["step"] * labels
        solution = LabelledSolution("", text, values, ones, values, ones, ones, ones, True, False, ones)
        self.answer = AnnotatedQuestion(Root(1, 2), [solution], {"rollouts": 2 * labels})

    async def annotate(self, question: Question) -> AnnotatedQuestion:
        await asyncio.sleep(self.seconds)
        return self.answer

    async def recover(self) -> None:
        raise AssertionError("stub engines do not die")


def scaling_cells(args) -> dict[str, Callable[[], dict]]:
    """Labels per second of the scheduler over stub engines, 32 questions in flight each, against latency alone."""

    def cell(engines: int, seconds: float = 1.0, in_flight: int = 32, labels: int = 16) -> dict:
        count = engines * in_flight * args.rounds
        questions = [Question(str(index), f"Q{index}?", "1") for index in range(count)]

        async def run(file: LabelFile) -> float:
            start = time.perf_counter()
            async with BackgroundWriter(file) as writer:
                await annotate_all(questions, [StubEngine(seconds, labels)] * engines, in_flight, writer.add)
            return time.perf_counter() - start

        with tempfile.TemporaryDirectory() as folder, LabelFile(Path(folder) / "labels.jsonl", {}) as file:
            took = asyncio.run(run(file))
        ideal = engines * in_flight / seconds * labels
        return {"labels_per_s": round(count * labels / took), "share_of_ideal": round(count * labels / took / ideal, 3)}

    return {f"scaling/{engines} engines": lambda e=engines: cell(e) for engines in (1, 8, 64)}


def real_cells(args) -> dict[str, Callable[[], dict]]:
    """The methods on real solutions, one after the other on one engine, which starts with the first cell."""
    started: dict[str, Task] = {}

    def task() -> Task:
        if not started:
            started["task"] = asyncio.run(_real_task(args))
        return started["task"]

    def throughput(method: Method, count: int, in_flight: int, one_request: bool) -> dict:
        whole = task()
        questions = whole.questions[:count]

        async def run() -> dict:
            labels, lock = 0, asyncio.Lock()
            places = asyncio.Semaphore(in_flight)
            engine = OneAtATime(whole.engine, lock) if one_request else whole.engine
            sampling = {"max_new_tokens": whole.max_new_tokens}
            if not method.own_solutions:
                sampling["solutions_per_question"] = SOLUTIONS
            options = method.annotator.Options(**{**sampling, **method.options})
            annotator = method.annotator(engine, whole.tokenizer, whole.is_correct, options)

            async def annotate(question: Question) -> int:
                async with places:
                    annotated = await annotator.annotate(question.question, question.label)
                return sum(len(solution.steps) for solution in annotated.solutions)

            start = time.perf_counter()
            labels = sum(await asyncio.gather(*map(annotate, questions)))
            seconds = time.perf_counter() - start
            return {"labels": labels, "seconds": round(seconds, 1), "labels_per_s": round(labels / seconds, 1)}

        return asyncio.run(run())

    cells: dict[str, Callable[[], dict]] = {
        f"real/{name}": lambda m=METHODS[name]: asyncio.run(measure(task(), m)) for name in args.methods
    }
    sequential = METHODS["sequential"]
    few = max(4, args.questions // 8)
    cells["throughput/one_at_a_time"] = lambda: throughput(sequential, few, 1, one_request=True)
    for name in ("sequential", "omega_prm", "adaptive"):
        method = METHODS[name]
        cells[f"throughput/{name}"] = lambda m=method: throughput(m, args.questions, 256, one_request=False)
    return cells


class OneAtATime:
    """An engine that is asked one thing at a time, as the public annotators ask it."""

    def __init__(self, engine, lock: asyncio.Lock):
        self.engine = engine
        self.lock = lock

    async def generate(self, prompt: list[int], **sampling) -> list[Completion]:
        async with self.lock:
            return await self.engine.generate(prompt, **sampling)


async def _real_task(args) -> Task:
    from openrlhf_prm.cluster.accelerator import on_cpu, prepare_environment

    prepare_environment()
    from transformers import AutoTokenizer

    from openrlhf_prm.answers.checkers import exact_answer
    from openrlhf_prm.cluster.session import start_ray
    from openrlhf_prm.cluster.workers import EngineOptions, GenerationPool
    from openrlhf_prm.tasks import arithmetic

    start_ray({})
    extra = {"block_size": 32} if on_cpu() else {}
    gpus = 0.0 if on_cpu() else 1.0
    engine = GenerationPool(EngineOptions(args.policy, gpus=gpus, seed=args.seed, extra=extra))
    tokenizer = AutoTokenizer.from_pretrained(args.policy)
    mix = arithmetic.HabitMix(carry=0.1, additions=(7, 8, 9), named=True) if args.long else None
    pairs = arithmetic.questions("tune", args.questions, args.seed, mix)
    questions = [Question(str(index), text, answer) for index, (text, answer) in enumerate(pairs)]
    prompts = [tokenizer(question.question, add_special_tokens=False)["input_ids"] for question in questions]
    sampled = await asyncio.gather(
        *[engine.generate(ids, n=SOLUTIONS, max_tokens=args.max_new_tokens, temperature=1.0) for ids in prompts]
    )
    solutions = {question.id: completions for question, completions in zip(questions, sampled, strict=True)}
    chosen = usable(questions, solutions, exact_answer)
    print(f"real: {len(chosen)} of {len(questions)} questions have right and wrong solutions", file=sys.stderr)
    return Task(engine, tokenizer, exact_answer, arithmetic.check_steps, chosen, solutions, args.max_new_tokens)


def summarise(cells: dict[str, dict]) -> dict:
    """The last line: figures by place and method, and the ratios against `sequential`."""
    by_place: dict[str, dict[str, dict]] = {}
    for name, figures in cells.items():
        place, _, method = name.rpartition("/")
        by_place.setdefault(place, {})[method] = figures
    summary: dict[str, dict] = {"tokens_per_error": {}, "label_accuracy": {}, "exact_first_error": {}, "ratio": {}}
    for place, methods in by_place.items():
        for key in ("tokens_per_error", "label_accuracy", "exact_first_error"):
            if any(key in figures for figures in methods.values()):
                summary[key][place] = {method: figures[key] for method, figures in methods.items() if key in figures}
        if {"sequential", "adaptive"} <= methods.keys() and "tokens_per_error" in methods["adaptive"]:
            ratio = methods["sequential"]["tokens_per_error"] / methods["adaptive"]["tokens_per_error"]
            summary["ratio"][place] = round(ratio, 2)
    rates = by_place.get("throughput", {})
    summary["labels_per_s"] = {method: figures["labels_per_s"] for method, figures in rates.items()}
    if {"one_at_a_time", "adaptive"} <= rates.keys():
        summary["ratio"]["labels_per_s"] = round(
            rates["adaptive"]["labels_per_s"] / rates["one_at_a_time"]["labels_per_s"], 2
        )
    summary["scheduler_simulation"] = by_place.get("scaling", {})
    return summary


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing in OUTPUT and prints the summary."""
    parser = argparse.ArgumentParser(prog="benchmarks.annotation", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--output", default="benchmarks/results/annotation.json", help="JSON file of the figures; continued if there")
    add("--parts", nargs="+", default=["planted", "scaling", "real"], choices=["planted", "scaling", "real"])
    add("--policy", default="benchmarks/policies/short", help="checkpoint of an arithmetic policy, for real")
    add("--questions", type=int, default=200, help="real: questions; those of mixed outcome are used")
    add("--long", action="store_true", help="real: chains of 7 to 9 additions with named operands")
    add("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="real: which ones")
    add("--max_new_tokens", type=int, default=256, help="real: limit of a response")
    add("--chains", type=int, default=100, help="planted: questions of 8 solutions")
    add("--rounds", type=int, default=10, help="scaling: questions per place")
    add("--seed", type=int, default=0)
    add("--quick", action="store_true", help="a small run without a model")
    args = parser.parse_args(argv)
    if args.quick:
        args.parts, args.chains, args.rounds = ["planted", "scaling"], 4, 2
    output = Path(args.output)
    names = ("policy", "questions", "long", "max_new_tokens", "chains", "rounds", "seed")
    settings = {key: vars(args)[key] for key in names}
    state = {"settings": settings, "machine": platform.processor() or platform.machine(), "cells": {}}
    if output.exists():
        state = json.loads(output.read_text())
        if state["settings"] != settings:
            parser.error(f"{output} was made with other settings ({state['settings']}); choose another --output")
    makers = {"planted": planted_cells, "scaling": scaling_cells, "real": real_cells}
    for part in args.parts:
        for name, make in makers[part](args).items():
            if name not in state["cells"]:
                start = time.perf_counter()
                state["cells"][name] = make()
                print(f"{name}: {state['cells'][name]} ({time.perf_counter() - start:.1f} s)", file=sys.stderr)
                write_atomically(output, json.dumps(state, indent=1) + "\n")
    print(json.dumps(summarise(state["cells"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
