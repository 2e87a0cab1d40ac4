"""What estimators say of their bias is so, to 1e-6, on every process that the benchmark enumerates."""

import pytest

from benchmarks import credit
from benchmarks.decision_processes import PROCESSES, Choice, State, responses
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
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
