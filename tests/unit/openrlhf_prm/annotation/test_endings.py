"""Where endings of solutions count as rollouts: worked by hand, and held against a process of which every run is
enumerated with its exact chance.
"""

import asyncio
import itertools
from collections.abc import Iterator
from fractions import Fraction

import pytest
from scripted_engine import EOS, RIGHT, WRONG, Characters, annotate, is_right, sample

from openrlhf_prm.annotation.adaptive import Adaptive
from openrlhf_prm.annotation.math_shepherd import MathShepherd
from openrlhf_prm.annotation.omega_prm import OmegaPRM
from openrlhf_prm.annotation.records import LabelledSolution
from openrlhf_prm.annotation.rollouts import QuestionRollouts, SamplingOptions
from openrlhf_prm.cluster.workers import Completion

M = Fraction(1, 3)
"""The chance of a right answer after the first step "a"."""


class Branching:
    """A policy whose every choice is read from a list: first step a (chance 2/3) or b, then right with chance M after a
    and never after b. `chance` is that of the choices made.
    """

    def __init__(self, choices: list[bool]):
        self.choices = choices
        self.made = 0
        self.chance = Fraction(1)

    def choose(self, chance: Fraction) -> bool:
        if self.made == len(self.choices):
            self.choices.append(True)
        choice = self.choices[self.made]
        self.made += 1
        self.chance *= chance if choice else 1 - chance
        return choice

    async def generate(self, prompt, *, n, **_) -> list[Completion]:
        return [self.one("".join(map(chr, prompt))) for _ in range(n)]

    def one(self, prompt: str) -> Completion:
        begun = prompt.removeprefix("Q?")
        first = "" if begun else ("a\n" if self.choose(Fraction(2, 3)) else "b\n")
        right = (begun or first) == "a\n" and self.choose(M)
        text = f"{first}{'x=7' if right else 'x=8'}"
        return Completion(text, [*map(ord, text), EOS], False)


def runs(annotator: type, **options) -> Iterator[tuple[Fraction, list[LabelledSolution]]]:
    """Every run of an annotator over that policy, with its chance."""
    choices: list[bool] = []
    while True:
        policy = Branching(choices)
        labels = annotator(policy, Characters(), is_right, annotator.Options(max_new_tokens=9, **options))
        found = asyncio.run(labels.annotate("Q?", "7"))
        yield policy.chance, found.solutions
        while choices and not choices[-1]:
            choices.pop()
        if not choices:
            return
        choices[-1] = False


def mean_value(annotator: type, **options) -> Fraction:
    """The mean value of the state after "a" over the records that measured it, all runs weighted by their chances."""
    total = weight = seen = Fraction(0)
    for chance, solutions in runs(annotator, **options):
        seen += chance
        for solution in solutions:
            if solution.steps[0] == "a" and solution.rollouts[0]:
                total += chance * Fraction(solution.right[0], solution.rollouts[0])
                weight += chance
    assert seen == 1
    return total / weight


@pytest.mark.parametrize("stop_at_zero", [False, True])
@pytest.mark.parametrize("count_endings", [False, True])
def test_values_of_math_shepherd_are_unbiased(count_endings, stop_at_zero):
    options = {"solutions_per_question": 2, "rollouts": 1, "count_endings": count_endings}
    assert mean_value(MathShepherd, stop_at_zero=stop_at_zero, **options) == M


def test_endings_are_worth_as_many_rollouts():
    """The variance of n + N rollouts, in the one state that a single solution has."""

    def variance(**options) -> Fraction:
        values = [
            (chance, Fraction(solution.right[0], solution.rollouts[0]))
            for chance, [solution] in runs(MathShepherd, solutions_per_question=1, **options)
            if solution.steps[0] == "a"
        ]
        return sum(chance * (value - M) ** 2 for chance, value in values) / sum(chance for chance, _ in values)

    assert variance(rollouts=2, count_endings=True) == variance(rollouts=3, count_endings=False) == M * (1 - M) / 3


