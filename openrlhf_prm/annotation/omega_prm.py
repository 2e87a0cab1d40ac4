"""OmegaPRM: a tree of rollouts whose wrong ones are searched for their first error, best first (arXiv:2406.06592).

`filter_rollouts` responses are sampled from the question; where all or none are right the question is dropped. They are
the first rollouts of the tree's root. A node s is a prefix with `rollouts` rollouts of its own; MC(s) is the share of
them that is right, N(s) how often a search started from it. The pool holds the rollouts r of nodes with 0 < MC(s) < 1
whose answer is wrong. `searches` times, or until the pool is empty, the pair with the largest

    Q(s, r) + U(s) = alpha^(1 - MC(s)) * beta^(len(r) / L) + c_puct * sqrt(sum_i N(s_i)) / (1 + N(s))

(len(r): tokens after s) leaves the pool for good, N(s) rises by one, and r is searched for its first error by halving:
`rollouts` rollouts after the step half-way; good, go right, else left; until one step is left. The prefixes measured
before the error become nodes, and their wrong rollouts join the pool. The parameters are the published ones.

Every searched rollout becomes a labelled solution: steps before the first error are good, and MC of its measured
prefixes is the soft label. So that a PRM also sees solutions without an error, right responses to the question are
added, one for each searched one as far as there are.

A rollout cut at the token limit is wrong for MC, but states no answer and so is not searched. A prefix measured in an
earlier search is not sampled again. Wrong rollouts of the same text are searched once, and right ones written once:
`copies` says how many there were.

MC(s) counts fresh rollouts alone. The rollout that is searched passes through s because it is wrong, and the others
that pass are no fair sample either once one of them was picked for being wrong: of n that pass through a state of value
m, one wrong at least, the share of right ones among those left is above m (2 m / (1 + m) of two). What they are good
for, with `count_endings` and rule `positive`, is proof: a prefix from which a right ending was seen is good, whatever
its k rollouts say, so the search goes right; its MC stays what it is.

A search needs the result of the one before, so one question keeps one request in flight; have many questions in
flight.
"""

import math
from collections import Counter
from dataclasses import dataclass

from openrlhf_prm.annotation.first_error_labels import label_solution
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root, Tally
from openrlhf_prm.annotation.rollouts import (
    Annotator,
    LabelOptions,
    Prefix,
    QuestionRollouts,
    Rollout,
    Solution,
    tally,
)
from openrlhf_prm.annotation.rules import RULES, rule_option
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class OmegaPRMOptions(LabelOptions):
    """What the labels depend on; the letters are the paper's."""

    filter_rollouts: int = option(
        32, "responses sampled to see whether a question is neither too easy nor too hard", least=1
    )
    rollouts: int = option(8, "rollouts per prefix", least=1)
    searches: int = option(100, "searches for a first error per question, at most", least=1)
    alpha: float = option(0.5, "Q falls by this factor as MC(s) goes from 1 to 0", above=0, most=1)
    beta: float = option(0.9, "Q falls by this factor per length_scale tokens of the rollout", above=0, most=1)
    length_scale: int = option(500, "L, in tokens", least=1)
    c_puct: float = option(0.125, "weight of exploration", least=0)
    rule: str = rule_option("positive")

    def __post_init__(self):
        super().__post_init__()
        self.require_random_samples(self.filter_rollouts, self.rollouts)


class OmegaPRM(Annotator):
    """Labels the rollouts of a question's tree."""

    Options = OmegaPRMOptions

    async def annotate(self, prompt: str, label: str) -> AnnotatedQuestion:
        """Grows the tree of a prompt (template applied). Errors of the engine are raised."""
        tree = _Tree(self.rollouts_of(prompt, label), self.options)
        first = await tree.state.solutions(self.options.filter_rollouts)
        question = tree.add_node((), [solution.rollout for solution in first])
        if question.right in (0, question.rollouts):
            root = Root(question.right, question.rollouts)
            return AnnotatedQuestion(root, [], tree.state.usage, dropped="all_right" if question.right else "all_wrong")
        located: list[tuple[Solution, int]] = []
        while tree.pool and len(located) < self.options.searches:
            located.append(await tree.search(*tree.select()))
        right = [solution for solution in first if solution.rollout.correct and tree.is_new(solution.rollout)]
        located += [(solution, len(solution.steps)) for solution in right[: max(len(located), 1)]]
        labelled = [tree.label(solution, first_error) for solution, first_error in located]
        root = Root(question.right, question.rollouts, tree.visits[()])
        return AnnotatedQuestion(root, labelled, tree.state.usage)


