"""Advantage estimators on numbers a reader can check by hand."""

import dataclasses
import math

import pytest
import torch

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.estimator import EstimatorNeed, StepBatch
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES, apply_host_baseline, outcomes_less_baseline
from openrlhf_prm.advantages.min_form_rloo import MinFormRLOO
from openrlhf_prm.advantages.prime import Prime
from openrlhf_prm.advantages.spo import SPO
from openrlhf_prm.advantages.step_group import StepGroup
from openrlhf_prm.advantages.step_returns import StepReturns
from openrlhf_prm.advantages.tensors import (
    discounted,
    mean_of_others,
    spread_over_tokens,
    weigh_negative,
    whitened,
)
from openrlhf_prm.advantages.tree import Tree
from openrlhf_prm.advantages.vine import Vine


def batch(rewards, ends, outcomes, group_size, **extra):
    return StepBatch(
        process_rewards=[torch.tensor(row) for row in rewards],
        step_ends=[torch.tensor(row) for row in ends],
        outcome_rewards=torch.tensor(outcomes),
        group_size=group_size,
        **extra,
    )


def test_spread_over_tokens():
    assert spread_over_tokens(torch.tensor([1.0, 2.0]), torch.tensor([2, 5])).tolist() == [1, 1, 2, 2, 2]


def test_step_group_by_hand():
    # Returns: [1+0, 0] + 1 = [2, 1] and [-1-1, -1] + 0 = [-2, -1]; means by step index: [0, 0].
    advantages = StepGroup(std_norm=False)(batch([[1.0, 0.0], [-1.0, -1.0]], [[1, 3], [2, 3]], [1.0, 0.0], 2))
    assert advantages[0].tolist() == [2, 1, 1]
    assert advantages[1].tolist() == [-2, -2, -1]


def test_step_group_compares_only_responses_that_have_the_step():
    advantages = StepGroup(std_norm=False)(batch([[1.0], [1.0, 1.0]], [[1], [1, 2]], [0.0, 0.0], 2))
    assert advantages[0].tolist() == [-0.5]
    assert advantages[1].tolist() == [0.5, 0.0]


def test_step_group_with_one_step_is_group_norm():
    outcomes = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5, 0.2])
    advantages = StepGroup()(batch([[0.0]] * 6, [[2]] * 6, outcomes.tolist(), 3))
    groups = outcomes.reshape(-1, 3)
    expected = (groups - groups.mean(-1, keepdim=True)) / (groups.std(-1, keepdim=True) + 1e-9)
    assert torch.stack(advantages)[:, 0].tolist() == pytest.approx(expected.reshape(-1).tolist())


def test_step_group_of_responses_that_agree_only_as_wholes():
    """Potentials of two wrong responses: both sum to -1, the second stood worse after its first step."""
    wrong = [[-0.5, -0.5], [-0.7, -0.3]]
    advantages = StepGroup()(batch(wrong, [[1, 2]] * 2, [0.0, 0.0], 2))
    assert [row.tolist() for row in advantages] == [pytest.approx([0.0, -0.1]), pytest.approx([0.0, 0.1])]


def test_step_group_is_zero_where_all_agree():
    advantages = StepGroup()(batch([[0.5]] * 4, [[3]] * 4, [1.0] * 4, 4))
    assert all(row.tolist() == [0, 0, 0] for row in advantages)


def test_discounted_by_hand():
    rewards = torch.tensor([1.0, 2.0, 4.0])
    assert discounted(rewards, 1.0).tolist() == [7, 6, 4]
    assert discounted(rewards, 0.5).tolist() == [3, 4, 4]
    assert discounted(rewards, 0.0).tolist() == [1, 2, 4]


def test_step_returns_by_hand():
    # Against the other response: first returns 0.5 and -0.5 differ by 1, outcomes 1 and 0 too.
    rewards = [[0.5, 0.25], [-0.5]]
    advantages = StepReturns(lambd=0.0)(batch(rewards, [[2, 3], [2]], [1.0, 0.0], 2))
    assert advantages[0].tolist() == [2, 2, 1.25]
    assert advantages[1].tolist() == [-2, -2]


