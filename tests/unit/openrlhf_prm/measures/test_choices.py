"""Hand-worked numbers of the measures, degenerate cases included."""

import math

import pytest

from openrlhf_prm.evaluation.responses import GradedResponse, by_question, read_samples, write_samples
from openrlhf_prm.evaluation.summary import summarize
from openrlhf_prm.measures import choices as metrics


def test_pass_at_k():
    correct = [True, False, False, True]
    assert metrics.pass_at_k(correct, 1) == 0.5
    assert metrics.pass_at_k(correct, 2) == pytest.approx(1 - 1 / 6)  # one of the six pairs is wrong twice
    assert metrics.pass_at_k(correct, 3) == metrics.pass_at_k(correct, 4) == 1.0
    assert metrics.pass_at_k([False] * 5, 5) == 0.0


@pytest.mark.parametrize(("n", "k"), [(0, 1), (3, 0), (3, 4)])
def test_pass_at_k_outside_its_range(n, k):
    with pytest.raises(ValueError, match="1 <= k"):
        metrics.pass_at_k([True] * n, k)


def test_best_of_n():
    assert metrics.best_of_n([0.1, 0.9, 0.5], [True, False, True]) == 0.0
    assert metrics.best_of_n([0.1, 0.9, 0.9], [True, False, True]) == 0.5  # a tie of a wrong and a right one
    assert metrics.best_of_n([0.5, 0.5, 0.5, 0.5], [True, False, False, False]) == 0.25  # all equal: the mean
    assert metrics.best_of_n([None, 0.0], [True, False]) == 0.0  # no step never beats a step
    assert metrics.best_of_n([None, None], [True, False]) == 0.5
    with pytest.raises(ValueError, match="at least one response"):
        metrics.best_of_n([], [])
    with pytest.raises(ValueError, match="aligned"):
        metrics.best_of_n([0.5], [True, False])


def test_weighted_vote():
    # 7 has the weight 0.2 + 0.3, 8 has 0.6: the vote goes to 8, the majority to 7.
    answers, correct = ["7", "7.0", "8"], [True, True, False]
    assert metrics.weighted_vote(answers, [0.2, 0.3, 0.6], correct) == 0.0
    assert metrics.majority_vote(answers, correct) == 1.0
    assert metrics.weighted_vote(["7", "8"], [0.5, 0.5], [True, False]) == 0.5
    assert metrics.weighted_vote(["7", "8"], [0.0, 0.0], [True, False]) == 0.5


def test_a_response_without_answer_votes_for_nothing():
    assert metrics.majority_vote([None, None, "8"], [False, False, True]) == 1.0
    assert metrics.majority_vote([None, None], [False, False]) == 0.0
    assert metrics.weighted_vote(["7", "8"], [None, 0.1], [True, False]) == 0.0  # not scored: weight 0


@pytest.mark.parametrize(
    ("left", "right"),
    [("1,200", "1200.0"), ("$5$", "+5"), ("0.50", ".5"), ("4/8", "1/2"), (" x  + 1 ", "x + 1"), ("3.", "3")],
)
def test_equal_answers_share_a_key(left, right):
    assert metrics.answer_key(left) == metrics.answer_key(right)


@pytest.mark.parametrize(("left", "right"), [("1", "-1"), ("(1,2)", "12"), ("1/0", "0"), ("9" * 5000, "9" * 5001)])
def test_different_answers_do_not(left, right):
    assert metrics.answer_key(left) != metrics.answer_key(right)


def test_roc_auc():
    # Pairs (positive, negative): 0.9>0.4, 0.9>0.8, 0.4=0.4 (half), 0.4<0.8 -> 2.5 of 4.
    assert metrics.roc_auc([0.9, 0.4, 0.4, 0.8], [True, True, False, False]) == pytest.approx(2.5 / 4)
    assert metrics.roc_auc([0.5] * 6, [True, False] * 3) == 0.5
    assert metrics.roc_auc([0.1, 0.2], [True, True]) is None
    assert metrics.roc_auc([], []) is None


def test_wilson_interval():
    low, high = metrics.wilson_interval(8, 10)
    # p = 0.8, z^2 = 3.8415: (0.8 + 0.19207 -+ 1.96 sqrt(0.016 + 0.0096036)) / 1.38415
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert metrics.wilson_interval(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))
    assert metrics.wilson_interval(0, 0) is None


def test_bootstrap_interval():
    values = [0.0, 1.0] * 50
    low, high = metrics.bootstrap_interval(values, seed=1)
    assert (low, high) == metrics.bootstrap_interval(values, seed=1)
    assert low == pytest.approx(0.40, abs=0.03) and high == pytest.approx(0.60, abs=0.03)  # 0.5 -+ 1.96 * 0.05
    assert metrics.bootstrap_interval([0.25] * 4) == (0.25, 0.25)
    assert metrics.bootstrap_interval([]) is None
    assert metrics.bootstrap_interval([0.0, 0.0], [0.0, 0.0]) is None  # no step anywhere
    assert metrics.bootstrap_interval([2.0, 4.0], [4.0, 8.0]) == (0.5, 0.5)


