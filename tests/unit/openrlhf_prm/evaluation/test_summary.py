"""An evaluation's numbers from graded responses, by hand."""

import math

import pytest

from openrlhf_prm.evaluation.responses import GradedResponse, by_question, read_samples, write_samples
from openrlhf_prm.evaluation.summary import summarize


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