def test_a_step_that_changes_nothing_gets_nothing_from_step_returns():
    advantages = StepReturns(lambd=0.0)(batch([[0.2, 0.0], [0.2, -0.9]], [[1, 2], [1, 2]], [0.0, 0.0], 2))
    assert [row.tolist() for row in advantages] == [pytest.approx([0, 0]), pytest.approx([0, -0.9])]


def test_step_returns_with_one_step_is_the_leave_one_out_baseline():
    advantages = StepReturns()(batch([[0.3], [0.9]], [[1], [1]], [0.0, 0.0], 2))
    assert torch.cat(advantages).tolist() == pytest.approx([-0.6, 0.6])


@pytest.mark.parametrize("estimator", [StepGroup, StepReturns])
def test_lambda_out_of_range_is_named(estimator):
    with pytest.raises(ValueError, match="^lambd must lie in 0..1, got 1.5"):
        estimator(lambd=1.5)


def test_batches_that_do_not_align_are_refused():
    with pytest.raises(ValueError, match="got 1 span rows, expected 2"):
        batch([[1.0]], [[1]], [1.0, 0.0], 1)
    with pytest.raises(ValueError, match="groups of 2"):
        batch([[1.0]] * 3, [[1]] * 3, [0.0] * 3, 2)
    with pytest.raises(ValueError, match="response 1 has 2 step rewards, expected 1"):
        batch([[1.0], [1.0, 1.0]], [[1], [1]], [0.0] * 2, 2)
    with pytest.raises(ValueError, match="got 1 reward rows, expected 2"):
        batch([[1.0]], [[1], [1]], [1.0, 0.0], 1)
    with pytest.raises(ValueError, match=r"groups of \[2, 2\]"):
        batch([[1.0]] * 3, [[1]] * 3, [0.0] * 3, [2, 2])


def rows(values):
    return [torch.tensor(row) for row in values]


def test_host_baselines_by_hand():
    group = rows([[1.0, 0.0], [2.0]])
    assert [row.tolist() for row in apply_host_baseline("gae", group, 2)] == [[1, 0], [2]]
    assert [row.tolist() for row in apply_host_baseline("dr_grpo", group, 2)] == [[0, -1], [1]]
    assert [row.tolist() for row in apply_host_baseline("rloo", group, 2)] == [[-1, -2], [1.5]]
    normed = apply_host_baseline("group_norm", group, 2)
    assert normed[0].tolist() + normed[1].tolist() == pytest.approx([0, -1, 1])


def test_whole_process_returns_are_compared_where_that_is_asked_for():
    group = rows([[1.0, 0.0], [2.0]])
    # Sums 1 and 2 against each other: -1 and 1, on the last step.
    assert [row.tolist() for row in apply_host_baseline("rloo", group, 2, "returns")] == [[1, -2], [1]]
    assert [row.tolist() for row in apply_host_baseline("dr_grpo", group, 2, "returns")] == [[1, -1.5], [0.5]]
    scored = apply_host_baseline("group_norm", group, 2, "returns")
    scale = math.sqrt(0.5)
    assert scored[0].tolist() == pytest.approx([1 / scale, -1 / scale - 0.5 / scale])
    assert scored[1].tolist() == pytest.approx([0.5 / scale])
    alike = apply_host_baseline("group_norm", rows([[0.1, 0.2], [0.3]]), 2, "returns")
    assert [row.sum().item() for row in alike] == pytest.approx([0.0, 0.0], abs=1e-7)
    assert [row.tolist() for row in apply_host_baseline("gae", group, 2, "returns")] == [[1, 0], [2]]
    assert [len(row) for row in apply_host_baseline("rloo", rows([[], [1.0]]), 2, "returns")] == [0, 1]


