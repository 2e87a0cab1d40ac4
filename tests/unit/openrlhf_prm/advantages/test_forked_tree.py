"""Trees of responses that fork, on numbers a reader can check by hand."""

import math

import pytest
import torch

from openrlhf_prm.advantages.estimator import StepBatch
from openrlhf_prm.advantages.forked_tree import ForkedTree


def tree(outcomes, lengths, fork_ends, group_size=None):
    return StepBatch(
        step_ends=[torch.tensor([length] if length else [], dtype=torch.long) for length in lengths],
        outcome_rewards=torch.tensor(outcomes),
        group_size=group_size or len(outcomes),
        fork_ends=fork_ends,
    )


def test_each_segment_is_compared_with_its_siblings():
    got = ForkedTree(branching="2x2")(tree([1.0, 0.0, 0.0, 0.0], [3, 4, 2, 3], [[2], [2], [1], [1]]))
    # The first pair is worth 0.5 against 0; behind the fork 1 against 0.
    assert got[0].tolist() == [0.5, 0.5, 1.0] and got[1].tolist() == [0.5, 0.5, -1.0, -1.0]
    assert got[2].tolist() == [-0.5, 0.0] and got[3].tolist() == [-0.5, 0.0, 0.0]


def test_three_levels():
    outcomes = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    got = ForkedTree(branching="2x2x2")(tree(outcomes, [3] * 8, [[1, 2]] * 8))
    assert got[0].tolist() == [0.75 - 0.25, 1.0 - 0.5, 0.0]
    assert got[3].tolist() == [0.5, -0.5, -1.0] and got[7].tolist() == [-0.5, 0.5, 1.0]


def test_published_forms_by_hand():
    given = tree([1.0, 0.0, 0.0, 0.0], [2, 2, 2, 2], [[1]] * 4)
    spo = ForkedTree(branching="2x2", baseline="spo_tree")(given)
    # The question is worth 1/4, the first pair 1/2: a gain of 1/4, shared by two.
    assert [row.tolist() for row in spo] == [[0.125, 0.5], [0.125, -0.5], [-0.125, 0.0], [-0.125, 0.0]]
    treerl = ForkedTree(branching="2x2", baseline="treerl")(given)
    assert treerl[0].tolist() == pytest.approx([0.5 / 2**0.5, 0.5 + 0.75])
    assert treerl[1].tolist() == pytest.approx([0.5 / 2**0.5, -0.5 - 0.25])
    assert treerl[2].tolist() == pytest.approx([-0.5 / 2**0.5, -0.25])


def node_values(outcomes, factors):
    """For every response its path of nodes below the root: (V, L, V of the parent), top down, from a tree of lists."""
    if not factors:
        return [[]]
    size = len(outcomes) // factors[0]
    parent, paths = sum(outcomes) / len(outcomes), []
    for start in range(0, len(outcomes), size):
        below = outcomes[start : start + size]
        paths += [[(sum(below) / size, size, parent), *rest] for rest in node_values(below, factors[1:])]
    return paths


@pytest.mark.parametrize("branching", ["4x2", "2x2x2", "3x2x2"])
def test_published_forms_are_the_papers_formulas(branching):
    factors = tuple(map(int, branching.split("x")))
    count = math.prod(factors)
    outcomes = [float((7 * place) % 5 < 2) for place in range(count)]
    given = tree(outcomes, [len(factors)] * count, [list(range(1, len(factors)))] * count)
    paths, root = node_values(outcomes, factors), sum(outcomes) / count
    # SPO-tree's program: an edge is a sample of its own, with the child's reward less its parent's.
    edges = [[(value - parent) / leaves for value, leaves, parent in path] for path in paths]
    # TreeRL: global and local advantage, divided by the root of the number of leaves.
    both = [[((value - root) + (value - parent)) / leaves**0.5 for value, leaves, parent in path] for path in paths]
    for name, expected in (("spo_tree", edges), ("treerl", both)):
        got = ForkedTree(branching=branching, baseline=name)(given)
        assert [row.tolist() for row in got] == [pytest.approx(row, abs=1e-6) for row in expected]


@pytest.mark.parametrize("name", ["spo_tree", "treerl"])
def test_published_forms_where_nothing_is_to_be_learned(name):
    estimator = ForkedTree(branching="2x2", baseline=name)
    assert all(not row.any() for row in estimator(tree([1.0] * 4, [2, 2, 0, 3], [[1], [1], [], [1]])))
    ended = estimator(tree([1.0, 1.0, 0.0, 0.0], [2, 2, 3, 3], [[], [], [1], [1]]))
    # Two copies of a response that ended before its fork have one segment.
    assert ended[0].tolist() == ended[1].tolist() == pytest.approx([0.25 if name == "spo_tree" else 2**-0.5] * 2)
    assert ended[2][1:].tolist() == pytest.approx([0.0 if name == "spo_tree" else -0.5] * 2)


