"""Estimators that take a second signal beside the outcome, each normalised on its own: PAPO, SPRO, VAPO's lambda. By
hand, and against what papers and authors' programs compute, written out a second time.
"""

import math
import random

import pytest
import torch

from openrlhf_prm.advantages.estimator import StepBatch
from openrlhf_prm.advantages.papo import PAPO
from openrlhf_prm.advantages.spro import SPRO
from openrlhf_prm.advantages.tensors import length_adaptive_lambda


def judged(outcomes, correct, process, group_size=None):
    """One step of one token per response."""
    return StepBatch(
        step_ends=[torch.tensor([1])] * len(outcomes),
        outcome_rewards=torch.tensor(outcomes),
        group_size=group_size or len(outcomes),
        process_rewards=[torch.tensor([reward]) for reward in process],
        correct=torch.tensor(correct),
    )


def of_first_tokens(advantages):
    return [float(row[0]) for row in advantages]


def test_papo_by_hand():
    given = judged([1.0, 1.0, 0.0, 0.0], [True, True, False, False], [0.5, 0.25, 9.0, -9.0])
    # Outcomes: +-0.5, deviation 1 / sqrt(3). The two right ones differ by 0.25: deviation 0.25 / sqrt(2).
    out, proc = 0.5 * math.sqrt(3), 0.5 * math.sqrt(2)
    assert of_first_tokens(PAPO()(given)) == pytest.approx([out + proc, out - proc, -out, -out])
    undivided = of_first_tokens(PAPO(std_norm=False, process_weight=2.0)(given))
    assert undivided == pytest.approx([0.5 + 0.25, 0.5 - 0.25, -0.5, -0.5])
    # Whole rewards 1.5, 1.25, 0, 0 against the others' means.
    whole = of_first_tokens(PAPO(std_norm=False, baseline="response")(given))
    assert whole == pytest.approx([1.5 - 1.25 / 3, 1.25 - 0.5, -2.75 / 3, -2.75 / 3])


def test_papo_in_degenerate_groups():
    all_right = judged([1.0, 1.0], [True, True], [1.0, 0.0])
    assert of_first_tokens(PAPO()(all_right)) == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])
    for outcomes, correct in (([0.0, 0.0], [False, False]), ([1.0, 1.0], [True, False])):
        assert of_first_tokens(PAPO()(judged(outcomes, correct, [1.0, 0.0]))) == [0.0, 0.0]
    assert of_first_tokens(PAPO()(judged([1.0, 1.0], [True, True], [0.3, 0.3]))) == [0.0, 0.0]
    assert of_first_tokens(PAPO()(judged([1.0], [True], [0.3]))) == [0.0]
    spread = PAPO()(
        StepBatch(
            step_ends=[torch.tensor([2, 3]), torch.tensor([1])],
            outcome_rewards=torch.tensor([1.0, 0.0]),
            group_size=2,
            process_rewards=[torch.tensor([0.1, 0.2]), torch.tensor([0.0])],
            correct=torch.tensor([True, False]),
        )
    )
    assert [len(row) for row in spread] == [3, 1] and len(set(spread[0].tolist())) == 1


@pytest.mark.parametrize("std_norm", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_papo_is_the_authors_dual_objective(seed, std_norm):
    draw = random.Random(seed)
    correct = [draw.random() < 0.6 for _ in range(24)]
    outcomes = [float(right) - draw.choice([0.0, 0.25]) for right in correct]  # a penalty is no verdict
    process = [draw.choice([0.0, 0.5, 1.0]) for _ in range(24)]
    expected = []
    for start in range(0, 24, 8):
        group = range(start, start + 8)
        for place in group:
            values = [outcomes[other] for other in group]
            advantage = centred(outcomes[place], values, std_norm)
            right = [process[other] for other in group if correct[other]]
            if correct[place] and len(right) > 1:
                advantage += 0.7 * centred(process[place], right, std_norm)
            expected.append(advantage)
    got = of_first_tokens(PAPO(std_norm=std_norm, process_weight=0.7)(judged(outcomes, correct, process, 8)))
    assert got == pytest.approx(expected, abs=1e-4)


def centred(value, values, std_norm):
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((other - mean) ** 2 for other in values) / (len(values) - 1))
    if deviation <= 1e-6:
        return 0.0
    return (value - mean) / (deviation + 1e-6) if std_norm else value - mean


