"""What estimators say of their bias is so, to 1e-6, on every process that the benchmark enumerates."""

import math

import pytest

from benchmarks import credit
from benchmarks.decision_processes import PROCESSES, Choice, State, forked_groups, responses
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.forked_tree import ForkedTree
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES

ROWS = {row.name: row for row in credit.rows()}


def biases(row, processes=PROCESSES, group_size=2) -> list[float]:
    return [credit.figures(row, PROCESSES[name], group_size).bias for name in processes]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.unbiased])
def test_what_is_called_unbiased_is(name):
    assert max(biases(ROWS[name])) < 1e-6


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.unbiased])
def test_what_is_not_called_unbiased_is_not(name):
    assert max(biases(ROWS[name], ("stop or go", "two habits"))) > 1e-4


@pytest.mark.parametrize("factors", [(2, 2), (3, 2), (2, 2, 2)])
def test_trees_that_fork_are_unbiased_and_weigh_segments_by_the_chance_of_their_state(factors):
    row = credit.Row("", True, False, credit.ours(ForkedTree(branching="x".join(map(str, factors)))), False, factors)
    for name in ("stop or go", "shared prefixes"):
        process = PROCESSES[name]
        weights = [weight for weight, _ in forked_groups(process, factors)]
        assert sum(weights) == pytest.approx(1.0)
        assert credit.figures(row, process).bias < 1e-6


def test_leave_one_out_is_the_hosts_rloo():
    own = credit.Row("", True, False, credit.leave_one_out)
    for process in PROCESSES.values():
        assert vars(credit.figures(own, process)) == pytest.approx(
            vars(credit.figures(ROWS["rloo, outcome alone"], process)), abs=1e-5
        )


def test_groups_of_three_are_no_exception():
    for name in ("tree", "step_group std_norm False, baseline others", "step_returns"):
        assert max(biases(ROWS[name], ("shared prefixes", "two turns"), 3)) < 1e-6


def test_every_estimator_has_a_form_without_bias_and_is_in_the_table():
    assert set(credit.OPTIONS) == set(ADVANTAGE_ESTIMATORS)
    for name, kind in ADVANTAGE_ESTIMATORS.items():
        assert any(kind(**options).unbiased for options in credit.OPTIONS[name]), name
    assert {name.split(",")[0] for name in ROWS if "," in name and name.split(",")[0] in HOST_BASELINES} == set(
        HOST_BASELINES
    )


def test_published_forms_charge_for_steps_where_nothing_is_to_be_learned():
    for name in ("prime std_norm False", "min_form_rloo std_norm False", "rloo, baseline_of steps"):
        (bias,) = biases(ROWS[name], ("indifferent",))
        assert bias > 0.09, name


def test_step_returns_have_the_right_sign_on_every_decision():
    """Three decisions in a row at G = 2; only the middle one is worse than its alternative."""
    last = State("c", (Choice(0.5, 0.0, 0.75), Choice(0.5, 0.0, 0.25)))
    middle = State("b", (Choice(0.5, 0.0, ((1.0, None, last),)), Choice(0.5, 0.0, 0.75)))
    first = State("a", (Choice(0.5, 0.0, ((1.0, None, middle),)), Choice(0.5, 0.0, 0.0)))
    row = ROWS["step_returns"]
    true = credit.true_gradient(first, True)
    assert true["a", 0] > 0 > true["b", 0]
    assert credit.figures(row, first).bias < 1e-6


def test_spro_adds_beta_times_the_gradient_of_the_distance_to_the_reference():
    """At every visited state: sum_a pi(a) (1[a = b] - pi(b)) log(pi(a) / pi_ref(a)) for the logit of choice b."""
    row, largest = ROWS["spro std_norm False, baseline others"], []
    for process in PROCESSES.values():
        added = {}
        for response in responses(process):
            for state, _, _ in response.choices:
                for number, choice in enumerate(state.choices):
                    ratio = math.log(choice.probability * len(state.choices))
                    for other, rival in enumerate(state.choices):
                        change = choice.probability * (float(number == other) - rival.probability) * ratio
                        # Of all responses through this state, those that choose this now.
                        share = response.probability * change
                        added[state.name, other] = added.get((state.name, other), 0.0) + share
        expected = {key: value + 0.05 * added[key] for key, value in credit.true_gradient(process, False).items()}
        moved = credit.expected_gradient(row, process)
        assert moved == pytest.approx(expected, abs=1e-6)
        largest.append(max(map(abs, added.values())))
    assert max(largest) > 0.05


def test_papo_ranks_right_responses_and_makes_them_no_fewer():
    """Its second part is p times the gradient of the mean process reward of right responses, but for the factor of a
    group's own mean: at G = 2 a half where both are right, else none.
    """
    row = ROWS["papo std_norm False"]
    for process in PROCESSES.values():
        every = responses(process)
        right = [response for response in every if response.outcome]
        p = sum(response.probability for response in right)
        mean = sum(response.probability * sum(response.rewards) for response in right) / p
        expected = dict.fromkeys(credit.true_gradient(process, False), 0.0)
        for response in every:
            for parameter, derivatives in response.score().items():
                process_part = (sum(response.rewards) - mean) * p / 2 if response.outcome else 0.0
                value = response.outcome / 2 + process_part
                expected[parameter] += response.probability * value * sum(derivatives.values())
        assert credit.expected_gradient(row, process) == pytest.approx(expected, abs=1e-6)


def test_responses_are_all_there():
    for process in PROCESSES.values():
        every = responses(process)
        assert sum(response.probability for response in every) == pytest.approx(1.0)
        assert process.value() == pytest.approx(sum(r.probability * r.outcome for r in every))
        assert all(response.ends[-1] == len(response.tokens) for response in every)
        # Log-probabilities of a choice have mean derivative 0.
        assert all(abs(total) < 1e-12 for total in _mean_scores(every).values())


def _mean_scores(every):
    totals = {}
    for response in every:
        for parameter, derivatives in response.score().items():
            totals[parameter] = totals.get(parameter, 0.0) + response.probability * sum(derivatives.values())
    return totals
