"""The quickstart's seeds: what is kept of a run, means and paired differences, memory of a process and its children."""

import subprocess
import sys

import psutil
import pytest

from benchmarks import quickstart
from benchmarks.runs import CommandFailed


def evaluation(share: float) -> dict:
    shares = {"greedy": share, "mean_at_8": share, "step_accuracy": share, "mean_tokens": 100 * share}
    intervals = {name: [value - 0.1, value + 0.1] for name, value in shares.items()}
    best = {"min": share + 0.05, "mean": 0.0}
    return {
        **shares,
        "best_of_8": best,
        "intervals": intervals | {"best_of_8": {"min": [share, 1.0], "mean": [0.0, 0.0]}},
        "prm_auc": 0.9,
        "habits": {"quick": 1.0},
        "pass_at_8": 1.0,
    }


def cell(before: float, guided: float, stock: float) -> dict:
    shares = {"before": before, "guided": guided, "stock": stock}
    return {
        **{name: quickstart.figures(evaluation(share)) for name, share in shares.items()},
        "seconds": {"annotate": 10.0, "total": 20.0},
        "peak_memory_mib": int(1000 * guided),
    }


def test_best_of_8_is_that_by_the_lowest_step_score():
    kept = quickstart.figures(evaluation(0.5))
    assert kept["best_of_8"] == {"value": 0.55, "interval": [0.5, 1.0]}
    assert kept["mean_at_8"] == {"value": 0.5, "interval": [0.4, 0.6]}
    assert "pass_at_8" not in kept and kept["prm_auc"] == 0.9


def test_differences_are_paired_by_seed():
    """Guided and stock scatter by 0.2 over seeds, their difference by 0.01: 0.1 +- 4.303 * 0.01 / sqrt(3)."""
    summary = quickstart.summarise({"a": cell(0.2, 0.5, 0.4), "b": cell(0.2, 0.7, 0.61), "c": cell(0.2, 0.9, 0.79)})
    assert summary["guided"]["greedy"]["mean"] == pytest.approx(0.7)
    difference = summary["guided_minus_stock"]["greedy"]
    assert difference["mean"] == pytest.approx(0.1)
    assert difference["interval"] == pytest.approx([0.1 - 0.02484, 0.1 + 0.02484], abs=1e-4)
    assert summary["seconds"] == {"annotate": 10.0, "total": 20.0} and summary["peak_memory_mib"] == 900


def test_of_one_seed_intervals_are_unknown():
    assert quickstart.summarise({"a": cell(0.2, 0.5, 0.4)})["guided"]["greedy"]["interval"] == [None, None]


def test_memory_counts_children():
    program = "held = bytes(range(256)) * (64 * 4096); print('ready', flush=True); input()"
    before = quickstart.memory_of(psutil.Process())
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline().strip() == b"ready"
        during = quickstart.memory_of(psutil.Process())
        child.communicate(b"\n")
    assert during - before > 60 * 2**20


def test_a_run_that_fails_names_its_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(quickstart.sys, "executable", "/bin/false")
    with pytest.raises(CommandFailed, match=rf"seed 3 .*{tmp_path / 'logs'}"):
        quickstart.run_seed(tmp_path, 3)
