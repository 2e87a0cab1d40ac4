"""A system of `benchmarks.step_scoring` in a process of its own, which measures what it is told, when it is told.

Compared systems are up at the same time and take turns every few seconds, so that other work on the machine falls on
both. They wait without spinning.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.step_scoring import PARTS
from benchmarks.step_scoring_systems import SYSTEMS, Solution, System
from openrlhf_prm.cluster.accelerator import on_cpu

WARM_UP: list[Solution] = [
    (f"Warm-up question {number}?", [f"A first step of {number} words.", "A second one.", "The end."])
    for number in range(8)
]


def load_solutions(data: Path, items: int, longest: bool) -> list[Solution]:
    """The first `items` solutions of a ProcessBench file, or the `longest` ones in the file's order. `ValueError` if it
    is no such file or holds fewer."""
    try:
        solutions = [(row["problem"], row["steps"]) for row in json.loads(data.read_text())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--data {data}: not a ProcessBench file ({error!r})") from error
    if len(solutions) < items:
        raise ValueError(f"--items {items}: {data} has {len(solutions)} solutions")
    if longest:
        by_length = sorted(range(len(solutions)), key=lambda number: -sum(map(len, solutions[number][1])))
        return [solutions[number] for number in sorted(by_length[:items])]
    return solutions[:items]


def growing(solutions: Sequence[Solution]) -> list[list[tuple[int, Solution]]]:
    """Round s: every solution with at least s steps, cut after the s-th, with its number."""
    longest = max((len(steps) for _, steps in solutions), default=0)
    return [
        [
            (number, (question, steps[:count]))
            for number, (question, steps) in enumerate(solutions)
            if len(steps) >= count
        ]
        for count in range(1, longest + 1)
    ]


def measure(system: System, part: str, solutions: Sequence[Solution]) -> dict:
    """Whole solutions, or the same step by step, all of them advancing together as in a search: seconds on the clock
    and of processors, tokens, scores."""

    def work() -> list[list[float]]:
        if part == "whole":
            return system.whole(solutions)
        scores: list[list[float]] = [[] for _ in solutions]
        for group in growing(solutions):
            answers = system.newest([solution for _, solution in group])
            for (number, _), score in zip(group, answers, strict=True):
                scores[number].append(score)
        return scores

    system.forget()
    before = system.computed()
    started, of_processors = time.perf_counter(), time.process_time()
    scores = work()  # ends with the scores in Python's hands, so a GPU has nothing left to do
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - of_processors,
        "computed_tokens": system.computed() - before,
        "solution_tokens": sum(len(system.family.render(*solution).token_ids) for solution in solutions),
        "scores": scores,
    }


def settings(threads: int) -> dict[str, str]:
    """Environment of a process with an engine."""
    return {
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait do not spin: where others use the cores too, that would slow every system.
        "OMP_WAIT_POLICY": "passive",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        **({"TORCHDYNAMO_DISABLE": "1"} if on_cpu() else {}),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


class Worker:
    """The other end: starts the process, asks it for one part at a time. `RuntimeError` with the end of its log if it
    ends."""

    def __init__(self, system: str, folder: Path, data: Path, items: int, longest: bool, threads: int) -> None:
        self.system, self.log = system, folder.parent / f"{system}.log"
        arguments = [system, str(folder), str(data), str(items), str(int(longest))]
        receiving, sending = os.pipe()
        with self.log.open("wb") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.step_scoring_worker", str(sending), *arguments],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=subprocess.STDOUT,
                pass_fds=[sending],
                env={**os.environ, **settings(threads)},
            )
        os.close(sending)
        self.answers = os.fdopen(receiving)
        self._answer()

    def measure(self, part: str) -> dict:
        """The figures of `part`, and the machine's load before it."""
        load = os.getloadavg()[0]
        self.process.stdin.write(f"{part}\n".encode())
        self.process.stdin.flush()
        return {**self._answer(), "load_before": load}

    def _answer(self) -> dict:
        if not (line := self.answers.readline()):
            self.process.wait()
            end = self.log.read_bytes()[-4000:].decode(errors="replace")
            raise RuntimeError(f"measuring {self.system} failed:\n{end}\nthe whole log is in {self.log}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()


def main(argv: Sequence[str]) -> None:
    """The process: a first answer when the system is up, then one for each line of stdin."""
    sending, name, folder, data, items, longest = argv
    solutions = load_solutions(Path(data), int(items), bool(int(longest)))
    with os.fdopen(int(sending), "w", buffering=1) as answers:
        system = SYSTEMS[name](Path(folder))
        for part in PARTS if system.newest else PARTS[:1]:
            measure(system, part, WARM_UP)
        print(json.dumps({"parts": PARTS if system.newest else PARTS[:1]}), file=answers)
        for line in sys.stdin:
            print(json.dumps(measure(system, line.strip(), solutions)), file=answers)


if __name__ == "__main__":
    main(sys.argv[1:])