def test_a_response_that_ended_stands_for_what_would_have_followed():
    got = ForkedTree(branching="2x2")(tree([1.0, 1.0, 1.0, 0.0], [2, 2, 3, 3], [[], [], [1], [1]]))
    assert got[0].tolist() == [0.5, 0.5] == got[1].tolist()
    assert got[2].tolist() == [-0.5, 1.0, 1.0] and got[3].tolist() == [-0.5, -1.0, -1.0]


def test_groups_do_not_mix_and_equal_outcomes_are_nothing():
    got = ForkedTree(branching="2x2")(tree([1.0] * 4 + [0.0] * 4, [2, 0, 2, 2] * 2, [[1], [], [1], [1]] * 2, 4))
    assert [row.tolist() for row in got] == [[0.0] * 2, [], [0.0] * 2, [0.0] * 2] * 2


def test_it_reads_forks_and_groups():
    given = dict(step_ends=[torch.tensor([1])] * 4, outcome_rewards=torch.zeros(4))
    for fields in ({"group_size": 4}, {"fork_ends": [[]] * 4}):
        with pytest.raises(TypeError):
            ForkedTree(branching="2x2")(StepBatch(**given, **fields))


def test_another_number_of_responses_is_refused():
    with pytest.raises(ValueError, match="3 responses are no tree of 2x2"):
        ForkedTree(branching="2x2")(tree([1.0] * 3, [1] * 3, [[]] * 3))


@pytest.mark.parametrize("branching", ["4", "", "4x1", "0x2", "2,2", "x2", "-2x2"])
def test_what_is_no_tree_is_named(branching):
    with pytest.raises(ValueError, match="^branching must be numbers of at least 2"):
        ForkedTree(branching=branching)


def test_who_leaves_whose_path_and_where():
    assert [ForkedTree(branching="2x2x2").parent(place) for place in range(8)] == [
        *(None, (2, 0), (1, 0), (2, 2)),
        *(None, (2, 4), (1, 4), (2, 6)),
    ]
    assert [ForkedTree(branching="3x2").parent(place) for place in range(6)] == [
        *(None, (1, 0), None, (1, 2)),
        *(None, (1, 4)),
    ]


def test_forks_lie_between_steps():
    two = ForkedTree(branching="2x2x2")
    assert two.fork_ends([2, 5, 9], []) == [2, 5] and two.fork_ends([2, 5, 9, 11], []) == [2, 5]
    assert two.fork_ends([4], []) == [] and two.fork_ends([], []) == []
    # Another end of the step before it moves no fork that others have taken already.
    assert two.fork_ends([2, 6, 9], [3]) == [3, 6] and two.fork_ends([2, 6], [3]) == [3]
    assert ForkedTree(branching="2x2x2", fork_every=2).fork_ends([1, 2, 3, 4, 5], []) == [2, 4]


def test_forks_after_so_many_tokens():
    by_tokens = ForkedTree(branching="2x2x2", fork_at="tokens", fork_every=3)
    assert by_tokens.fork_ends([2, 10], []) == [3, 6] and by_tokens.fork_ends([2, 10], [4]) == [4, 7]
    assert by_tokens.fork_ends([6], []) == [3], "no fork at the end"
    assert by_tokens.fork_ends([3], []) == [] and by_tokens.fork_ends([], []) == []


def test_forks_before_the_least_likely_tokens():
    unsure = ForkedTree(branching="2x2x2", fork_at="unsure")
    # The first token is no fork: nothing stands before it that two responses could share.
    assert unsure.fork_ends([6], [], [0.1, 0.9, 0.3, 0.9, 0.2, 0.9]) == [2, 4]
    # A response that left at 2 chooses among what it wrote itself behind its first token there.
    assert unsure.fork_ends([6], [2], [0.1, 0.05, 0.01, 0.9, 0.8, 0.7]) == [2, 5]
    assert unsure.fork_ends([6], [2, 5], [0.1, 0.05, 0.01, 0.9, 0.8, 0.7]) == [2, 5]
    assert unsure.fork_ends([4], [], [0.5] * 4) == [1, 2], "the earlier of equals"
    assert unsure.fork_ends([2], [], [0.5, 0.5]) == [1] and unsure.fork_ends([1], [], [0.5]) == []
    assert unsure.fork_ends([], [], []) == [] and unsure.fork_ends([3], [2], [0.1] * 3) == [2]


def test_only_forks_that_no_later_token_moves_are_unbiased():
    assert ForkedTree(branching="2x2").unbiased and ForkedTree(branching="2x2", fork_at="tokens").unbiased
    assert not ForkedTree(branching="2x2", fork_at="unsure").unbiased
    with_places = ForkedTree(branching="2x2", fork_at="unsure", fork_every=2)
    assert with_places.unread("algo.advantage") == {"fork_every": "--algo.advantage.fork_at steps or tokens"}
    assert ForkedTree(branching="2x2").unread("algo.advantage") == {}
