"""The adaptive search on scripted rollouts, worked by hand, and on planted chains."""

import asyncio
import random

import pytest
from scripted_engine import RIGHT, WRONG, annotate, sample

from benchmarks.planted import Lines, PlantedEngine, exact_labels, is_right
from openrlhf_prm.annotation.adaptive import Adaptive, AdaptiveOptions
from openrlhf_prm.annotation.records import Root

GOOD, BAD = sample("y=7"), sample("a\nb\nc\nd=8")


def search(script, **options):
    defaults = {"solutions_per_question": 2, "rollouts": 8, "max_new_tokens": 100, "rule": "positive"}
    found, engine = annotate(Adaptive, script, **{**defaults, **options})
    return found, engine


def test_the_first_error_is_found_by_halving():
    # Between the question (good) and the solution (bad): b good, c bad, so the error is c.
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [WRONG, RIGHT], "Q?a\nb\nc\n": [WRONG] * 8}
    found, engine = search(script)
    right, wrong = found.solutions
    assert engine.requests == {"Q?": [2], "Q?a\nb\n": [2], "Q?a\nb\nc\n": [2, 2, 2]}
    assert wrong.hard_labels == [1, 1, 0, 0]
    assert wrong.right == [0, 1, 0, 0] and wrong.rollouts == [0, 2, 6, 0]
    assert wrong.mc_values == [None, 0.5, 0.0, 0.0]
    # The question is worth 1/2, b (1 + 1/2) / 3, c (1/2) / 7, the solution 0; a lies between the question and b.
    assert wrong.soft_labels == pytest.approx([0.5, 0.5, 1 / 14, 0.0])
    assert (right.steps, right.hard_labels, right.soft_labels, right.rollouts) == (["y=7"], [1], [1.0], [0])
    assert found.root == Root(1, 2) and found.usage["rollouts"] == 8


def test_an_error_in_the_first_and_in_the_last_step():
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [WRONG] * 8, "Q?a\n": [WRONG] * 8}
    assert search(script)[0].solutions[1].hard_labels == [0, 0, 0, 0]
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [RIGHT] * 2, "Q?a\nb\nc\n": [RIGHT] * 2}
    assert search(script)[0].solutions[1].hard_labels == [1, 1, 1, 0]


def test_a_recovery_is_good_for_one_rule_and_bad_for_the_other():
    late = {"Q?a\nb\nc\n": [RIGHT] * 2}
    rare = {"Q?": [GOOD, BAD], "Q?a\nb\n": [RIGHT, *[WRONG] * 15], "Q?a\n": [RIGHT] * 4}
    assert search({**rare, **late})[0].solutions[1].hard_labels == [1, 1, 1, 0]
    found, _ = search(rare, rule="relative_progress", rollouts=16)
    assert found.solutions[1].hard_labels == [1, 0, 0, 0]


def test_rollouts_of_other_solutions_that_pass_through_a_prefix_count_there():
    # Two solutions begin with a, b; the second is right, so the first needs no rollout to know that b is good.
    script = {"Q?": [BAD, sample("a\nb\nx=7")], "Q?a\nb\nc\n": [WRONG] * 8}
    found, engine = search(script)
    assert "Q?a\nb\n" not in engine.requests
    # The reference rose to (1 + 1) / (1 + 2), so that 0 of 4 decides: 3.84 / 7.84 < 0.8 * 2/3.
    assert found.solutions[0].rollouts == [0, 1, 4, 0] and found.solutions[0].right == [0, 1, 0, 0]
    assert found.usage["reused_rollouts"] == 1
    # The rollouts of b that go on with c count for c, but the searched solution does not count for itself.
    through = sample("c\nx=8")
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [through, RIGHT], "Q?a\nb\nc\n": [WRONG] * 8}
    found, engine = search(script)
    assert found.solutions[1].rollouts == [0, 2, 7, 0]


def test_equal_solutions_share_one_search():
    script = {"Q?": [GOOD, BAD, BAD], "Q?a\nb\n": [RIGHT, RIGHT], "Q?a\nb\nc\n": [WRONG] * 6}
    found, engine = search(script, solutions_per_question=3)
    assert found.solutions[1].hard_labels == found.solutions[2].hard_labels == [1, 1, 0, 0]
    assert found.usage["rollouts"] <= 8


def test_a_question_never_answered_right_is_dropped_after_all_rollouts():
    found, engine = search({"Q?": [BAD] * 8})
    assert found.dropped == "all_wrong" and found.solutions == [] and found.root == Root(0, 8)
    assert engine.requests == {"Q?": [2, 2, 2, 2]}
    found, _ = search({"Q?": [BAD] * 5 + [GOOD, *[BAD] * 2], "Q?a\nb\n": [WRONG] * 8, "Q?a\n": [WRONG] * 8})
    assert found.root == Root(1, 6) and len(found.solutions) == 2


def test_one_step_or_none_needs_no_rollout():
    found, engine = search({"Q?": [GOOD, sample("x=8"), sample("\n")]}, solutions_per_question=3)
    assert [solution.hard_labels for solution in found.solutions] == [[1], [0], []]
    assert list(engine.requests) == ["Q?"]


def test_a_fixed_number_of_rollouts_is_plain_binary_search():
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [RIGHT] * 8, "Q?a\nb\nc\n": [WRONG] * 8}
    _, engine = search(script, round=8)
    assert engine.requests == {"Q?": [2], "Q?a\nb\n": [8], "Q?a\nb\nc\n": [8]}


def test_errors_of_the_engine_are_raised():
    with pytest.raises(RuntimeError, match="unexpected prompt"):
        search({"Q?": [GOOD, BAD]})


@pytest.mark.parametrize("rule", ["positive", "relative_progress"])
@pytest.mark.parametrize("steps", [2, 7, 16])
def test_planted_errors_are_found_where_the_policy_never_recovers(rule, steps):
    engine = PlantedEngine(random.Random(0), steps=steps, accuracy=0.9)
    annotator = Adaptive(engine, Lines(), is_right, AdaptiveOptions(rule=rule, max_new_tokens=10_000))
    exact = count = 0
    for index in range(20):
        found = asyncio.run(annotator.annotate(f"Q{index}?\n", "right"))
        for solution in found.solutions:
            truth = exact_labels(solution.steps)
            assert solution.hard_labels == sorted(solution.hard_labels, reverse=True)
            exact += solution.hard_labels == truth
            count += 1
    assert exact / count > 0.97


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rollouts": 0}, "rollouts must be at least 1, got 0"),
        ({"round": 0}, "round must be at least 1"),
        ({"confidence": 0.0}, "confidence must be above 0"),
        ({"rule": "any"}, "rule must be one of positive, relative_progress"),
        ({"temperature": 0.0}, "all samples equal"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveOptions(**options)