def test_baselines_do_not_mix_groups_but_flash_reinforce_takes_the_batch():
    groups = rows([[1.0], [3.0], [10.0], [10.0]])
    assert [float(row) for row in apply_host_baseline("dr_grpo", groups, 2)] == [-1, 1, 0, 0]
    assert [float(row) for row in apply_host_baseline("flash_reinforce", groups, 2)] == [-5, -3, 4, 4]


def test_one_step_per_response_is_what_the_host_does_to_a_scalar_reward():
    rewards = torch.tensor([0.3, 0.9, 0.1])
    got = {name: torch.cat(apply_host_baseline(name, list(rewards.split(1)), 3)) for name in HOST_BASELINES}
    mean, std = rewards.mean(), rewards.std()
    assert torch.allclose(got["group_norm"], (rewards - mean) / (std + 1e-9))
    assert torch.allclose(got["rloo"], rewards - (rewards.sum() - rewards) / 2)
    assert torch.allclose(got["reinforce_baseline"], rewards - mean)
    assert torch.allclose(got["reinforce"], rewards)


@pytest.mark.parametrize("name", HOST_BASELINES)
def test_a_group_of_one_step_degenerates_without_nan(name):
    assert torch.isfinite(apply_host_baseline(name, rows([[0.7]]), 1)[0]).all()


def outcomes_batch(outcomes, ends, group_size, **extra):
    return batch([[0.0] * len(row) for row in ends], ends, outcomes, group_size, **extra)


def test_min_form_rloo_by_hand():
    # The others' rewards per token: -1 / 4 for the first, 1 / 2 for the second.
    advantages = MinFormRLOO(std_norm=False)(batch([[1.0, 0.0], [-1.0]], [[1, 2], [4]], [1.0, 0.0], 2))
    assert advantages[0].tolist() == pytest.approx([1 + 0.25 + 0.25 + 1, 0.25 + 1])
    assert advantages[1].tolist() == pytest.approx([-1 - 4 * 0.5 - 1] * 4)


def test_min_form_rloo_does_not_see_where_steps_are_cut():
    # The same tokens and total reward in one step or in three: the first token's advantage is the same.
    whole = MinFormRLOO(std_norm=False)(batch([[0.6], [0.3]], [[6], [6]], [1.0, 0.0], 2))
    cut = MinFormRLOO(std_norm=False)(batch([[0.2, 0.2, 0.2], [0.3]], [[2, 4, 6], [6]], [1.0, 0.0], 2))
    assert whole[0][0].item() == pytest.approx(cut[0][0].item())
    assert whole[1].tolist() == pytest.approx(cut[1].tolist())


def test_min_form_rloo_of_equal_responses_is_nothing_at_the_first_step():
    advantages = MinFormRLOO(std_norm=False)(batch([[0.5, 0.5]] * 3, [[2, 4]] * 3, [1.0] * 3, 3))
    assert torch.stack(advantages)[:, 0].tolist() == pytest.approx([0.0] * 3)


def test_min_form_rloo_against_the_others_whole_returns_and_whitened():
    given = batch([[1.0, 0.0], [-1.0]], [[1, 2], [4]], [1.0, 0.0], 2)
    advantages = MinFormRLOO(std_norm=False, baseline="response")(given)
    assert [row.tolist() for row in advantages] == [[1 + 1 + 1, 0 + 1 + 1], [-1 - 1 - 1] * 4]
    white = torch.cat(MinFormRLOO()(given))
    assert white.mean().item() == pytest.approx(0.0, abs=1e-6) and white.std().item() == pytest.approx(1.0, abs=1e-6)