def rated(outcomes, ratios, group_size=None):
    return StepBatch(
        step_ends=[torch.tensor([len(row)]) for row in ratios],
        outcome_rewards=torch.tensor(outcomes),
        group_size=group_size or len(outcomes),
        log_ratios=[torch.tensor(row) for row in ratios],
    )


def test_spro_by_hand():
    given = rated([1.0, 0.0], [[1.0, 1.0, 2.0], [0.0, -1.0]])
    # Sums so far: 1, 2, 4 and 0, -1; means 0.5, 0.5, 4.
    got = SPRO(std_norm=False, beta=0.5)(given)
    assert [row.tolist() for row in got] == [[0.5 + 0.25, 0.5 + 0.75, 0.5], [-0.5 - 0.25, -0.5 - 0.75]]
    # Against the other alone; at the third token its last sum.
    others = SPRO(std_norm=False, beta=0.5, baseline="others")(given)
    assert [row.tolist() for row in others] == [[1 + 0.5, 1 + 1.5, 1 + 2.5], [-1 - 0.5, -1 - 1.5]]


def test_spro_in_degenerate_groups():
    assert [row.tolist() for row in SPRO()(rated([1.0, 0.0], [[0.0], [0.0]]))] == [
        pytest.approx([math.sqrt(0.5)]),
        pytest.approx([-math.sqrt(0.5)]),
    ]
    assert [row.tolist() for row in SPRO()(rated([1.0], [[0.5, 0.5]]))] == [[0.0, 0.0]]
    assert [row.tolist() for row in SPRO(baseline="others")(rated([1.0], [[0.5]]))] == [pytest.approx([1.025])]
    divided = SPRO(baseline="others", beta=0.0)(rated([1.0, 0.0], [[0.0], [0.0]]))
    assert [row.tolist() for row in divided] == [pytest.approx([math.sqrt(2)]), pytest.approx([-math.sqrt(2)])]
    assert [row.tolist() for row in SPRO(baseline="others")(rated([1.0, 1.0], [[0.5], [0.5]]))] == [[0.0], [0.0]]
    with pytest.raises(ValueError, match="^beta must be at least 0"):
        SPRO(beta=-1.0)


@pytest.mark.parametrize("seed", range(3))
def test_spro_is_outcome_plus_masked_step_advantage(seed):
    draw = random.Random(seed)
    ratios = [[draw.gauss(0, 1) for _ in range(draw.randrange(1, 9))] for _ in range(12)]
    outcomes = [float(draw.random() < 0.5) for _ in range(12)]
    expected = []
    for place, row in enumerate(ratios):
        group = range(place // 4 * 4, place // 4 * 4 + 4)
        outcome = centred(outcomes[place], [outcomes[other] for other in group], True)
        for t in range(len(row)):
            sums = [0.1 * sum(ratios[other][: t + 1]) for other in group if len(ratios[other]) > t]
            expected.append(outcome + 0.1 * sum(row[: t + 1]) - sum(sums) / len(sums))
    got = torch.cat(SPRO(beta=0.1)(rated(outcomes, ratios, 4)))
    assert got.tolist() == pytest.approx(expected, abs=1e-4)


def test_lambda_grows_with_length():
    lengths = torch.tensor([0, 1, 20, 40, 1000])
    assert length_adaptive_lambda(lengths, 0.05).tolist() == pytest.approx([0, 0, 0, 0.5, 0.98])
    # What later tokens did counts alpha * length times in all.
    for length in (100, 1000):
        lam = float(length_adaptive_lambda(torch.tensor([length]), 0.05)[0])
        assert sum(lam**k for k in range(10**5)) == pytest.approx(0.05 * length, rel=1e-3)
