"""Length penalties on numbers a reader can check by hand."""

import json
import math

import pytest
import torch

from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.length_penalties.cosine import Cosine, repeated_tokens
from openrlhf_prm.length_penalties.grpo_lambda import GRPOLambda
from openrlhf_prm.length_penalties.kimi import Kimi
from openrlhf_prm.length_penalties.lagrangian import Lagrangian
from openrlhf_prm.length_penalties.lcpo import LCPOExact, LCPOMax
from openrlhf_prm.length_penalties.o1_pruner import O1Pruner
from openrlhf_prm.length_penalties.overlong import Overlong
from openrlhf_prm.length_penalties.penalty import LengthBatch, PenaltyNeed


def batch(lengths, correct=None, group_size=None, **extra):
    verdicts = [True] * len(lengths) if correct is None else correct
    return LengthBatch(
        lengths=torch.tensor(lengths),
        correct=torch.tensor(verdicts),
        group_size=group_size or len(lengths),
        **{"state": {}} | extra,
    )


def test_kimi_by_hand():
    penalties = Kimi()(batch([10, 20, 30, 10], [True, True, True, False]))
    assert penalties.tolist() == pytest.approx([0.5, 0.0, -0.5, 0.0])


def test_kimi_punishes_long_wrong_responses_too():
    assert Kimi()(batch([10, 30], [False, False])).tolist() == pytest.approx([0.0, -0.5])


def test_kimi_is_zero_where_lengths_agree_and_groups_do_not_mix():
    assert Kimi()(batch([10, 10, 10, 30], group_size=2)).tolist() == pytest.approx([0.0, 0.0, 0.5, -0.5])
    assert Kimi()(batch([10, 10, 10, 30], group_size=1)).tolist() == [0.0] * 4


def test_overlong_by_hand():
    penalties = Overlong(max_tokens=100, buffer=20)(batch([50, 80, 90, 100, 500]))
    assert penalties.tolist() == pytest.approx([0.0, 0.0, -0.5, -1.0, -1.0])


def test_cosine_gives_the_papers_rewards():
    lengths, correct = [0, 50, 99, 0, 50, 99, 100], [True] * 3 + [False] * 4
    responses = [range(length) for length in lengths]
    rewards = Cosine(max_tokens=100)(batch(lengths, correct, token_ids=responses)) + torch.tensor(correct).float()
    assert rewards.tolist() == pytest.approx([2.0, 1.5, 1.0, -10.0, -5.0, 0.0, -10.0], abs=3e-3)


def test_cosine_does_not_come_back_beyond_the_limit():
    rewards = Cosine(max_tokens=100)(batch([200], [True], token_ids=[range(200)])) + 1
    assert rewards.tolist() == [-10.0]


def test_cosine_charges_for_repeated_tokens():
    fresh, repeated = [1, 2, 3, 4, 5, 6], [1, 2, 3, 1, 2, 3]
    penalties = Cosine(ngram=2, repetition=0.5)(batch([6, 6], token_ids=[fresh, repeated]))
    # Of the pairs 12, 23, 31, 12, 23 of the second response the last two stood there before: three tokens.
    assert (penalties[0] - penalties[1]).item() == pytest.approx(3 * 0.5)
    assert repeated_tokens([1], 2) == repeated_tokens([], 2) == 0
    assert repeated_tokens([*range(40), *range(40)], 40) == 40, "a sentence written twice costs all of its tokens"
    assert repeated_tokens([7] * 100, 40) == 99
    assert repeated_tokens([1, 2, 9, 1, 2, 8, 1, 2], 2) == 4, "two repetitions with a token between them"


def test_lcpo_exact_by_hand():
    penalties = LCPOExact(alpha=0.01)(batch([80, 120], [True, False], targets=torch.tensor([100, 100])))
    assert penalties.tolist() == pytest.approx([-0.2, -0.2])


def test_lcpo_max_by_hand():
    lengths, correct = [100, 50, 0, 200, 0], [True, True, True, True, False]
    targets = torch.full((5,), 100)
    rewards = LCPOMax(alpha=0.005)(batch(lengths, correct, targets=targets)) + torch.tensor(correct).float()
    assert rewards.tolist() == pytest.approx([0.5, 0.75, 1.0, 0.0, 0.0])


def test_prompts_of_lcpo_max_ask_for_a_maximum():
    assert LCPOMax().target_template == "Think for maximum {} tokens."
    assert LCPOExact().target_template == "Think for {} tokens."