def test_prime_as_the_paper_the_authors_code_and_without_bias():
    given = batch([[0.5, 0.25], [-0.25]], [[1, 2], [2]], [1.0, 0.0], 2)
    # Mean rewards 0.375 and -0.25; the outcome against the other's is 1 and -1.
    paper = Prime(std_norm=False)(given)
    assert [row.tolist() for row in paper] == [[0.75 + 2 * 0.25 + 1, 0.25 + 0.25 + 1], [-0.25 - 0.375 - 1] * 2]
    # The code adds (r - own mean) / (2 - 1): 0.125 and -0.125, whose sum over both steps is 0.
    code = Prime(std_norm=False, baseline="code")(given)
    assert [row.tolist() for row in code] == [[2.25, 1.5 - 0.125], [-1.625] * 2]
    whole = Prime(std_norm=False, baseline="response")(given)
    assert [row.tolist() for row in whole] == [[0.75 + 0.25 + 1, 0.25 + 0.25 + 1], [-0.25 - 0.75 - 1] * 2]
    # The largest process return is 0.75.
    normed = Prime(std_norm=False, baseline="response", return_norm=True)(given)
    assert normed[0].tolist() == pytest.approx([1 + 1 / 3 + 1, 1 / 3 + 1 / 3 + 1], abs=1e-5)


def test_step_group_against_the_others_alone():
    # At the second step of the second response no other is left: the first's return from its last step stands in.
    given = batch([[1.0], [1.0, 0.5]], [[1], [1, 2]], [0.0, 0.25], 2)
    advantages = StepGroup(std_norm=False, baseline="others")(given)
    assert [row.tolist() for row in advantages] == [[1.0 - 1.75], [1.75 - 1.0, 0.75 - 1.0]]


def undivided(name):
    kind = ADVANTAGE_ESTIMATORS[name]
    return kind(std_norm=False) if "std_norm" in {field.name for field in dataclasses.fields(kind)} else kind()


# A tree's groups are whole: `test_forked_tree`.
OF_ANY_SIZE = [name for name, kind in ADVANTAGE_ESTIMATORS.items() if EstimatorNeed.FORKS not in kind.needs]


@pytest.mark.parametrize("name", OF_ANY_SIZE)
def test_groups_of_different_sizes_are_groups_of_their_own(name):
    """The first question lost a response: each question's advantages are those of its own batch."""

    def given(places, group_size):
        there = dict(
            process_rewards=[[0.5, 0.25], [0.0], [-0.5], [0.25, 0.0, 0.5], [1.0]],
            token_ids=[[1, 2, 3], [1, 2], [1, 5], [1, 2, 3], [4, 4]],
            values=[[float("nan"), 0.5], [float("nan")], [float("nan")], [float("nan"), 0.25, 0.75], [float("nan")]],
            probabilities=[[0.5] * 3, [0.5] * 2, [0.5] * 2, [0.5] * 3, [0.5] * 2],
            log_ratios=[[0.5, 1.0, -1.0], [0.0, 0.5], [1.0, 1.0], [0.0, -0.5, 2.0], [0.25, 0.0]],
        )
        chosen = {field: [rows[place] for place in places] for field, rows in there.items()}
        for field in ("process_rewards", "values", "probabilities", "log_ratios"):
            chosen[field] = [torch.tensor(row) for row in chosen[field]]
        ends = [[2, 3], [2], [2], [1, 2, 3], [2]]
        return StepBatch(
            step_ends=[torch.tensor(ends[place]) for place in places],
            outcome_rewards=torch.tensor([1.0, 0.0, 0.0, 1.0, 0.5])[list(places)],
            penalties=torch.zeros(len(places)),
            correct=torch.tensor([True, False, False, True, True])[list(places)],
            group_size=group_size,
            **chosen,
        )

    estimator = undivided(name)
    together = estimator(given(range(5), [2, 3]))
    apart = estimator(given(range(2), 2)) + estimator(given(range(2, 5), 3))
    assert [row.tolist() for row in together] == [pytest.approx(row.tolist()) for row in apart]


