"""Math-Shepherd: a step is as good as the continuations that the policy samples after it (arXiv:2312.08935).

For each step i of a solution, decode N continuations of the prefix (question, s_1 ... s_i). With c of them right:

    mc_value_i   = c / N
    soft_label_i = mc_value_i
    hard_label_i = 1[c >= 1]

The labels say whether the policy can still get the answer right, not whether the step is valid: a policy that repairs
mistakes labels wrong steps as good, and a hard label grows with N.

Shapes: S steps of a solution, N rollouts per step.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from openrlhf_prm.annotation.records import LabelledSolution
from openrlhf_prm.steps import split_steps


@dataclass(frozen=True, kw_only=True)
class MathShepherdOptions:
    """What the labels depend on.

    `rollouts`: N. `max_new_tokens`: limit for a whole response, so a continuation may use what its prefix left of it.
    `stop_at_zero`: in a wrong solution, give 0 to every step after the first whose value is 0, without rollouts. This
    assumes that nothing recovers from a state none of N rollouts recovered from; recovery is then not measured. A
    right solution is never stopped, being itself a recovery.
    """

    solutions_per_question: int = 2
    rollouts: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    splitter: str = "newline"
    stop_at_zero: bool = True

    def __post_init__(self):
        for name in ("solutions_per_question", "rollouts", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.temperature == 0 and max(self.rollouts, self.solutions_per_question) > 1:
            raise ValueError("temperature 0 makes all samples equal: set it above 0, or take 1 solution and 1 rollout")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        split_steps([], None, self.splitter)


class MathShepherd:
    """Labels the steps of the policy's own solutions. `pool` samples (see `placement.GenerationPool.generate`).

    Exact savings: a prefix is passed as the sampled token ids, never tokenised again, so the engine finds it in its
    cache; solutions of one question that begin with the same tokens share their rollouts; the last step needs none,
    its value is whether the answer is right. `usage` counts what was decoded.
    """

    Options = MathShepherdOptions

    def __init__(self, pool, tokenizer, is_correct: Callable[[str, str], bool], options: MathShepherdOptions):
        self.pool = pool
        self.tokenizer = tokenizer
        self.is_correct = is_correct
        self.options = options
        self.usage = {"rollouts": 0, "rollout_tokens": 0, "solution_tokens": 0}

    async def annotate(self, prompt: str, label: str) -> list[LabelledSolution]:
        """Samples solutions for a prompt (template applied) and labels their steps. Errors of the engine are raised."""
        prompt_ids = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        solutions = await self._sample(prompt_ids, self.options.max_new_tokens, self.options.solutions_per_question)
        self.usage["solution_tokens"] += sum(len(solution.token_ids) for solution in solutions)
        shared: dict[tuple[int, ...], asyncio.Task[float]] = {}
        labelling = [asyncio.ensure_future(self._label(prompt_ids, solution, label, shared)) for solution in solutions]
        try:
            return list(await asyncio.gather(*labelling))
        finally:
            for task in (*labelling, *shared.values()):  # after an error the others are of no use
                task.cancel()

    async def _label(self, prompt_ids, solution, label, shared) -> LabelledSolution:
        response = self._decode(solution.token_ids)
        steps = split_steps(solution.token_ids, self.tokenizer, self.options.splitter) if response.strip() else []
        correct = not solution.truncated and self.is_correct(response, label)
        values, counts = [], []

        def value_after(end: int) -> asyncio.Task[float]:
            prefix = tuple(solution.token_ids[:end])
            if prefix not in shared:
                shared[prefix] = asyncio.ensure_future(self._value(prompt_ids, prefix, label))
            return shared[prefix]

        if not self.options.stop_at_zero or correct:
            values = list(await asyncio.gather(*[value_after(step.end) for step in steps[:-1]]))
            counts = [self.options.rollouts] * len(values)
        else:
            for step in steps[:-1]:
                stopped = bool(values) and values[-1] == 0
                values.append(0.0 if stopped else await value_after(step.end))
                counts.append(0 if stopped else self.options.rollouts)
        if steps:
            values.append(float(correct))
            counts.append(0)
        return LabelledSolution(
            response=response,
            steps=[step.text.rstrip() for step in steps],
            mc_values=values,
            hard_labels=[int(value > 0) for value in values],
            soft_labels=values,
            rollouts=counts,
            correct=correct,
            truncated=solution.truncated,
        )

    async def _value(self, prompt_ids, prefix: tuple[int, ...], label: str) -> float:
        room = self.options.max_new_tokens - len(prefix)
        rollouts = await self._sample([*prompt_ids, *prefix], room, self.options.rollouts)
        self.usage["rollouts"] += len(rollouts)
        self.usage["rollout_tokens"] += sum(len(rollout.token_ids) for rollout in rollouts)
        # A rollout cut at the limit is unfinished, whatever it says so far.
        right = [
            not rollout.truncated and self.is_correct(self._decode([*prefix, *rollout.token_ids]), label)
            for rollout in rollouts
        ]
        return sum(right) / len(right)

    async def _sample(self, token_ids, max_tokens: int, n: int) -> list:
        sampling = {"temperature": self.options.temperature, "top_p": self.options.top_p}
        samples = await self.pool.generate(list(token_ids), n=n, max_tokens=max_tokens, **sampling)
        assert len(samples) == n, f"the engine returned {len(samples)} of {n} samples"
        return samples

    def _decode(self, token_ids) -> str:
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
