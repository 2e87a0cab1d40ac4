"""What estimators say of their bias is so, to 1e-6, on every process that the benchmark enumerates."""

import json
import math

import pytest
from documents import ROOT, table_rows

from benchmarks import credit, gradients
from benchmarks.decision_processes import PROCESSES, Choice, State, forked_groups, responses
from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.forked_tree import ForkedTree
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES

ROWS = {row.name: row for row in credit.rows()}
PUBLISHED = json.loads((ROOT / "benchmarks" / "results" / "credit.json").read_text())["cells"]


def published(name: str, field: str, group_size: int = 2) -> list[float]:
    """Of a row, process by process."""
    return [PUBLISHED[f"groups of {group_size}/{name}"][process][field] for process in PROCESSES]


def biases(row, processes=PROCESSES, group_size=2) -> list[float]:
    return [gradients.figures(row, PROCESSES[name], group_size).bias for name in processes]


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.unbiased])
def test_what_is_called_unbiased_is(name):
    assert max(biases(ROWS[name])) < 1e-6
    assert max(published(name, "bias") + published(name, "bias", 3)) < 1e-6


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.unbiased])
def test_what_is_not_called_unbiased_is_not(name):
    found = biases(ROWS[name], ("stop or go", "two habits"))
    assert max(found) > 1e-4
    assert found == pytest.approx(published(name, "bias")[1:3], abs=2e-6), "python -m benchmarks.credit --fresh"


def test_the_figures_are_of_all_estimators():
    cells = {f"groups of {size}/{name}" for size in (2, 3) for name in ROWS}
    assert set(PUBLISHED) == {*cells, "tree by group size"}


FORKED = "forked_tree branching 2x2"
OTHERS, RESPONSE = "std_norm False, baseline others", "std_norm False, baseline response"
ON_THE_PAGE = {
    "`rloo` with step rewards": ("rloo, baseline_of steps", "rloo, baseline_of returns"),
    "`prime`, not whitened": ("prime std_norm False", f"prime {RESPONSE}"),
    "`min_form_rloo`, not whitened": ("min_form_rloo std_norm False", f"min_form_rloo {RESPONSE}"),
    "`step_group`": ("step_group", f"step_group {OTHERS}"),
    "`step_returns`, `lambd` 1": ("step_returns", "step_returns"),
    "`vine` with exact values": ("vine std_norm False", "vine std_norm False"),
    "`tree`": ("tree", "tree"),
    "`forked_tree`, 2x2 against four responses": (FORKED, FORKED),
    "the same as `spo_tree`": (f"{FORKED}, baseline spo_tree", FORKED),
    "the same as `treerl`": (f"{FORKED}, baseline treerl", FORKED),
    "`papo`": ("papo", f"papo {RESPONSE}"),
}
"""A row of docs/ppo.md -> the estimator as published, and in its unbiased form."""


def span(numbers: list[float], digits: int) -> str:
    low, high = f"{min(numbers):.{digits}f}", f"{max(numbers):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def test_the_page_shows_these_figures():
    rows = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in table_rows((ROOT / "docs/ppo.md").read_text())
    ]
    shown = {row[0]: row[1:] for row in rows if row[0] in ON_THE_PAGE and len(row) == 4}
    assert set(shown) == set(ON_THE_PAGE)
    for label, (biased, unbiased) in ON_THE_PAGE.items():
        bias, form, variance = shown[label]
        here, *elsewhere = published(biased, "bias")
        expected = f"{here:.3f}" if here else f"0 here, {span(elsewhere, 2)} elsewhere" if any(elsewhere) else "0"
        assert bias == expected and form.split(",")[0] == "0", label
        expected = span(published(unbiased, "variance"), 1)
        if label == "`tree`":
            four = [PUBLISHED["tree by group size"][process]["4"] for process in PROCESSES]
            expected += f"; with four samples {span(four, 2)}"
        assert variance == expected, label


@pytest.mark.parametrize("factors", [(2, 2), (3, 2), (2, 2, 2)])
def test_trees_that_fork_are_unbiased_and_weigh_segments_by_the_chance_of_their_state(factors):
    row = gradients.Row(
        "", True, False, gradients.ours(ForkedTree(branching="x".join(map(str, factors)))), False, factors
    )
    for name in ("stop or go", "shared prefixes"):
        process = PROCESSES[name]
        weights = [weight for weight, _ in forked_groups(process, factors)]
        assert sum(weights) == pytest.approx(1.0)
        assert gradients.figures(row, process).bias < 1e-6


def test_leave_one_out_is_the_hosts_rloo():
    own = gradients.Row("", True, False, gradients.leave_one_out)
    for process in PROCESSES.values():
        assert vars(gradients.figures(own, process)) == pytest.approx(
            vars(gradients.figures(ROWS["rloo, outcome alone"], process)), abs=1e-5
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
    true = gradients.true_gradient(first, True)
    assert true["a", 0] > 0 > true["b", 0]
    assert gradients.figures(row, first).bias < 1e-6


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
        expected = {key: value + 0.05 * added[key] for key, value in gradients.true_gradient(process, False).items()}
        moved = gradients.expected_gradient(row, process)
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
        expected = dict.fromkeys(gradients.true_gradient(process, False), 0.0)
        for response in every:
            for parameter, derivatives in response.score().items():
                process_part = (sum(response.rewards) - mean) * p / 2 if response.outcome else 0.0
                value = response.outcome / 2 + process_part
                expected[parameter] += response.probability * value * sum(derivatives.values())
        assert gradients.expected_gradient(row, process) == pytest.approx(expected, abs=1e-6)


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