@pytest.mark.parametrize("name", OF_ANY_SIZE)
def test_a_response_without_tokens_has_no_advantage_and_its_outcome_counts_for_the_others(name):
    nan = float("nan")

    def advantages(outcome):
        given = StepBatch(
            step_ends=[torch.tensor([1, 2]), torch.tensor([], dtype=torch.long), torch.tensor([2])],
            outcome_rewards=torch.tensor([1.0, outcome, 0.25]),
            group_size=3,
            process_rewards=rows([[0.5, 0.25], [], [0.0]]),
            token_ids=[[1, 2], [], [1, 3]],
            values=rows([[nan, 0.5], [nan], [nan]]),
            penalties=torch.zeros(3),
            probabilities=rows([[0.5, 0.5], [], [0.5, 0.5]]),
            correct=torch.tensor([True, True, False]),
            log_ratios=rows([[0.5, 0.5], [], [0.5, 0.5]]),
        )
        return undivided(name)(given)

    got = advantages(0.0)
    assert [len(row) for row in got] == [2, 0, 2] and torch.isfinite(torch.cat(got)).all()
    assert [row.tolist() for row in got] != [row.tolist() for row in advantages(2.0)]


def test_tree_by_hand():
    # Tokens: the first two share step 1 (tokens 1 2), the third parts at once.
    tokens = [[1, 2, 3], [1, 2, 4], [9, 9, 9]]
    advantages = Tree()(outcomes_batch([1.0, 0.0, 0.0], [[2, 3], [2, 3], [3]], 3, token_ids=tokens))
    # Step 1 of the first: mean(1, 0) - mean(0, 0); step 2: 1 - 0, the other response that shares step 1.
    assert advantages[0].tolist() == [0.5, 0.5, 1.0]
    assert advantages[1].tolist() == [0.0, 0.0, -1.0]
    assert advantages[2].tolist() == [-0.5, -0.5, -0.5]


def test_tree_without_shared_steps_is_mean_of_others():
    advantages = Tree()(outcomes_batch([1.0, 0.0], [[1, 2], [2]], 2, token_ids=[[1, 2], [3, 4]]))
    assert [row.tolist() for row in advantages] == [[1.0, 1.0], [-1.0, -1.0]]


def test_tree_of_equal_responses_is_nothing_and_a_prefix_is_not_the_whole():
    advantages = Tree()(outcomes_batch([1.0, 1.0], [[1, 2], [1, 2]], 2, token_ids=[[1, 2], [1, 2]]))
    assert [row.tolist() for row in advantages] == [[0.0, 0.0]] * 2
    shorter = Tree()(outcomes_batch([1.0, 0.0], [[2], [1]], 2, token_ids=[[1, 2], [1]]))
    assert [row.tolist() for row in shorter] == [[1.0, 1.0], [-1.0]]


def test_equal_words_after_another_answer_of_a_tool_are_another_state():
    same = Tree()(outcomes_batch([1.0, 0.0], [[1, 2]] * 2, 2, token_ids=[[1, (8, 2)], [1, (8, 2)]]))
    other = Tree()(outcomes_batch([1.0, 0.0], [[1, 2]] * 2, 2, token_ids=[[1, (8, 2)], [1, (9, 2)]]))
    # The first step is shared in both: (1 + 0) / 2 - 0. After another answer only the response itself is left.
    assert [row.tolist() for row in same] == [[0.5, 0.5], [-0.5, -0.5]]
    assert [row.tolist() for row in other] == [[0.5, 1.0], [-0.5, -1.0]]


def test_tree_does_not_mix_groups():
    advantages = Tree()(outcomes_batch([1.0, 0.0, 1.0, 1.0], [[1]] * 4, 2, token_ids=[[1]] * 4))
    assert torch.cat(advantages).tolist() == [0.5, -0.5, 0.0, 0.0]


def nothing(count):
    return torch.zeros(count)


def test_vine_by_hand():
    values = [torch.tensor([float("nan"), 0.75]), torch.tensor([float("nan"), 0.25, 0.5])]
    advantages = Vine(std_norm=False)(
        outcomes_batch([1.0, 0.0], [[2, 3], [1, 2, 3]], 2, values=values, penalties=nothing(2))
    )
    # V(question) is the other response's outcome.
    assert advantages[0].tolist() == [0.75, 0.75, 0.25]
    assert advantages[1].tolist() == [-0.75, 0.25, -0.5]