class _Tree:
    def __init__(self, state: QuestionRollouts, options: OmegaPRMOptions):
        self.state = state
        self.options = options
        self.rule = RULES[options.rule]
        self.nodes: dict[Prefix, Tally] = {}
        self.visits: Counter[Prefix] = Counter()
        self.pool: list[tuple[Prefix, Rollout]] = []
        self.copies: Counter[str] = Counter()

    def add_node(self, prefix: Prefix, rollouts: list[Rollout]) -> Tally:
        """A measured prefix; its wrong rollouts join the pool where some are right, of equal texts the first."""
        counts = self.nodes[prefix] = tally(rollouts, prefix)
        if counts.right:
            wrong = [rollout for rollout in rollouts if not rollout.correct and not rollout.truncated]
            self.pool += [(prefix, rollout) for rollout in wrong if self.is_new(rollout)]
        return counts

    def is_new(self, rollout: Rollout) -> bool:
        """Counts a rollout that is to become a record; False where one of the same text is there."""
        text = self.state.text(rollout.token_ids)
        self.copies[text] += 1
        self.state.usage["merged_copies"] += self.copies[text] > 1
        return self.copies[text] == 1

    def select(self) -> tuple[Prefix, Rollout]:
        """Takes the pair with the largest Q + U out of the pool and counts the visit; equal ones in order of age."""
        best = max(range(len(self.pool)), key=lambda index: self.score(*self.pool[index]))
        prefix, rollout = self.pool.pop(best)
        self.visits[prefix] += 1
        return prefix, rollout

    def score(self, prefix: Prefix, rollout: Rollout) -> float:
        """Q(s, r) + U(s)."""
        options, length = self.options, len(rollout.token_ids) - len(prefix)
        quality = options.alpha ** (1 - self.nodes[prefix].value) * options.beta ** (length / options.length_scale)
        return quality + options.c_puct * math.sqrt(self.visits.total()) / (1 + self.visits[prefix])

    async def search(self, start: Prefix, rollout: Rollout) -> tuple[Solution, int]:
        """The rollout's steps and its first wrong step, from 0."""
        solution = self.state.split(rollout)
        low, high = sum(end <= len(start) for end in solution.ends), len(solution.steps)
        reference = self.nodes[start].value
        while high - low > 1:
            middle = (low + high) // 2
            prefix = solution.prefix(middle)
            counts = self.nodes.get(prefix)
            if counts is None:
                counts = self.add_node(prefix, await self.state.decode(prefix, self.options.rollouts))
            else:
                self.state.usage["reused_rollouts"] += counts.rollouts
            reached = self.options.count_endings and self.rule.reached_is_good and self.state.reached(prefix)
            if reached or self.rule.is_good(counts, reference):
                low, reference = middle, max(reference, counts.value)
            else:
                high = middle
        return solution, max(high - 1, 0)

    def label(self, solution: Solution, first_error: int) -> LabelledSolution:
        """The record of a solution, with the counts of all nodes on its path."""
        prefixes = [solution.prefix(steps) for steps in range(1, len(solution.steps) + 1)]
        measured = {t: self.nodes[prefix] for t, prefix in enumerate(prefixes[:-1], start=1) if prefix in self.nodes}
        visits = [self.visits[prefix] for prefix in prefixes]
        copies = self.copies[solution.response]
        return label_solution(solution, first_error, measured, self.nodes[()].value, _share, visits, copies)


def _share(counts: Tally) -> float:
    return counts.value
