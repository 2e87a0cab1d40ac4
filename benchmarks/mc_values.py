"""Values of the states between steps: naive VinePPO against the branches of `openrlhf_prm.rollout`.

Solutions of the quickstart's policy are sampled once. Truth is the mean outcome of `--truth` continuations per state.

  naive   K fresh continuations of every state of every solution, the question included, each a request of its own on an
          engine without prefix caching (VinePPO as published, arXiv:2410.01679: K = 9)
  ours    `BranchSampler` on an engine that has just written the solutions: a state that several solutions pass is
          sampled once, the question's value is the mean outcome of the other solutions, groups with one outcome are
          skipped (their states get that outcome as value), K is adaptive, and optionally a PRM is the control variate

How many branches ours takes is chosen on questions of the tune split: the cheapest of SETTINGS whose mean absolute
error is not above naive's there. It is then measured on the test split. Errors are means over all states of all
solutions, so a state that many solutions pass counts as often. Tokens are generated plus prefilled ones (with the
control variate also those that the PRM computed); the solutions themselves, which both need, are not counted.

The last line of output is one JSON object: `naive_tokens, tokens, naive_s, s, naive_mae, mae`, means over
--repeats, with their ratios and the chosen setting.
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.demonstration_prms import Labels, train
from benchmarks.runs import POLICY, Cells, main, parser, positive
from openrlhf_prm.accelerator import prepare_environment
from openrlhf_prm.files import write_atomically
from openrlhf_prm.tasks.arithmetic import HabitMix, questions

MIX = HabitMix(carry=0.18)
GROUP, LIMIT, NAIVE_K = 8, 200, 9


@dataclass(frozen=True)
class Setting:
    """Options of `VineOptions`, and whether the PRM is the control variate."""

    k: int
    k_min: int = 3
    half_width: float = 0.0
    control_variate: bool = False
    probes: int = 8

    @property
    def name(self) -> str:
        adaptive = f", from {self.k_min}, half width {self.half_width}" if self.half_width else ""
        return f"k {self.k}{adaptive}" + (f", PRM, {self.probes} probes" if self.control_variate else "")


# half_width 0.285 stops after three equal outcomes, 0.25 after four, 0.2 after six.
PLAIN = [
    *(Setting(k) for k in (4, 6, 9)),
    *(Setting(k, k_min, width) for k, k_min, width in ((12, 3, 0.285), (12, 4, 0.25), (18, 6, 0.2))),
]
WITH_PRM = [Setting(3, control_variate=True), Setting(9, 3, 0.285, control_variate=True)]
SETTINGS = PLAIN + WITH_PRM


@dataclass(frozen=True)
class Solution:
    """One response: its question, tokens with the prompt, where the prompt and the steps end in them, step texts and
    outcome.
    """

    question: str
    label: str
    tokens: list[int]
    start: int
    ends: list[int]
    texts: list[str]
    outcome: float

    def states(self) -> list[tuple[int, ...]]:
        """The prefixes before each step, the question first."""
        return [tuple(self.tokens[:end]) for end in (self.start, *self.ends[:-1])]


class Engine:
    """A vLLM engine with the interface that `BranchSampler` asks of the rollout actor, and its token counters."""

    def __init__(self, policy: Path, caching: bool, seed: int):
        import vllm

        self.vllm = vllm
        self.engine = vllm.AsyncLLMEngine.from_engine_args(
            vllm.AsyncEngineArgs(
                model=str(policy),
                dtype="bfloat16",
                enforce_eager=True,
                enable_prefix_caching=caching,
                enable_chunked_prefill=False,
                max_num_seqs=256,
                block_size=32,
                kv_cache_memory_bytes=256 << 20,
                seed=seed,
                max_model_len=512,
            )
        )
        self.number = 0

    async def generate(self, prompt: Sequence[int], params):
        self.number += 1
        final = None
        async for output in self.engine.generate({"prompt_token_ids": list(prompt)}, params, f"r{self.number}"):
            final = output
        return final

    def sampling(self, n: int, limit: int):
        kind = self.vllm.sampling_params.RequestOutputKind.FINAL_ONLY
        return self.vllm.SamplingParams(n=n, max_tokens=limit, temperature=1.0, output_kind=kind)

    def counters(self) -> dict[str, float]:
        """Generated tokens, and prompt tokens that were computed rather than found in the cache."""
        from vllm.v1.metrics.reader import get_metrics_snapshot

        found = {metric.name: metric.value for metric in get_metrics_snapshot() if hasattr(metric, "value")}
        return {
            "generated": found["vllm:generation_tokens"],
            "prefilled": found["vllm:prompt_tokens"] - found["vllm:prompt_tokens_cached"],
        }

    def stop(self) -> None:
        self.engine.shutdown()


class Bench:
    """The engines, one at a time, and what was sampled with them."""

    def __init__(self, args):
        from transformers import AutoTokenizer

        self.args = args
        self.loop = asyncio.new_event_loop()
        self.tokenizer = AutoTokenizer.from_pretrained(POLICY)
        self.engine: Engine | None = None
        self.caching: bool | None = None
        self.scorer = None

    def engine_for(self, caching: bool) -> Engine:
        if self.engine is None or self.caching != caching:
            if self.engine is not None:
                self.engine.stop()
            self.engine, self.caching = Engine(POLICY, caching, self.args.seed), caching
        return self.engine

    def stop(self) -> None:
        if self.engine is not None:
            self.engine.stop()
        self.loop.close()

    # Solutions and truth, kept in the work folder.

    def solutions(self, split: str) -> list[Solution]:
        path = self.args.work_dir / f"{split}.solutions.json"
        if not path.exists():
            found = self.loop.run_until_complete(self._solve(split))
            write_atomically(path, json.dumps([vars(solution) for solution in found]))
        return [Solution(**row) for row in json.loads(path.read_text())]

    async def _solve(self, split: str) -> list[Solution]:
        from openrlhf_prm.steps import split_steps

        engine = self.engine_for(True)
        rows = list(questions(split, self.args.questions, self.args.seed, MIX))
        prompts = [self.tokenizer(question, add_special_tokens=False)["input_ids"] for question, _ in rows]
        outputs = await asyncio.gather(*(engine.generate(ids, engine.sampling(GROUP, LIMIT)) for ids in prompts))
        solutions = []
        for (question, label), prompt, output in zip(rows, prompts, outputs, strict=True):
            for completion in output.outputs:
                response = list(completion.token_ids)
                steps = split_steps(response, self.tokenizer, "newline")
                solutions.append(
                    Solution(
                        question,
                        label,
                        prompt + response,
                        len(prompt),
                        [len(prompt) + step.end for step in steps],
                        [step.text.rstrip() for step in steps],
                        await self._judge(question, label)(self.tokenizer.decode(response))
                        if completion.finish_reason != "length"
                        else 0.0,
                    )
                )
        return solutions

    def _judge(self, question: str, label: str):
        """As `openrlhf_prm.rewards.outcome`, of a text with or without the question."""
        from openrlhf_prm.answers import math_answer

        async def judge(text: str) -> float:
            return float(math_answer(text.removeprefix(question), label))

        return judge

    def truth(self, split: str, question: int, count: int) -> dict[tuple[int, ...], float]:
        """Mean outcomes of the states of one question's solutions."""
        path = self.args.work_dir / f"{split}.truth" / f"{question}.json"
        own = self.solutions(split)[question * GROUP : (question + 1) * GROUP]
        states = sorted({state for solution in own for state in solution.states()})
        if not path.exists():
            means = self.loop.run_until_complete(self._means(states, own[0], count))
            write_atomically(path, json.dumps(means))
        return dict(zip(states, json.loads(path.read_text()), strict=True))

    async def _means(self, states, solution: Solution, count: int) -> list[float]:
        engine = self.engine_for(True)

        async def mean(state) -> float:
            output = await engine.generate(state, engine.sampling(count, LIMIT - len(state) + solution.start))
            return statistics.fmean([await self._outcome(state, one, solution) for one in output.outputs])

        return list(await asyncio.gather(*map(mean, states)))

    async def _outcome(self, state, completion, solution: Solution) -> float:
        if completion.finish_reason == "length":
            return 0.0
        text = self.tokenizer.decode([*state, *completion.token_ids])
        return await self._judge(solution.question, solution.label)(text)

    # The two methods: values of all states of all solutions.

    def naive(self, split: str) -> dict:
        return self.loop.run_until_complete(self._naive(split))

    async def _naive(self, split: str) -> dict:
        solutions, engine = self.solutions(split), self.engine_for(False)
        await engine.generate(solutions[0].tokens[:4], engine.sampling(1, 1))  # start-up is no part of it
        before, started = engine.counters(), time.perf_counter()

        async def value(solution: Solution, state) -> float:
            limit = LIMIT - len(state) + solution.start
            outputs = await asyncio.gather(*(engine.generate(state, engine.sampling(1, limit)) for _ in range(NAIVE_K)))
            return statistics.fmean([await self._outcome(state, output.outputs[0], solution) for output in outputs])

        values = await asyncio.gather(
            *(value(solution, state) for solution in solutions for state in solution.states())
        )
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.1)  # the engine counts an iteration just after answering it
        return self._figures(split, values, engine, before, seconds)

    def ours(self, split: str, setting: Setting, coefficient: tuple[float, float]) -> dict:
        return self.loop.run_until_complete(self._ours(split, setting, coefficient))

    async def _ours(self, split: str, setting: Setting, coefficient: tuple[float, float]) -> dict:
        from openrlhf_prm.advantages.branch_values import ControlVariate, VineOptions
        from openrlhf_prm.rollout.branches import BranchSampler, Group, Origin

        solutions, engine = self.solutions(split), self.engine_for(True)
        await engine.engine.reset_prefix_cache()
        # What writing the solutions left in the cache.
        await asyncio.gather(*(engine.generate(solution.tokens, engine.sampling(1, 1)) for solution in solutions))
        scorer = self._prm() if setting.control_variate else None
        spent = scorer.usage.as_dict() if scorer else {}
        before, started = engine.counters(), time.perf_counter()

        async def score(prompt: str, steps: list[str]) -> float:
            return (await scorer.score_async(prompt, steps))[-1]

        options = VineOptions(k=setting.k, k_min=setting.k_min, half_width=setting.half_width, probes=setting.probes)
        sampler = BranchSampler(options, "newline", score if scorer else None)
        groups = [Group(GROUP) for _ in range(len(solutions) // GROUP)]
        for index, solution in enumerate(solutions):
            groups[index // GROUP].report(solution.outcome)

        async def branches(index: int, solution: Solution):
            if not await groups[index // GROUP].has_variance():
                return None
            origin = Origin(
                solution.question,
                solution.label,
                solution.tokens,
                engine.sampling(1, LIMIT),
                solution.start + LIMIT,
                self._judge(solution.question, solution.label),
            )
            return await sampler.sample(origin, solution.ends, solution.texts, engine, self.tokenizer)

        found = await asyncio.gather(*(branches(index, solution) for index, solution in enumerate(solutions)))
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.1)
        control, learned = ControlVariate(), ControlVariate()
        control.covariance, control.variance = coefficient
        values = []
        for index, (solution, states) in enumerate(zip(solutions, found, strict=True)):
            group = groups[index // GROUP].outcomes
            siblings = (sum(group) - solution.outcome) / (GROUP - 1)
            inner = [siblings] * (len(solution.ends) - 1) if states is None else map(control.value, states)
            values += [siblings, *inner]
            learned.update(states or ())
        figures = self._figures(split, values, engine, before, seconds)
        if scorer:
            after = scorer.usage.as_dict()
            figures["prm_tokens"] = after["computed_tokens"] - spent["computed_tokens"]
            figures["tokens"] += figures["prm_tokens"]
            figures["coefficient"] = [learned.covariance, learned.variance]
        met = [state for states in found for state in states or ()]
        figures["states"], figures["sampled_states"] = len(values), sum(state.fresh for state in met)
        figures["branches"] = sum(len(state.outcomes) for state in met if state.fresh)
        return figures

    def _prm(self):
        if self.scorer is None:
            from vllm_prm.scorer import StepScorer

            # Without statistics of its own, which would take the place of the policy's counters.
            self.scorer = StepScorer.from_pretrained(
                str(self.args.prm),
                engine="async",
                enforce_eager=True,
                kv_cache_memory_bytes=128 << 20,
                disable_log_stats=True,
            )
        return self.scorer

    def _figures(self, split: str, values: Sequence[float], engine: Engine, before: dict, seconds: float) -> dict:
        spent = {name: value - before[name] for name, value in engine.counters().items()}
        truth = {}
        for question in range(self.args.questions):
            truth |= self.truth(split, question, 0)
        states = [state for solution in self.solutions(split) for state in solution.states()]
        errors = [abs(value - truth[state]) for value, state in zip(values, states, strict=True)]
        return {
            **{name: round(value) for name, value in spent.items()},
            "tokens": round(sum(spent.values())),
            "s": round(seconds, 2),
            "mae": round(statistics.fmean(errors), 5),
        }


def run(args) -> dict | None:
    """Tune, choose, measure."""
    if args.prm is not None and not (args.prm / "config.json").is_file():
        raise ValueError(f"--prm: there is no checkpoint in {args.prm}")
    if args.prm is None and not args.no_prm:
        args.prm = train(args.work_dir, Labels(300, MIX), args.seed, epochs=3)
    prepare_environment()
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)  # it would win over the size given here
    settings = {
        "questions": args.questions,
        "truth": args.truth,
        "tune_truth": args.tune_truth,
        "repeats": args.repeats,
        "seed": args.seed,
        "prm": not args.no_prm,
    }
    cells, bench = Cells(args.output, settings, args.fresh), Bench(args)
    try:
        return measure(args, cells, bench)
    finally:
        bench.stop()


def measure(args, cells: Cells, bench: Bench) -> dict | None:
    """The cells in order; None where `--seconds` ended it early."""
    started = time.monotonic()

    def left() -> float:
        return args.seconds - (time.monotonic() - started)

    def truth(split: str, count: int):
        def cell(question: int) -> dict:
            return {"states": len(bench.truth(split, question, count))}

        return {f"{split} truth {index}": lambda i=index: cell(i) for index in range(args.questions)}

    choices = PLAIN + ([] if args.no_prm else WITH_PRM)
    tune = truth("tune", args.tune_truth)
    tune |= {f"tune naive {n}": lambda: bench.naive("tune") for n in range(args.repeats)}
    for setting in choices:
        for n in range(args.repeats):
            # The first repeat is measured with c = 0 and teaches the control variate for the others.
            def cell(s=setting, n=n) -> dict:
                learned = cells.found.get(f"tune {s.name} {n - 1}", {}).get("coefficient", (0.0, 0.0))
                return bench.ours("tune", s, learned)

            tune[f"tune {setting.name} {n}"] = cell
    if not cells.fill(tune, left()):
        return None

    def mean(prefix: str, name: str, first: int = 0) -> float:
        return statistics.fmean(cells.found[f"{prefix} {n}"][name] for n in range(first, args.repeats))

    def first(setting: Setting) -> int:
        return 1 if setting.control_variate and args.repeats > 1 else 0

    goal = mean("tune naive", "mae")
    fine = [s for s in choices if mean(f"tune {s.name}", "mae", first(s)) <= goal]
    if not fine:
        raise ValueError("no setting of ours reaches naive's error on the tune split; SETTINGS needs larger ones")
    chosen = min(fine, key=lambda s: mean(f"tune {s.name}", "tokens", first(s)))
    learned = cells.found[f"tune {chosen.name} {args.repeats - 1}"].get("coefficient", (0.0, 0.0))
    test = truth("test", args.truth)
    for n in range(args.repeats):
        test[f"test naive {n}"] = lambda: bench.naive("test")
    for n in range(args.repeats):
        test[f"test ours {n}"] = lambda: bench.ours("test", chosen, learned)
    if not cells.fill(test, left()):
        return None
    summary = {
        **{f"naive_{name}": mean("test naive", name) for name in ("tokens", "s", "mae")},
        **{name: mean("test ours", name) for name in ("tokens", "s", "mae")},
    }
    summary["tokens_ratio"] = round(summary["tokens"] / summary["naive_tokens"], 4)
    summary["s_ratio"] = round(summary["s"] / summary["naive_s"], 4)
    summary["setting"] = chosen.name
    cells.write(
        summary
        | {
            "tune": {
                name: {figure: round(mean(f"tune {name}", figure, start), 5) for figure in ("tokens", "s", "mae")}
                for name, start in [("naive", 0), *((s.name, first(s)) for s in choices)]
            }
        }
    )
    return summary


def command() -> int:
    """The command line."""
    flags = parser("mc_values", __doc__)
    flags.add_argument(
        "--questions", type=int, default=12, help="questions of each split, 8 solutions each (default 12)"
    )
    flags.add_argument("--truth", type=int, default=256, help="continuations per state for the truth (default 256)")
    flags.add_argument("--tune-truth", type=int, default=96, help="the same on the tune split (default 96)")
    flags.add_argument("--repeats", type=int, default=3, help="measurements of each method (default 3)")
    flags.add_argument("--prm", type=Path, help="PRM of the control variate; default: one trained on demonstrations")
    flags.add_argument("--no-prm", action="store_true", help="do not try the control variate")
    flags.add_argument("--seed", type=int, default=0)
    args = flags.parse_args()
    positive(flags, args, "questions", "truth", "tune_truth", "repeats")
    return main("mc_values", run, args)


if __name__ == "__main__":
    sys.exit(command())