def test_vine_telescopes_and_whitens():
    values = [torch.tensor([float("nan"), 0.75]), torch.tensor([float("nan"), 0.25])]
    ends = [[1, 2], [1, 2]]
    plain = Vine(std_norm=False)(outcomes_batch([1.0, 0.0], ends, 2, values=values, penalties=nothing(2)))
    assert [row.sum().item() for row in plain] == [1.0, -1.0]
    white = torch.cat(Vine()(outcomes_batch([1.0, 0.0], ends, 2, values=values, penalties=nothing(2))))
    assert white.mean().item() == pytest.approx(0.0, abs=1e-6) and white.std().item() == pytest.approx(1.0, abs=1e-6)


def test_vine_puts_penalties_on_all_tokens_and_not_into_values():
    values = [torch.tensor([float("nan"), 0.5])] * 2
    penalties = torch.tensor([-0.25, 0.25])
    advantages = Vine(std_norm=False)(
        outcomes_batch([1 - 0.25, 0 + 0.25], [[1, 2]] * 2, 2, values=values, penalties=penalties)
    )
    assert advantages[0].tolist() == [0.5 - 0.5, 0.5 - 0.5]
    assert advantages[1].tolist() == [-0.5 + 0.5, -0.5 + 0.5]


def test_vine_leaves_responses_without_values_alone():
    advantages = Vine()(outcomes_batch([1.0, 1.0], [[1, 2]] * 2, 2, values=[None, None], penalties=nothing(2)))
    assert [row.tolist() for row in advantages] == [[0.0, 0.0]] * 2


def test_spo_masks_tokens_without_a_choice():
    values = [torch.tensor([float("nan"), 0.75]), torch.tensor([float("nan")])]
    probabilities = [torch.tensor([0.5, 0.95, 0.2]), torch.tensor([0.99, 0.8])]
    given = outcomes_batch(
        [1.0, 0.0], [[2, 3], [2]], 2, values=values, penalties=nothing(2), probabilities=probabilities
    )
    assert [row.tolist() for row in SPO(std_norm=False)(given)] == [[0.75, 0.0, 0.25], [0.0, -1.0]]
    assert [row.tolist() for row in SPO(std_norm=False, mask=False)(given)] == [[0.75, 0.75, 0.25], [-1.0, -1.0]]


def test_spo_whitens_over_the_tokens_with_a_choice_alone():
    values = [torch.tensor([float("nan"), 0.8]), torch.tensor([float("nan")])]
    probabilities = [torch.tensor([0.5, 0.95, 0.95, 0.95]), torch.tensor([0.2, 0.99])]
    given = outcomes_batch(
        [1.0, 0.0], [[1, 4], [2]], 2, values=values, penalties=nothing(2), probabilities=probabilities
    )
    # Two tokens count, with 0.8 and -1: mean -0.1, unbiased deviation 0.9 * sqrt(2).
    expected = 0.9 / (0.9 * math.sqrt(2))
    white = SPO()(given)
    assert white[0].tolist() == pytest.approx([expected, 0.0, 0.0, 0.0])
    assert white[1].tolist() == pytest.approx([-expected, 0.0])
    assert [mask.tolist() for mask in SPO().trained_tokens(given)] == [[True, False, False, False], [True, False]]
    assert SPO(mask=False).trained_tokens(given) is None


def test_segments_end_after_low_probability_tokens():
    spo = SPO(probability=0.5, cut_points=2)
    assert spo.segment_ends([0.1, 0.9, 0.2, 0.9, 0.3]) == [3, 5]
    assert spo.segment_ends([0.1, 0.2]) == [2]
    assert spo.segment_ends([0.9, 0.9]) == [2]
    assert spo.segment_ends([]) == []


@pytest.mark.parametrize("options", [{"probability": 0.0}, {"cut_points": 0}])
def test_segment_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} "):
        SPO(**options)


