"""Math-Shepherd: a step is as good as the continuations that the policy samples after it (arXiv:2312.08935).

For each step i of a solution, decode N continuations of the prefix (question, s_1 ... s_i). With c of them right:

    mc_value_i   = c / N
    soft_label_i = mc_value_i
    hard_label_i = 1[c >= 1], or what another rule says

The labels say whether the policy can still get the answer right, not whether the step is valid: a policy that repairs
mistakes labels wrong steps as good, and a hard label grows with N.

With `count_endings` the n solutions of the question that pass through the prefix count too, e of them right:

    mc_value_i = (c + e) / (N + n)

Solutions are drawn from the policy and labelled whatever they end in, so given that they pass through s_i their endings
are n more samples of what follows it: E[c + e] = (N + n) MC(s_i), and the value is unbiased as c / N is. That holds for
right and wrong solutions together; of either kind alone it leans towards its outcome. No step of a right solution has
the value 0 then. A solution with a changed digit counts from the change on, where the policy went on. Without
`count_endings` the labels are the published ones.

Shapes: S steps of a solution, N rollouts per step.
"""

from dataclasses import dataclass

from openrlhf_prm.annotation.corruption import corrupted_solutions
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root, Tally
from openrlhf_prm.annotation.rollouts import (
    Annotator,
    LabelOptions,
    QuestionRollouts,
    Rollout,
    Solution,
    tally,
    together,
)
from openrlhf_prm.annotation.rules import RULES, rule_option
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class MathShepherdOptions(LabelOptions):
    """What the labels depend on. `rollouts`: N. `corrupted_per_question`: see `corruption`.

    `stop_at_zero`: in a wrong solution, give 0 to every step after the first whose value is 0, without rollouts. This
    assumes that nothing recovers from a state none of N rollouts recovered from; recovery is then not measured, and
    values are too low by what it would have found. A right solution is never stopped, being itself a recovery.
    """

    solutions_per_question: int = option(2, "solutions sampled and labelled per question", least=1)
    corrupted_per_question: int = option(
        0, "further solutions with one digit of a step changed, from where it goes on", least=0
    )
    rollouts: int = option(8, "rollouts per prefix", least=1)
    stop_at_zero: bool = option(True, "in a wrong solution, give 0 to all steps after the first with value 0")
    rule: str = rule_option("positive")

    def __post_init__(self):
        super().__post_init__()
        self.require_random_samples(self.solutions_per_question, self.rollouts)


class MathShepherd(Annotator):
    """Labels the steps of the policy's own solutions, and of `corrupted_per_question` that have a mistake put in.

    Exact savings: solutions of one question that begin with the same tokens share their rollouts, and count for each
    other; the last step needs none, its value is whether the answer is right. A rule that compares with the question's
    value gets N responses for it, the solutions among them.
    """

    Options = MathShepherdOptions

    async def annotate(self, prompt: str, label: str) -> AnnotatedQuestion:
        """Samples solutions for a prompt (template applied) and labels their steps. Errors of the engine are raised."""
        state = self.rollouts_of(prompt, label)
        solutions = await state.solutions(self.options.solutions_per_question)
        if RULES[self.options.rule].needs_question_value:
            await state.exactly((), self.options.rollouts)
        question = state.decoded(())
        solutions += await corrupted_solutions(state, solutions, self.options.corrupted_per_question)
        written = [solution.rollout for solution in solutions] if self.options.count_endings else []
        labelled = await together(*[self._label(state, solution, written, question.value) for solution in solutions])
        return AnnotatedQuestion(Root(question.right, question.rollouts), labelled, state.usage)

    async def _label(
        self, state: QuestionRollouts, solution: Solution, written: list[Rollout], question_value: float
    ) -> LabelledSolution:
        """`written`: the rollouts whose endings count in the states that they pass through."""
        correct, inner = solution.rollout.correct, range(1, len(solution.steps))

        def endings(steps: int) -> list[Rollout]:
            prefix = solution.prefix(steps)
            return [rollout for rollout in written if rollout.start < len(prefix) and rollout.passes(prefix)]

        async def counts_after(steps: int) -> Tally:
            prefix = solution.prefix(steps)
            return tally([*await state.exactly(prefix, self.options.rollouts), *endings(steps)], prefix)

        counts: list[Tally] = []
        if not self.options.stop_at_zero or correct:
            counts = await together(*[counts_after(steps) for steps in inner])
        else:
            recovered = [steps for steps in inner if any(ending.correct for ending in endings(steps))]
            for steps in inner:
                counts.append(await counts_after(steps))
                if not counts[-1].right and steps > max(recovered, default=0):
                    break
        rest = len(solution.steps) - len(counts)  # 0 for those given up; the last step has its outcome
        values = [count.value for count in counts] + [0.0] * (rest - 1) + [float(correct)] * (rest > 0)
        return LabelledSolution(
            response=solution.response,
            steps=solution.steps,
            mc_values=values,
            hard_labels=RULES[self.options.rule].labels(question_value, values),
            soft_labels=values,
            right=[count.right for count in counts] + [0] * rest,
            rollouts=[count.rollouts for count in counts] + [0] * rest,
            visits=[0] * len(solution.steps),
            correct=correct,
            truncated=solution.rollout.truncated,
            endings=[count.endings for count in counts] + [0] * rest,
        )
