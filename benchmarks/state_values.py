"""What `benchmarks.mc_values` measures: values of states by naive VinePPO, and by `BranchSampler`, on one engine at a
time, against the mean outcomes of many continuations.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runs import POLICY
from openrlhf_prm.cluster.accelerator import engine_dtype
from openrlhf_prm.tasks.arithmetic import HabitMix, questions
from vllm_prm.durable_file import write_atomically

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
                dtype=engine_dtype("auto"),
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

        metrics = {metric.name: metric.value for metric in get_metrics_snapshot() if hasattr(metric, "value")}
        return {
            "generated": metrics["vllm:generation_tokens"],
            "prefilled": metrics["vllm:prompt_tokens"] - metrics["vllm:prompt_tokens_cached"],
        }

    def stop(self) -> None:
        self.engine.shutdown()


class Bench:
    """The engines, one at a time, and what was sampled with them."""

    def __init__(self, args):
        from transformers import AutoTokenizer

        self.args = args
        self.runner = asyncio.Runner()
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
        self.runner.close()  # ends what engines left running, which would complain after the last line

    # Solutions and truth, kept in the work folder.

    def solutions(self, split: str) -> list[Solution]:
        path = self.args.work_dir / f"{split}.solutions.json"
        if not path.exists():
            solved = self.runner.run(self._solve(split))
            write_atomically(path, json.dumps([vars(solution) for solution in solved]))
        return [Solution(**row) for row in json.loads(path.read_text())]

    async def _solve(self, split: str) -> list[Solution]:
        from openrlhf_prm.data.steps import split_steps

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
                        await self._judge(label)("", self.tokenizer.decode(response))
                        if completion.finish_reason != "length"
                        else 0.0,
                    )
                )
        return solutions

    def _judge(self, label: str):
        """As `openrlhf_prm.answers.outcome`: of the response's own text."""
        from openrlhf_prm.answers.checkers import math_answer

        async def judge(text: str, response: str) -> float:
            return float(math_answer(response, label))

        return judge

    def truth(self, split: str, question: int, count: int) -> dict[tuple[int, ...], float]:
        """Mean outcomes of the states of one question's solutions."""
        path = self.args.work_dir / f"{split}.truth" / f"{question}.json"
        siblings = self.solutions(split)[question * GROUP : (question + 1) * GROUP]
        states = sorted({state for solution in siblings for state in solution.states()})
        if not path.exists():
            means = self.runner.run(self._means(states, siblings[0], count))
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
        tokens = [*state, *completion.token_ids]
        text, response = self.tokenizer.decode(tokens), self.tokenizer.decode(tokens[solution.start :])
        return await self._judge(solution.label)(text, response)

    # The two methods: values of all states of all solutions.

    def naive(self, split: str) -> dict:
        return self.runner.run(self._naive(split))

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
        return self.runner.run(self._ours(split, setting, coefficient))

    async def _ours(self, split: str, setting: Setting, coefficient: tuple[float, float]) -> dict:
        from openrlhf_prm.advantages.branch_values import ControlVariate, VineOptions
        from openrlhf_prm.ppo.rollout.branches import BranchSampler, Origin, QuestionOutcomes

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
        groups = [QuestionOutcomes(GROUP) for _ in range(len(solutions) // GROUP)]
        for index, solution in enumerate(solutions):
            groups[index // GROUP].report(solution.outcome)

        async def branches(index: int, solution: Solution):
            if not await groups[index // GROUP].have_variance():
                return None
            origin = Origin(
                solution.question,
                solution.label,
                solution.tokens,
                solution.start,
                engine.sampling(1, LIMIT),
                solution.start + LIMIT,
                self._judge(solution.label),
            )
            return await sampler.sample(origin, solution.ends, solution.texts, engine, self.tokenizer)

        sampled = await asyncio.gather(*(branches(index, solution) for index, solution in enumerate(solutions)))
        seconds = time.perf_counter() - started
        await asyncio.sleep(0.1)
        control, learned = ControlVariate(options), ControlVariate()
        control.covariance, control.variance = coefficient
        values = []
        for index, (solution, states) in enumerate(zip(solutions, sampled, strict=True)):
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
        met = [state for states in sampled for state in states or ()]
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