def test_other_solutions_are_fair_rollouts_for_one_that_is_searched_and_itself_is_not():
    """Over the wrong ones of two solutions that both pass through "a"."""
    totals = {"others": Fraction(0), "itself too": Fraction(0)}
    weight = Fraction(0)
    for choices in itertools.product((True, False), repeat=4):
        policy = Branching(list(choices))
        state = QuestionRollouts(policy, Characters(), is_right, SamplingOptions(max_new_tokens=9), "Q?", "7")
        solutions = asyncio.run(state.solutions(2))
        if policy.made < 4 or any(solution.steps[0] != "a" for solution in solutions):
            continue
        for solution in solutions:
            if not solution.rollout.correct:
                prefix = solution.prefix(1)
                weight += policy.chance
                totals["others"] += policy.chance * state.passing(prefix, without=solution.rollout).right
                totals["itself too"] += policy.chance * Fraction(state.passing(prefix).right, 2)
    assert {name: total / weight for name, total in totals.items()} == {"others": M, "itself too": M / 2}


def test_values_of_adaptive_from_a_fixed_number_of_fresh_rollouts_are_unbiased():
    # Endings of others are not, here: of two responses one right at least, and it is seen where it passes.
    options = {"solutions_per_question": 2, "rollouts": 2, "round": 2}
    assert mean_value(Adaptive, count_endings=False, **options) == M
    assert mean_value(Adaptive, count_endings=True, **options) > M


def test_values_of_omega_prm_are_those_of_fresh_rollouts():
    for count_endings in (False, True):
        assert mean_value(OmegaPRM, filter_rollouts=2, rollouts=1, searches=1, count_endings=count_endings) == M


def test_of_rollouts_left_when_a_wrong_one_was_picked_too_many_are_right():
    """The figure that `omega_prm` gives for its reason, 2 m / (1 + m)."""
    both = [(M if a else 1 - M, M if b else 1 - M, a, b) for a in (True, False) for b in (True, False)]
    picked = [(p * q, b if not a else a) for p, q, a, b in both if not (a and b)]
    assert sum(p * left for p, left in picked) / sum(p for p, _ in picked) == 2 * M / (1 + M)


def label(annotator: type, script, **options):
    found, engine = annotate(annotator, script, max_new_tokens=100, **options)
    return found, engine


def test_a_right_ending_counts_in_every_state_of_all_solutions_that_pass_there():
    script = {
        "Q?": [sample("a\nb\nc=7"), sample("a\nd\nc=8")],
        "Q?a\n": [WRONG] * 4,
        "Q?a\nb\n": [WRONG] * 4,
        "Q?a\nd\n": [WRONG] * 4,
    }
    found, _ = label(MathShepherd, script, rollouts=4)
    right, wrong = found.solutions
    assert (right.right, right.rollouts, right.endings) == ([1, 1, 0], [6, 5, 0], [2, 1, 0])
    assert right.mc_values == [1 / 6, 1 / 5, 1.0] and right.hard_labels == [1, 1, 1]
    # The state after a is the same node, with the same counts; the wrong solution is given up only at d.
    assert (wrong.right, wrong.rollouts, wrong.endings) == ([1, 0, 0], [6, 5, 0], [2, 1, 0])
    assert wrong.hard_labels == [1, 0, 0]
    found, _ = label(MathShepherd, script, rollouts=4, count_endings=False)
    assert found.solutions[0].hard_labels == [0, 0, 1] and found.solutions[0].endings == [0, 0, 0]


class LastChoice:
    """Random choices that are known: always the last."""

    def __init__(self, seed):
        pass

    def choice(self, options):
        return options[-1]


def test_a_changed_digit_counts_from_the_change_on(monkeypatch):
    monkeypatch.setattr("openrlhf_prm.annotation.corruption.random.Random", LastChoice)
    script = {
        "Q?": [sample("a1\nb2\nc=8")],
        "Q?a1\n": [WRONG, RIGHT],
        "Q?a1\nb2\n": [WRONG] * 2,
        "Q?a1\nb9\n": [sample("d\nc=7"), WRONG],
        "Q?a1\nb9\nd\n": [WRONG] * 2,
    }
    found, _ = label(MathShepherd, script, solutions_per_question=1, rollouts=2, corrupted_per_question=1)
    own, changed = found.solutions
    # After a1 only the policy's own solution; after b9 the changed one's ending is the first of its two rollouts.
    assert (own.right, own.rollouts, own.endings) == ([1, 0, 0], [3, 3, 0], [1, 1, 0])
    assert (changed.right, changed.rollouts, changed.endings) == ([1, 1, 1, 0], [3, 2, 3, 0], [1, 0, 1, 0])