def test_o1_pruner_takes_the_first_group_as_reference():
    state = {}
    first = batch([10, 30], [True, False], questions=["q", "q"], state=state)
    # Reference: 20 tokens, accuracy 0.5.
    rewards = O1Pruner(accuracy_coef=2.0)(first) + first.correct.float()
    assert rewards.tolist() == pytest.approx([1.0 + 1.0, 20 / 30 - 1 - 1.0])
    assert state == {"references": {"q": [20.0, 0.5]}}
    later = batch([20, 0], [True, True], questions=["q", "q"], state=state)
    rewards = O1Pruner(accuracy_coef=2.0)(later) + 1
    assert rewards.tolist() == pytest.approx([1.0, 4.0]), "20 - 1 + 1 at one token, but the authors stop at 4"
    assert state == {"references": {"q": [20.0, 0.5]}}


def test_o1_pruner_is_bounded():
    def rewards(lengths, correct, **options):
        given = batch(lengths, correct, questions=["q"] * len(lengths))
        return (O1Pruner(**options)(given) + given.correct.float()).tolist()

    # The mean of 1 and 4000 is 2000.5: 1999.5 - 1 for the wrong one without a bound.
    assert rewards([1, 4000], [False, True]) == pytest.approx([4.0, 2000.5 / 4000 - 1 + 1])
    assert rewards([100, 100], [False, True], accuracy_coef=5.0) == [-2.0, 2.5]
    assert rewards([1, 4000], [False, True], highest=1.0)[0] == 1.0
    assert rewards([1, 4000], [False, True], standardise=True) == pytest.approx([1.0, -1.0])
    assert rewards([5, 5], [True, True], standardise=True) == [0.0, 0.0]
    with pytest.raises(ValueError, match="^lowest must be below highest"):
        O1Pruner(lowest=4.0)


def test_o1_pruner_may_pay_for_shortness_only_where_the_answer_is_right():
    given = batch([2] + [400] * 7, [False] + [True] * 7, questions=["q"] * 8)
    assert (O1Pruner()(given) + given.correct.float())[0] == 4.0, "as published"
    given = batch([2] + [400] * 7, [False] + [True] * 7, questions=["q"] * 8)
    rewards = O1Pruner(right_only=True)(given) + given.correct.float()
    assert rewards.tolist() == pytest.approx([-2 * 7 / 8] + [350.25 / 400 - 1 + 2 / 8] * 7)
    long = batch([600, 200], [False, True], questions=["q"] * 2)
    assert O1Pruner(right_only=True)(long).equal(O1Pruner()(batch([600, 200], [False, True], questions=["q"] * 2)))


def test_o1_pruner_reads_references(tmp_path):
    path = tmp_path / "references.jsonl"
    path.write_text(json.dumps({"prompt": "q", "length": 40, "accuracy": 1}) + "\n")
    penalty = O1Pruner(reference_file=str(path))
    assert penalty(batch([20], [True], questions=["q"])).tolist() == pytest.approx([1.0 - 1])
    with pytest.raises(ValueError, match="--length_penalty.reference_file .* no row for the prompt 'other'"):
        penalty(batch([20], [True], questions=["other"]))
    path.write_text('{"prompt": "q"}\n')
    with pytest.raises(ValueError, match="line 1: KeyError"):
        penalty(batch([20], [True], questions=["q"]))


def test_grpo_lambda_spares_all_but_the_most_correct_groups():
    lengths = [10, 30, 10, 30, 10, 30]
    correct = [True, True, True, False, False, False]
    penalties = GRPOLambda(alpha=1.0, share=1 / 3)(batch(lengths, correct, 2))
    short, long = 1 / (1 + math.exp(1)), 1 / (1 + math.exp(-1))
    assert penalties.tolist() == pytest.approx([-short, -long, 0.0, 0.0, 0.0, 0.0])


def test_grpo_lambda_in_degenerate_groups():
    assert GRPOLambda(share=1.0)(batch([10, 10], [True, True])).tolist() == pytest.approx([-0.1, -0.1])
    assert GRPOLambda(share=1.0)(batch([10, 20], [True, False])).tolist() == pytest.approx([-0.1, 0.0])
    assert GRPOLambda(share=1.0)(batch([10, 20], [False, False])).tolist() == [0.0, 0.0]
    assert GRPOLambda(share=0.2)(batch([10, 10])).tolist() == pytest.approx([-0.1, -0.1]), "at least one group"


def test_lagrangian_raises_and_lowers_its_price():
    penalty, state = Lagrangian(target=100, rate=0.5, initial=0.2), {}
    assert penalty(batch([150, 250], state=state)).tolist() == pytest.approx([-0.1, -0.3])
    assert state["multiplier"] == pytest.approx(0.2 + 0.5 * 1.0)
    assert penalty(batch([50, 50], state=state)).tolist() == pytest.approx([0.35, 0.35])
    assert state["multiplier"] == pytest.approx(0.7 - 0.25)
    assert penalty(batch([100], state=state)).tolist() == [0.0]


