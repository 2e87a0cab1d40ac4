"""What the agent's benchmark computes from curves, on curves a reader can check by hand; no engine runs."""

from pathlib import Path

import pytest

from benchmarks import calculator_agent
from benchmarks.ppo_methods import Adam

SLOW, FAST = Adam(1e-3, 1e-4, 0.01, 2), Adam(2e-3, 1e-4, 0.01, 1)


def cell(*accuracy: float, adam: Adam = SLOW) -> dict:
    return {"adam": str(adam), "accuracy": list(accuracy)}


def test_the_baseline_is_tuned_for_its_peak_and_turns_for_speed():
    early, late = (0.5, 0.5, 0.5), (0.0, 0.3, 0.6)
    cells = {
        f"tune/{method}/{adam}/{seed}": cell(*curve)
        for method in ("turns", "outcome")
        for adam, curve in ((FAST, early), (SLOW, late))
        for seed in calculator_agent.TUNING_SEEDS
    }
    assert next(iter(calculator_agent.tuned(cells, "turns", [SLOW, FAST]))) == FAST
    found = calculator_agent.tuned(cells, "outcome", [SLOW, FAST])
    assert list(found) == [SLOW, FAST] and found[SLOW] == pytest.approx(0.6)


def test_steps_to_the_baselines_peak(tmp_path):
    cells = {
        # Moving means: 0, 0.15, 0.3, 0.4 and 0, 0.15, 0.2, 0.2; their mean peaks at 0.3 in update 4, 8 optimizer steps.
        "outcome/0": cell(0.0, 0.3, 0.6, 0.3),
        "outcome/1": cell(0.0, 0.3, 0.3, 0.0),
        # 0.3 in update 2, with one optimizer step each; and never.
        "turns/0": cell(0.2, 0.4, 0.6, 0.8, adam=FAST),
        "turns/1": cell(0.2, 0.2, 0.2, 0.2, adam=FAST),
        "turns/2": cell(1.0, 1.0, 1.0, 1.0, adam=FAST),
    }
    summary = calculator_agent.summarise(cells, seeds=5)
    assert summary["seeds"] == 2, "a seed that one method lacks is not compared"
    assert summary["peak"] == pytest.approx(0.3) and summary["peak_optimizer_steps"] == 8
    turns, outcome = summary["turns"], summary["outcome"]
    assert turns["optimizer_steps"][0] == (2 + 4) / 2 and turns["not_reached"] == [1]
    assert turns["share"][0] == pytest.approx((2 / 8 + 4 / 8) / 2)
    assert outcome["optimizer_steps"][0] == (3 * 2 + 4 * 2) / 2 and outcome["not_reached"] == [1]
    assert turns["accuracy"][0] == pytest.approx(0.5)
    assert calculator_agent.summarise({}, seeds=5) == {}
    calculator_agent.figure(tmp_path / "curves.svg", summary)
    assert (tmp_path / "curves.svg").read_text().rstrip().endswith("</svg>")


def test_its_runs_and_the_examples_own_do_not_share_a_folder(monkeypatch):
    """Both draw questions into files of the same names."""
    asked = []
    monkeypatch.setattr("sys.argv", ["calculator_agent"])
    monkeypatch.setattr(calculator_agent, "main", lambda name, run, args: asked.append(args.work_dir) or 0)
    calculator_agent.command()
    assert asked[0] not in (Path("runs/calculator_agent"), Path("runs/calculator_agent-seed1"))
