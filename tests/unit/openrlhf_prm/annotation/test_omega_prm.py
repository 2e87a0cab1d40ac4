"""OmegaPRM on scripted rollouts, worked by hand: what leaves the pool, what joins it, what is counted when."""

import math

import pytest
from scripted_engine import EOS, RIGHT, WRONG, Characters, annotate, is_right, sample

from openrlhf_prm.annotation.omega_prm import OmegaPRM, OmegaPRMOptions, _Tree
from openrlhf_prm.annotation.records import Root
from openrlhf_prm.annotation.rollouts import QuestionRollouts, Rollout
from openrlhf_prm.cluster.workers import Completion

GOOD, BAD = sample("y=7"), sample("a\nb\nc\nd=8")


def grow(script, **options):
    defaults = {"filter_rollouts": 2, "rollouts": 2, "max_new_tokens": 100}
    return annotate(OmegaPRM, script, **{**defaults, **options})


def test_filter_rollouts_are_the_roots_and_are_not_sampled_again():
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [RIGHT, RIGHT], "Q?a\nb\nc\n": [WRONG, WRONG]}
    found, engine = grow(script)
    assert engine.requests == {"Q?": [2], "Q?a\nb\n": [2], "Q?a\nb\nc\n": [2]}
    wrong, right = found.solutions
    assert (wrong.response, right.response) == ("a\nb\nc\nd=8", "y=7")
    assert wrong.hard_labels == [1, 1, 0, 0] and right.hard_labels == [1]
    assert wrong.right == [0, 2, 0, 0] and wrong.rollouts == [0, 2, 2, 0]
    assert wrong.mc_values == [None, 1.0, 0.0, 0.0]
    assert wrong.soft_labels == [0.75, 1.0, 0.0, 0.0]  # a: half-way between the question's 0.5 and b's 1
    assert found.root == Root(right=1, rollouts=2, visits=1)
    assert found.usage["rollouts"] == 4


@pytest.mark.parametrize(("first", "reason"), [([GOOD, GOOD], "all_right"), ([BAD, WRONG], "all_wrong")])
def test_too_easy_and_too_hard_questions_are_dropped(first, reason):
    found, engine = grow({"Q?": first})
    assert found.dropped == reason and found.solutions == []
    assert found.root.rollouts == 2 and list(engine.requests) == ["Q?"]


def test_wrong_rollouts_of_a_node_join_the_pool_and_are_searched_once():
    # b is a node of value 1/2; its wrong rollout is searched next, beginning at b.
    script = {
        "Q?": [GOOD, BAD],
        "Q?a\nb\n": [RIGHT, sample("m\nn=8")],
        "Q?a\nb\nc\n": [WRONG, WRONG],
        "Q?a\nb\nm\n": [RIGHT, RIGHT],
    }
    found, engine = grow(script)
    # Each prefix is asked once: the popped rollouts do not come back, and b is not measured twice.
    assert all(len(sizes) == 1 for sizes in engine.requests.values())
    first, second, right = found.solutions
    assert second.steps == ["a", "b", "m", "n=8"] and second.hard_labels == [1, 1, 1, 0]
    assert second.visits == first.visits == [0, 1, 0, 0]  # N(b) = 1: one search began there
    assert found.root.visits == 1
    assert right.correct and found.usage["rollouts"] == 6


def test_values_of_zero_and_one_add_nothing_to_the_pool():
    script = {"Q?": [GOOD, BAD], "Q?a\nb\n": [WRONG, WRONG], "Q?a\n": [RIGHT, RIGHT]}
    found, _ = grow(script)
    assert [solution.hard_labels for solution in found.solutions] == [[1, 0, 0, 0], [1]]


def test_the_number_of_searches_is_bounded():
    script = {"Q?": [GOOD, BAD, sample("p\nq=8")], "Q?a\nb\n": [WRONG] * 2, "Q?a\n": [WRONG] * 2, "Q?p\n": [WRONG] * 2}
    found, _ = grow(script, filter_rollouts=3, searches=1)
    assert len([solution for solution in found.solutions if not solution.correct]) == 1
    found, _ = grow(script, filter_rollouts=3)
    assert len([solution for solution in found.solutions if not solution.correct]) == 2


def test_truncated_rollouts_count_as_wrong_but_are_not_searched():
    found, engine = grow({"Q?": [GOOD, sample("a\nb", truncated=True)]})
    assert list(engine.requests) == ["Q?"]
    assert [solution.response for solution in found.solutions] == ["y=7"] and found.root == Root(1, 2, 0)


def test_a_wrong_answer_that_contains_the_right_one_is_wrong():
    found, _ = grow({"Q?": [GOOD, sample("y=77")]})
    assert [solution.correct for solution in found.solutions] == [False, True]


def test_empty_wrong_rollouts_have_no_error():
    found, _ = grow({"Q?": [GOOD, Completion("", [EOS], False)]})
    assert [solution.hard_labels for solution in found.solutions] == [[], [1]]


def tree_with(nodes, visits=(), **options) -> _Tree:
    """nodes: prefix -> (rollouts right, lengths of the wrong rollouts after it)."""
    options = OmegaPRMOptions(max_new_tokens=1000, **options)
    tree = _Tree(QuestionRollouts(None, Characters(), is_right, options, "Q?", "7"), options)
    for prefix, (right, lengths) in nodes.items():
        rollouts = [Rollout((*prefix, 1), True, False)] * right
        tree.add_node(prefix, [*rollouts, *[Rollout(prefix + (2,) * n, False, False) for n in lengths]])
    tree.visits.update(dict(visits))
    return tree


def test_the_score_is_the_published_one():
    tree = tree_with({(): (1, [100, 500]), (5,): (3, [250])}, visits={(): 3, (5,): 1})
    scores = [tree.score(prefix, rollout) for prefix, rollout in tree.pool]
    exploration = 0.125 * math.sqrt(4)
    assert scores == pytest.approx(
        [
            0.5 ** (1 - 1 / 3) * 0.9**0.2 + exploration / 4,
            0.5 ** (1 - 1 / 3) * 0.9**1.0 + exploration / 4,
            0.5 ** (1 - 3 / 4) * 0.9**0.5 + exploration / 2,
        ]
    )


def test_selection_takes_the_best_and_raises_its_visits():
    tree = tree_with({(): (1, [100, 500]), (5,): (3, [250])})
    assert tree.select()[0] == (5,)
    assert tree.visits == {(5,): 1} and len(tree.pool) == 2
    prefix, rollout = tree.select()
    assert (prefix, len(rollout.token_ids)) == ((), 100) and tree.visits == {(5,): 1, (): 1}


def test_visits_make_room_for_others():
    # Equal in all but the visits: with exploration the less visited node goes first.
    nodes = {(5,): (1, [10]), (6,): (1, [10])}
    assert tree_with(nodes, visits={(5,): 2}).select()[0] == (6,)
    assert tree_with(nodes, visits={(5,): 2}, c_puct=0.0).select()[0] == (5,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"searches": 0}, "searches must be at least 1"),
        ({"alpha": 0.0}, "alpha must lie in 0..1, 0 excluded"),
        ({"beta": 1.5}, "beta must lie in 0..1, 0 excluded"),
        ({"c_puct": -1.0}, "c_puct must be at least 0"),
        ({"length_scale": 0}, "length_scale must be at least 1"),
        ({"rule": "any"}, "rule must be one of"),
        ({"temperature": 0.0}, "all samples equal"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        OmegaPRMOptions(**options)