def test_lagrangian_waits_for_its_warm_up():
    penalty, state = Lagrangian(target=100, rate=0.5), {}
    penalty(batch([200, 200], state=state, warm_up=0.0))
    assert state["multiplier"] == 0.0
    penalty(batch([200, 200], state=state, warm_up=0.5))
    assert state["multiplier"] == pytest.approx(0.25)


def test_lagrangian_stays_within_its_bounds():
    state = {}
    Lagrangian(target=100, rate=9.0)(batch([900], state=state))
    assert state["multiplier"] == 1.0
    Lagrangian(target=100, rate=9.0)(batch([10], state=state))
    assert state["multiplier"] == 0.0


def test_lagrangian_holds_the_mean_length_of_a_policy_that_answers_to_it():
    # A policy whose mean length falls with the price it pays, slowly.
    penalty, state, length = Lagrangian(target=100, rate=0.05), {}, 200.0
    for _ in range(200):
        penalty(batch([length], state=state))
        length += 0.2 * (200 - 250 * state["multiplier"] - length)
    assert abs(length - 100) < 5


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("overlong", {"buffer": 0}),
        ("overlong", {"buffer": 1025}),
        ("cosine", {"max_tokens": 0}),
        ("cosine", {"ngram": 0}),
        ("lcpo_exact", {"target_min": 0}),
        ("lcpo_max", {"target_min": 5000}),
        ("lcpo_max", {"target_template": "Think long."}),
        ("o1_pruner", {"accuracy_coef": -1.0}),
        ("o1_pruner", {"reference_file": "/no/such.jsonl"}),
        ("grpo_lambda", {"share": 0.0}),
        ("lagrangian", {"target": 0}),
        ("lagrangian", {"rate": 0.0}),
        ("lagrangian", {"initial": 2.0}),
        ("alp", {"max_tokens": 0}),
        ("laser", {"target": 0}),
        ("laser_d", {"window": 0}),
        ("laser_de", {"interval": 0}),
        ("truncation", {"max_tokens": 0}),
        ("gfpo", {"keep": 0.0}),
        ("gfpo", {"metric": "short"}),
        ("gfpo_difficulty", {"keep_easy": 0.0}),
        ("gfpo_difficulty", {"ready_after": -1}),
        ("truncation_difficulty", {"easy_max_tokens": 0}),
        ("truncation_difficulty", {"easy_from": 0.0}),
    ],
)
def test_options_out_of_range_are_named(kind, options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))}"):
        LENGTH_PENALTIES[kind](**options)


@pytest.mark.parametrize("penalty", LENGTH_PENALTIES.values())
def test_every_penalty_keeps_one_number_per_response(penalty):
    one = batch([7], token_ids=[[1] * 7], targets=torch.tensor([9]), questions=["q"])
    assert penalty()(one).shape == (1,) and torch.isfinite(penalty()(one)).all()


def test_batches_that_do_not_align_are_refused():
    with pytest.raises(ValueError, match="groups of 2"):
        batch([1, 2, 3], group_size=2)
    with pytest.raises(ValueError, match="align"):
        batch([1, 2], [True])


def complete_batch(fields) -> LengthBatch:
    """Two groups of two with everything that a penalty may ask for, of which it gets `fields`."""
    there = dict(
        group_size=2,
        token_ids=[[7] * 60, [7] * 41, list(range(20)), list(range(80))],
        targets=torch.tensor([50, 50, 90, 90]),
        questions=["p", "p", "q", "q"],
        state={},
    )
    lengths, correct = torch.tensor([60, 41, 20, 80]), torch.tensor([True, True, False, True])
    return LengthBatch(lengths=lengths, correct=correct, **{field: there[field] for field in fields})


# Where a need shows only from some length on.
SMALL = {"laser_de": {"shortest": 10, "max_tokens": 15}}


def fields_of(needs) -> set[str]:
    return {field for need in needs for field in need.value}


@pytest.mark.parametrize("name", LENGTH_PENALTIES)
def test_a_penalty_needs_what_it_declares_and_nothing_else(name):
    penalty = LENGTH_PENALTIES[name](**SMALL.get(name, {}))

    def said(fields):
        kept = penalty.kept(complete_batch(fields))
        return penalty(complete_batch(fields)).tolist(), None if kept is None else kept.tolist()

    assert said(fields_of(penalty.needs)) == said(fields_of(PenaltyNeed))
    for need in penalty.needs:
        with pytest.raises((TypeError, AttributeError)):
            said(fields_of(penalty.needs - {need}) - set(need.value))


@pytest.mark.parametrize("name", LENGTH_PENALTIES)
def test_what_chooses_responses_penalises_none(name):
    penalty = LENGTH_PENALTIES[name]()
    given = complete_batch(fields_of(PenaltyNeed))
    assert penalty.pays == (penalty.kept(given) is None)
    assert penalty.pays or penalty(given).tolist() == [0.0] * 4
