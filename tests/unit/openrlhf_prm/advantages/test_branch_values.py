"""How many branches are sampled, and what they and the PRM say together."""

import itertools
import random

import pytest

from openrlhf_prm.advantages.branch_values import Branches, ControlVariate, VineOptions


def test_a_fixed_number_of_branches_comes_in_one_round():
    options = VineOptions(k=9)
    assert options.next_round([]) == 9
    assert options.next_round([1.0] * 9) == 0


def test_branches_stop_when_the_interval_is_narrow():
    options = VineOptions(k=9, k_min=4, half_width=0.25)
    assert options.next_round([]) == 4
    # Four of four: from 4 / (4 + 3.84) to 1, so +-0.245.
    assert options.next_round([1.0] * 4) == 0
    assert VineOptions(k=9, k_min=4, half_width=0.24).next_round([1.0] * 4) == 4
    assert options.next_round([1.0, 0.0, 1.0, 0.0]) == 4
    assert options.next_round([1.0, 0.0] * 4) == 1, "never more than k"
    assert options.next_round([1.0, 0.0, 1.0] * 3) == 0
    assert options.next_round([0.5] * 4) == 4, "no interval for outcomes that are no verdicts"


def expected(options: VineOptions, chance: float, estimate) -> float:
    """The exact expectation of an estimate over all ways in which branches can come out."""

    def onwards(outcomes: tuple[float, ...]) -> float:
        count = options.next_round(outcomes)
        if not count:
            return estimate(outcomes)
        total = 0.0
        for more in itertools.product((0.0, 1.0), repeat=count):
            right = sum(more)
            total += chance**right * (1 - chance) ** (count - right) * onwards(outcomes + more)
        return total

    return onwards(())


@pytest.mark.parametrize(("half_width", "mean"), [(0.2, 0.1825), (0.3, 0.1340)])
def test_a_value_is_unbiased_where_sampling_stops_early_and_the_mean_is_not(half_width, mean):
    options = VineOptions(k=9, k_min=3, half_width=half_width)
    assert expected(options, 0.2, lambda outcomes: sum(outcomes) / len(outcomes)) == pytest.approx(mean, abs=5e-4)
    assert expected(options, 0.2, options.value) == pytest.approx(0.2, abs=1e-12)


@pytest.mark.parametrize(("k", "k_min"), [(9, 1), (9, 2), (8, 3), (5, 4), (3, 3)])
@pytest.mark.parametrize("half_width", [0.2, 0.285, 0.4, 1.0])
@pytest.mark.parametrize("chance", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_a_value_is_unbiased_whatever_stops_the_sampling(k, k_min, half_width, chance):
    options = VineOptions(k=k, k_min=k_min, half_width=half_width)
    assert expected(options, chance, options.value) == pytest.approx(chance, abs=1e-12)


def test_values_of_states_without_room_or_verdicts_are_means():
    options = VineOptions(k=9, k_min=3, half_width=0.3)
    assert options.value((0.0,) * 9) == 0.0
    assert options.value((0.5, 1.0, 0.0)) == 0.5


def test_the_control_variate_stays_unbiased_where_sampling_stops_early():
    options = VineOptions(k=4, k_min=2, half_width=0.4)
    control = ControlVariate(options)
    control.covariance, control.variance = 3.0, 2.0
    # The PRM's score of a branch is what its outcome is, 0.25 or 0.75; its probe is right with the same chance, 0.3.
    score = {0.0: 0.25, 1.0: 0.75}

    def value(outcomes):
        scores = tuple(score[outcome] for outcome in outcomes)
        probed = ((0.25, 0.7), (0.75, 0.3))
        return sum(weight * control.value(Branches(outcomes, scores, (probe,))) for probe, weight in probed)

    assert expected(options, 0.3, value) == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"values": "critic"}, {"k": 0}, {"k_min": 0}, {"half_width": -0.1}, {"max_new_tokens": -1}, {"probes": 0}],
)
def test_options_out_of_range_are_named(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} "):
        VineOptions(**options)


def test_without_a_control_variate_the_value_is_the_mean():
    assert ControlVariate().value(Branches((1.0, 0.0, 0.0, 1.0))) == 0.5
    with pytest.raises(ValueError, match="got 1, expected 2"):
        Branches((1.0, 0.0), scores=(0.5,))


def trained() -> ControlVariate:
    control = ControlVariate()
    control.update([Branches((1.0, 0.0), scores=(0.75, 0.25))])
    return control


def test_the_coefficient_is_the_regression_within_states():
    control = trained()
    assert control.coefficient == pytest.approx(2.0)
    control.update([Branches((1.0, 0.0), scores=(0.25, 0.25)), Branches((1.0,), scores=(0.9,))])
    assert control.coefficient == pytest.approx(2.0), "equal scores and single branches tell nothing"
    control.update([Branches((1.0, 0.0), scores=(0.1, 0.9), fresh=False)])
    assert control.coefficient == pytest.approx(2.0), "a state met twice counts once"


def test_the_value_with_probes_by_hand():
    state = Branches((1.0, 0.0), scores=(0.75, 0.25), probes=(0.75, 0.75))
    assert trained().value(state) == pytest.approx(0.5 + 2.0 * (0.625 - 0.5))
    assert ControlVariate().value(state) == 0.5, "before anything was learned: the mean"


def test_the_value_is_unbiased_whatever_the_prm_says():
    # One step leads to state a or b with equal chance; outcomes are certain there; this PRM has them upside down.
    outcome, score = {"a": 1.0, "b": 0.0}, {"a": 0.25, "b": 0.75}
    control = ControlVariate()
    control.covariance, control.variance = 3.0, 2.0
    values = [
        control.value(
            Branches(
                tuple(outcome[s] for s in draws[:2]),
                tuple(score[s] for s in draws[:2]),
                tuple(score[s] for s in draws[2:]),
            )
        )
        for draws in itertools.product("ab", repeat=5)
    ]
    assert sum(values) / len(values) == pytest.approx(0.5)


def test_a_good_prm_makes_values_less_noisy():
    rng, control = random.Random(0), ControlVariate()

    def state():
        chances = [rng.choice([0.1, 0.9]) for _ in range(4 + 16)]
        outcomes = tuple(float(rng.random() < chance) for chance in chances[:4])
        return Branches(outcomes, tuple(chances[:4]), tuple(chances[4:]))

    control.update([state() for _ in range(200)])
    assert control.coefficient == pytest.approx(1.0, abs=0.15)
    states = [state() for _ in range(2000)]
    plain = sum((sum(s.outcomes) / 4 - 0.5) ** 2 for s in states)
    helped = sum((control.value(s) - 0.5) ** 2 for s in states)
    # rho^2 = 0.16 / 0.25, so the ratio of variances is 0.36 + 0.64 * 4 / 20.
    assert helped / plain == pytest.approx(0.36 + 0.64 * 4 / 20, abs=0.06)


def test_what_was_learned_survives_a_checkpoint():
    restored = ControlVariate()
    restored.load_state_dict(trained().state_dict())
    assert restored.coefficient == trained().coefficient
