"""The figures of the PRM benchmark from samples made by hand: what the test split says chooses nothing."""

import numpy as np
import pytest

from benchmarks import prm_quality
from openrlhf_prm.evaluation.responses import GradedResponse, write_samples


def sample(index, number, correct, scores):
    return GradedResponse(
        index=index,
        kind="greedy" if number is None else "sample",
        sample=number,
        question=f"q{index}",
        label="7",
        response="a\nb",
        answer="7" if correct else "8",
        correct=correct,
        steps=["a", "b"],
        step_scores=scores,
        step_checks=[True, correct],
        tokens=3,
        truncated=False,
    )


def test_recovered_and_auc(tmp_path, monkeypatch):
    monkeypatch.setattr(prm_quality, "N", 2)
    # Only the last score tells right from wrong on the tune split; on the test split only the first one would.
    tune = [sample(0, None, True, [0.5, 0.5]), sample(0, 0, True, [0.1, 0.9]), sample(0, 1, False, [0.8, 0.3])]
    write_samples(tmp_path / "tune.samples.jsonl", tune)
    test = [sample(0, 0, True, [0.9, 0.8]), sample(0, 1, False, [0.9, 0.2])]
    test += [sample(1, 0, True, [0.9, 0.3]), sample(1, 1, False, [0.9, 0.4])]
    test += [sample(2, 0, False, [0.9, 0.1]), sample(2, 1, False, [0.9, 0.1])]
    write_samples(tmp_path / "test.samples.jsonl", test)
    found = prm_quality.measure(tmp_path, seed=0)
    assert found["aggregation"] == "last" and found["tune_best_of_16"]["min"] == 0.0
    assert (found["pass_1"], found["pass_16"]) == (pytest.approx(1 / 3, abs=1e-4), pytest.approx(2 / 3, abs=1e-4))
    # Best of two is right for the first question only: no further than one response.
    assert found["best_of_16"] == pytest.approx(1 / 3, abs=1e-4) and found["recovered"] == 0.0
    # Right 0.9 six times, 0.8 and 0.3 against 0.2, 0.4, 0.1, 0.1: 31 of 32 pairs.
    assert found["auc"] == pytest.approx(31 / 32, abs=1e-4) and found["test_steps"] == 12


def test_recovered_of_sums():
    assert prm_quality.recovered(np.array([[10, 16, 20], [10, 20, 20]])).tolist() == [0.6, 1.0]
