"""Adaptive: binary search for the first error, with as many rollouts per step as the decision takes.

A wrong solution of S steps is searched between `low`, the last prefix known to be good (first the question), and
`high`, the first known to be bad (first the whole solution): the prefix half-way is sampled `round` rollouts at a time
until Wilson's interval of its MC decides (`rules`: `decide`), or `rollouts` are there (`is_good`), and takes the place
of `low` or `high`. With high = low + 1 step `high` is the first error: about log2(S) prefixes instead of S, each at the
price of its difficulty. A good prefix of a policy that often succeeds takes two rollouts; a hard question takes more
than a fixed number would give it, so that its labels are not noise.

The reference that a prefix is compared with is the best value among the prefixes known to be good, the question
included, each estimated with a uniform prior: (right + 1) / (rollouts + 2).

Rollouts are shared (`count_endings`): what was decoded after a shorter prefix of the same question, by whichever
solution, and passes through this one counts here too, and so do the question's other solutions. The searched solution
itself does not: it is searched because it is wrong, and with n fair rollouts of a state of value m its own ending would
pull the estimate to n m / (n + 1). The others do not depend on that: given that this one is wrong, each of them is
right with chance m, and their share is unbiased at the first prefix of a search. (Dropped questions select them: one
kept for its only right solution shows that one in every state it passes.) Under rule `positive` a right ending that was
seen from a prefix, decoded after whichever, settles that it is good.

Solutions that are right have no error that matters and are not searched; all their steps are good. A question none of
whose first `rollouts` responses is right is dropped: where the policy never succeeds, rollouts say nothing about steps.

Degenerate: S = 1 needs no rollout, and no step is no label. A solution cut at the limit is wrong like any other. The
search finds *a* place where the value falls; with a policy that recovers from errors it need not be the first.

Soft labels of measured steps are (right + 1/2) / (rollouts + 1): stopping at the first right rollout makes right /
rollouts too high, 1 of 1 for instance.

Shapes: S steps of a solution.
"""

from dataclasses import dataclass

from openrlhf_prm.annotation.first_error_labels import label_solution
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root, Tally
from openrlhf_prm.annotation.rollouts import (
    Annotator,
    LabelOptions,
    Prefix,
    QuestionRollouts,
    Solution,
    tally,
    together,
)
from openrlhf_prm.annotation.rules import RULES, rule_option
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class AdaptiveOptions(LabelOptions):
    """What the labels depend on. `round` = `rollouts` and rule `positive` make it plain binary search."""

    solutions_per_question: int = option(8, "solutions sampled and labelled per question", least=1)
    rollouts: int = option(16, "rollouts per prefix, at most", least=1)
    round: int = option(2, "rollouts decoded between two looks at the interval", least=1)
    confidence: float = option(1.96, "z of Wilson's interval; smaller is cheaper and errs more", above=0)
    rule: str = rule_option("relative_progress")

    def __post_init__(self):
        super().__post_init__()
        self.require_random_samples(self.solutions_per_question, self.rollouts)


class Adaptive(Annotator):
    """Labels the steps of the policy's own solutions."""

    Options = AdaptiveOptions

    async def annotate(self, prompt: str, label: str) -> AnnotatedQuestion:
        """Samples solutions for a prompt (template applied) and labels their steps. Errors of the engine are raised."""
        state = self.rollouts_of(prompt, label)
        solutions = await state.solutions(self.options.solutions_per_question)
        while not (question := state.decoded(())).right and question.rollouts < self.options.rollouts:
            await state.decode((), min(self.options.round, self.options.rollouts - question.rollouts))
        root = Root(question.right, question.rollouts)
        if not question.right:
            return AnnotatedQuestion(root, [], state.usage, dropped="all_wrong")
        labelled = await together(*[self._label(state, solution, question) for solution in solutions])
        return AnnotatedQuestion(root, labelled, state.usage)

    async def _label(self, state: QuestionRollouts, solution: Solution, question: Tally) -> LabelledSolution:
        measured: dict[int, Tally] = {}
        low, high = 0, len(solution.steps)
        if solution.rollout.correct:
            low = high
        reference = _shrunk(question)
        while high - low > 1:
            middle = (low + high) // 2
            good, counts = await self._measure(state, solution, solution.prefix(middle), reference)
            if counts.rollouts:
                measured[middle] = counts
            if good:
                low, reference = middle, max(reference, _shrunk(counts))
            else:
                high = middle
        first_error = low if not solution.rollout.correct else len(solution.steps)
        return label_solution(solution, first_error, measured, question.value, _estimate)

    async def _measure(
        self, state: QuestionRollouts, solution: Solution, prefix: Prefix, reference: float
    ) -> tuple[bool, Tally]:
        rule = RULES[self.options.rule]
        async with state.lock(prefix):
            counts = state.passing(prefix, solution.rollout, endings=self.options.count_endings)
            state.usage["reused_rollouts"] += counts.rollouts
            while True:
                good = rule.decide(counts, reference, self.options.confidence) if counts.rollouts else None
                if self.options.count_endings and rule.reached_is_good and state.reached(prefix):
                    good = True
                if good is None and counts.rollouts >= self.options.rollouts:
                    good = rule.is_good(counts, reference)
                if good is not None:
                    return good, counts
                fresh = await state.decode(prefix, min(self.options.round, self.options.rollouts - counts.rollouts))
                more = tally(fresh)
                counts = Tally(counts.right + more.right, counts.rollouts + more.rollouts, counts.endings)


def _shrunk(counts: Tally) -> float:
    return (counts.right + 1) / (counts.rollouts + 2)


def _estimate(counts: Tally) -> float:
    return (counts.right + 0.5) / (counts.rollouts + 1)