def test_vine_whitens_penalties_with_the_values():
    values = [torch.tensor([float("nan"), 0.5])] * 2 + [None] * 2
    penalties = torch.tensor([0.25, -0.25, 0.25, -0.25])
    given = outcomes_batch([1.25, -0.25, 1.25, 0.75], [[1, 2]] * 4, 2, values=values, penalties=penalties)
    plain, white = Vine(std_norm=False)(given), Vine()(given)
    assert [row.tolist() for row in plain] == [[1.0, 1.0], [-1.0, -1.0], [0.5, 0.5], [-0.5, -0.5]]
    scale = torch.cat(plain[:2]).std()
    for got, expected in zip(white, plain, strict=True):
        assert got.tolist() == pytest.approx((expected / scale).tolist())


def test_numbers_that_agree_but_for_rounding_are_no_scale():
    rewards = [torch.full((1,), 0.1 * 3) for _ in range(8)]
    assert all(row.tolist() == [0.0] for row in apply_host_baseline("group_norm", rewards, 8))
    noise = [torch.tensor([1e-9, -1e-9]), torch.tensor([0.0, 1e-9])]
    assert [row.tolist() for row in whitened(noise, [True, True])] == [[0.0, 0.0]] * 2


def test_negative_advantages_are_weighed():
    advantages = torch.tensor([[2.0, -1.0, 0.0], [-4.0, 0.5, -0.0]])
    assert weigh_negative(advantages, 0.25).tolist() == [[2.0, -0.25, 0.0], [-1.0, 0.5, 0.0]]
    assert torch.equal(weigh_negative(advantages, 1.0), advantages)
    assert weigh_negative(advantages, 0.0).min() == 0.0


def test_whitening_of_one_token_changes_nothing():
    assert whitened([torch.tensor([3.0])], [True])[0].tolist() == [3.0]


def test_the_mean_of_others_by_hand():
    assert mean_of_others(torch.tensor([1.0, 0.0, 0.5, 4.0]), 2).tolist() == [0.0, 1.0, 4.0, 0.5]
    assert mean_of_others(torch.tensor([7.0]), 1).tolist() == [0.0]


def complete_batch(fields) -> StepBatch:
    """Two responses of two steps with everything that an estimator may ask for, of which it gets `fields`."""
    there = dict(
        group_size=2,
        process_rewards=rows([[0.5, 0.25], [0.0, -0.5]]),
        token_ids=[[1, 2], [1, 3]],
        values=rows([[float("nan"), 0.75], [float("nan"), 0.25]]),
        penalties=torch.tensor([0.0, -0.25]),
        probabilities=rows([[0.5, 0.95], [0.2, 0.1]]),
        correct=torch.tensor([True, False]),
        log_ratios=rows([[0.5, -0.5], [0.0, 1.0]]),
        fork_ends=[[1], [1]],
    )
    chosen = {field: there[field] for field in fields}
    return StepBatch(step_ends=rows([[1, 2], [1, 2]]), outcome_rewards=torch.tensor([1.0, -0.25]), **chosen)


def fields_of(needs) -> set[str]:
    return {field for need in needs for field in need.value}


@pytest.mark.parametrize("name", OF_ANY_SIZE)
def test_an_estimator_needs_what_it_declares_and_nothing_else(name):
    estimator = ADVANTAGE_ESTIMATORS[name]()
    everything = estimator(complete_batch(fields_of(EstimatorNeed)))
    declared = estimator(complete_batch(fields_of(estimator.needs)))
    assert [row.tolist() for row in declared] == [row.tolist() for row in everything]
    for need in estimator.needs:
        with pytest.raises((TypeError, ValueError)):
            estimator(complete_batch(fields_of(estimator.needs - {need})))


@pytest.mark.parametrize("name", sorted(set(HOST_BASELINES) - {"gae"}))
def test_one_response_that_is_kept_has_nothing_to_be_compared_with(name):
    assert outcomes_less_baseline(name, torch.tensor([1.0]), [1]).tolist() == [0.0]