def test_a_wrong_solution_is_not_given_up_before_a_state_from_which_a_right_ending_was_seen(monkeypatch):
    monkeypatch.setattr("openrlhf_prm.annotation.corruption.random.Random", LastChoice)
    script = {
        # The second solution makes by itself the mistake that is put into the first, from which it is then repaired.
        "Q?": [sample("a\nb0\nc=8"), sample("a\nb9\nd\nc=8")],
        "Q?a\n": [WRONG],
        "Q?a\nb9\n": [sample("d\nc=7")],
        "Q?a\nb9\nd\n": [WRONG],
    }
    options = {"rollouts": 1, "corrupted_per_question": 1}
    found, _ = label(MathShepherd, script, **options)
    assert found.solutions[1].right == [0, 1, 1, 0] and found.solutions[1].hard_labels == [0, 1, 1, 0]
    found, _ = label(MathShepherd, script, count_endings=False, **options)
    assert found.solutions[1].right == [0, 0, 0, 0]


GOOD, BAD = sample("a\nb\ny=7"), sample("a\nb\nc\nd=8")


def test_omega_prm_takes_a_right_ending_as_proof_and_leaves_the_value():
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [WRONG] * 2, "Q?a\nb\nc\n": [WRONG] * 2, "Q?a\n": [WRONG] * 2}
    found, _ = label(OmegaPRM, script, filter_rollouts=2, rollouts=2)
    wrong = found.solutions[0]
    assert wrong.hard_labels == [1, 1, 0, 0] and wrong.mc_values == [None, 0.0, 0.0, 0.0]
    assert wrong.rollouts == [0, 2, 2, 0] and wrong.endings == [0, 0, 0, 0]
    for options in ({"count_endings": False}, {"rule": "relative_progress"}):
        found, _ = label(OmegaPRM, script, filter_rollouts=2, rollouts=2, **options)
        assert found.solutions[0].hard_labels == [0, 0, 0, 0]


def test_adaptive_takes_endings_of_others_and_those_of_longer_prefixes_as_proof():
    script = {"Q?": [GOOD, BAD], "Q?a\nb\nc\n": [WRONG] * 8}
    found, engine = label(Adaptive, script, solutions_per_question=2, rule="positive", rollouts=8)
    assert found.solutions[1].hard_labels == [1, 1, 0, 0] and found.solutions[1].endings == [0, 1, 0, 0]
    assert "Q?a\nb\n" not in engine.requests
    bad = {"Q?a\nb\n": [WRONG] * 8, "Q?a\n": [WRONG] * 8}
    options = {"solutions_per_question": 2, "rule": "positive", "rollouts": 8}
    found, _ = label(Adaptive, {"Q?": [GOOD, BAD], **bad}, count_endings=False, **options)
    assert found.solutions[1].hard_labels == [0, 0, 0, 0] and found.solutions[1].endings == [0, 0, 0, 0]
    # The longer one is searched from c on, where a rollout ends right; then a, b cannot be wrong for the other either.
    longer = {"Q?": [sample("y=7"), BAD, sample("a\nb\nc\ne\nf\ng=8")], "Q?a\nb\nc\n": [RIGHT] * 8}
    after = {"Q?a\nb\nc\ne\n": [WRONG] * 8}
    options["solutions_per_question"] = 3
    found, _ = label(Adaptive, {**longer, **bad, **after}, **options)
    assert [solution.hard_labels for solution in found.solutions[1:]] == [[1, 1, 1, 0], [1, 1, 1, 0, 0, 0]]
    found, _ = label(Adaptive, {**longer, **bad, **after}, count_endings=False, **options)
    assert [solution.hard_labels for solution in found.solutions[1:]] == [[0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]


def test_equal_texts_are_one_record_of_omega_prm_that_says_how_many():
    script = {
        "Q?": [sample("y=7"), BAD, BAD, sample("y=7"), BAD],
        "Q?a\nb\n": [RIGHT, sample("c\nd=8")],  # once more BAD's text, from another start
        "Q?a\nb\nc\n": [WRONG] * 2,
    }
    found, engine = label(OmegaPRM, script, filter_rollouts=5, rollouts=2)
    assert [(solution.response, solution.copies) for solution in found.solutions] == [
        ("a\nb\nc\nd=8", 4),
        ("y=7", 2),
    ]
    assert found.usage["merged_copies"] == 4 and found.root.right == 2 and found.root.rollouts == 5