def test_paired_gain():
    assert metrics.paired_gain([0, 0, 1], [1, 1, 1])["gain"] == pytest.approx(2 / 3)
    assert metrics.paired_gain([0, 1], [1, 2]) == {"gain": 1.0, "interval": (1.0, 1.0)}
    assert metrics.paired_gain([], []) is None


def graded(index, sample, answer, scores=None, checks=None, correct=None, truncated=False):
    steps = ["step"] * len(scores if scores is not None else checks or [])
    return GradedResponse(
        index=index,
        kind="greedy" if sample is None else "sample",
        sample=sample,
        question=f"q{index}",
        label="7",
        response="text",
        answer=answer,
        correct=answer == "7" if correct is None else correct,
        steps=steps,
        step_scores=scores,
        step_checks=checks,
        tokens=10,
        truncated=truncated,
    )


def test_summarize_by_hand():
    responses = [
        graded(0, None, "7", [0.9], [True]),
        graded(0, 0, "7", [0.9, 0.2], [True, True]),
        graded(0, 1, "8", [0.6, 0.6], [True, False]),
        graded(1, None, "8", [0.9], [False]),
        graded(1, 0, None, [], [], truncated=True),
        graded(1, 1, "7", [0.1], [True]),
    ]
    result = summarize(responses, step_kind=len)
    assert result["greedy"] == 0.5
    assert result["mean_at_2"] == 0.5 and result["pass_at_2"] == 1.0 and result["pass_at_k"] == {"1": 0.5, "2": 1.0}
    # Question 0: min 0.2 < 0.6 -> wrong, prod 0.18 < 0.36, last 0.2 < 0.6, mean 0.55 < 0.6. Question 1: the one scored.
    assert result["best_of_2"] == {"min": 0.5, "prod": 0.5, "last": 0.5, "mean": 0.5}
    assert result["majority_vote"] == 0.75  # a tie, and the only answer given
    assert result["weighted_vote"] == 0.5
    assert result["step_accuracy"] == pytest.approx(4 / 5)
    # PRM verdicts at 0.5: right, wrong | right, right | wrong -> against T, T | T, F | T: 2 of 5.
    assert result["prm_step_accuracy"] == pytest.approx(2 / 5)
    # Positives 0.9, 0.2, 0.6, 0.1 against the negative 0.6: 1 + 0 + 0.5 + 0.
    assert result["prm_auc"] == pytest.approx(1.5 / 4)
    assert result["mean_tokens"] == 10 and result["mean_steps"] == 1.25 and result["truncated"] == 0.25
    assert result["habits"] == {4: 1.0}
    assert result["questions"] == 2 and result["n"] == 2
    assert set(result["intervals"]) >= {"greedy", "mean_at_2", "pass_at_2", "best_of_2", "step_accuracy"}
    assert result["intervals"]["prm_step_accuracy"][0] <= 0.4 <= result["intervals"]["prm_step_accuracy"][1]


def test_summarize_without_prm_checker_or_greedy():
    result = summarize([graded(0, 0, "7"), graded(0, 1, "8")])
    absent = {"greedy", "best_of_2", "weighted_vote", "step_accuracy", "prm_step_accuracy", "prm_auc", "habits"}
    assert not absent & set(result)
    assert result["mean_at_2"] == 0.5


def test_summarize_of_responses_without_a_step():
    result = summarize([graded(0, 0, None, [], [])])
    assert result["best_of_1"]["min"] == 0.0 and result["weighted_vote"] == 0.0
    assert result["step_accuracy"] is None and result["prm_auc"] is None
    assert result["intervals"]["step_accuracy"] is None
    assert all(value is None or math.isfinite(value) for value in result.values() if not isinstance(value, dict))


@pytest.mark.parametrize("responses", [[], [graded(0, None, "7")], [graded(0, 0, "7"), graded(1, None, "7")]])
def test_summarize_needs_samples(responses):
    with pytest.raises(ValueError, match="same number of samples"):
        summarize(responses)


def test_samples_file(tmp_path):
    written = [graded(1, 1, None, [0.5], [True]), graded(0, None, "7", [], [])]
    path = tmp_path / "new" / "samples.jsonl"
    write_samples(path, written)
    assert read_samples(path) == written
    assert list(by_question(written)) == [0, 1]
    assert [file.name for file in path.parent.iterdir()] == ["samples.jsonl"]  # nothing partial is left
    path.write_text(path.read_text() + '{"index": 3}\n')
    with pytest.raises(ValueError, match="samples.jsonl line 3"):
        read_samples(path)
    with pytest.raises(ValueError, match="step_scores must align with steps: got 1, expected 0"):
        graded(0, 0, "7", checks=[]).__class__(**{**vars(graded(0, 0, "7")), "step_scores": [0.5]})
