"""What the training benchmarks compute from curves, on curves a reader can check by hand; no engine runs."""

import argparse
import json
import math
import subprocess
import sys
import threading

import pytest

from benchmarks import hacking, length_control, overhead, runs, sample_efficiency
from benchmarks.demonstration_prms import Labels, labelled
from openrlhf_prm.tasks.arithmetic import HabitMix, check_steps, habit_of


def test_cells_are_kept_and_only_missing_ones_are_made(tmp_path):
    made = []

    def cell(name):
        made.append(name)
        return {"figure": len(made)}

    def cells(settings):
        return runs.Cells(tmp_path / "out.json", settings)

    first = cells({"a": 1})
    assert first.fill({"one": lambda: cell("one")})
    assert not first.fill({"one": lambda: cell("one"), "two": lambda: cell("two")}, seconds=-1.0), "no time was left"
    again = cells({"a": 1})
    assert again.fill({"one": lambda: cell("one"), "two": lambda: cell("two")})
    assert made == ["one", "two"] and again.filled["one"]["figure"] == 1
    again.write({"best": 2})
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["summary"] == {"best": 2} and "hardware" in written and "versions" in written
    with pytest.raises(ValueError, match="--output .* other settings .a was 1, is 2.; name another, or add --fresh"):
        cells({"a": 2})
    assert runs.Cells(tmp_path / "out.json", {"a": 2}, fresh=True).filled == {}
    for other in ("[]", "{}", "no json"):
        (tmp_path / "out.json").write_text(other)
        with pytest.raises(ValueError, match="--output .* holds something else"):
            cells({"a": 1})


def test_cells_that_are_made_together(tmp_path):
    cells = runs.Cells(tmp_path / "out.json", {})
    together = threading.Barrier(2, timeout=20)

    def cell():
        together.wait()
        return {"figure": 1}

    assert cells.fill({"one": cell, "two": cell}, jobs=2)
    assert set(json.loads((tmp_path / "out.json").read_text())["cells"]) == {"one", "two"}

    def fail():
        raise runs.CommandFailed("no")

    with pytest.raises(runs.CommandFailed):
        cells.fill({"bad": fail, "after": lambda: {"figure": 2}})
    assert set(cells.filled) == {"one", "two"}, "after an error nothing more is begun"


def test_a_model_is_made_once_for_the_same_settings(tmp_path):
    model = tmp_path / "prm"

    def make(**settings):
        if runs.made_with(model, settings):
            return False
        model.mkdir()
        (model / "config.json").write_text("{}")
        return True

    assert make(noise=0.2) and not make(noise=0.2) and make(noise=0.3) and make(noise=0.2)
    (model / "config.json").unlink()
    assert not runs.made_with(model, {"noise": 0.2}), "an interrupted training left no model"


def test_means_and_intervals():
    assert runs.moving_mean([1.0, 2.0, 3.0, 5.0], 2) == [1.0, 1.5, 2.5, 4.0]
    mean, low, high = runs.mean_interval([1.0, 2.0, 3.0])
    # t with 2 degrees of freedom is 4.303; the standard error is 1 / sqrt(3).
    assert (
        mean == 2.0 and high - mean == pytest.approx(4.303 / math.sqrt(3), abs=1e-3) and low == pytest.approx(4 - high)
    )
    assert runs.mean_interval([1.0]) == (1.0, None, None)
    difference, low, high = runs.difference_interval([3.0, 4.0, 5.0], [1.0, 2.0, 3.0])
    # Equal variances: t with 4 degrees of freedom is 2.776; the standard error is sqrt(1/3 + 1/3).
    assert difference == 2.0 and high - difference == pytest.approx(2.776 * math.sqrt(2 / 3), abs=1e-3)
    assert low == pytest.approx(4 - high)
    assert runs.difference_interval([1.0], [1.0, 2.0]) == (-0.5, None, None)
    assert runs.difference_interval([1.0, 1.0], [2.0, 2.0]) == (-1.0, None, None)


def test_a_run_diverges_where_reward_rises_and_accuracy_falls():
    rising = [float(n) for n in range(8)]
    falling = [0.5, 0.6, 0.6, 0.6, 0.4, 0.3, 0.2, 0.1]
    # Means over 3 updates: 0.5, 0.55, 0.567, 0.6, 0.533, 0.433: 10 points below the best at update 6.
    assert hacking.divergence(falling, rising) == 6
    assert hacking.divergence(falling, rising[::-1]) is None, "the reward fell as well"
    assert hacking.divergence(rising, rising) is None


def test_overhead_is_a_ratio_of_medians():
    parts = {f"{part}_s": [1.0] for part in overhead.PARTS}
    cells = {
        "plain 0": {"step_s": [2.0, 4.0], **parts},
        "prm 0": {"step_s": [3.0, 3.0], "hidden_share": [0.5, 1.0], **parts},
        "plain 1": {"step_s": [2.0], **parts},
    }
    summary = overhead.summarise(cells)
    assert (summary["plain_step_s"], summary["prm_step_s"], summary["ratio"]) == (2.0, 3.0, 1.5)
    assert summary["hidden_share"] == 0.75


def test_length_control_is_reached_with_fewer_tokens_at_the_same_accuracy():
    def test(accuracy, tokens):
        return {"mean_at_8": accuracy, "mean_tokens": tokens, "greedy": 1.0, "interval": [0.0, 1.0]}

    cells = {
        "before": test(0.9, 100.0),
        "kimi": {"test": test(0.88, 50.0)},
        "lagrangian": {"test": test(0.895, 66.0), "target": 60, "tokens": [0.0] + [63.0] * 5},
    }
    summary = length_control.summarise(cells, samples=8)
    assert not summary["kimi"]["reached"] and summary["lagrangian"]["reached"]
    assert summary["lagrangian"]["off_target"] == 0.1 and summary["lagrangian"]["off_target_last_5_updates"] == 0.05


def test_what_a_method_needs_to_reach_the_best_stock_peak():
    def cell(accuracy, seed):
        test = accuracy[-1] + 0.01 * seed
        return {
            "adam": "0.0001:1e-08:1",
            "accuracy": accuracy,
            "tokens": [10.0] * 4,
            "seconds": [1.0] * 4,
            "test": test,
        }

    slow, fast = [0.5, 0.5, 0.6, 0.7], [0.5, 0.8, 0.9, 0.9]
    cells = {f"short/rloo/{s}": cell(slow, s) for s in (0, 1)} | {f"short/vine/{s}": cell(fast, s) for s in (0, 1)}
    summary = sample_efficiency.summarise(cells, "short")
    # The moving mean over at most 3 updates of rloo ends at 0.6; vine's second mean is 0.65.
    assert summary["best_stock"] == "rloo" and summary["peak"] == 0.6
    assert summary["methods"]["vine"]["optimizer_steps"] == 8
    assert summary["methods"]["vine"]["updates"] == 2 and summary["methods"]["vine"]["tokens"] == 20
    assert summary["methods"]["rloo"]["updates"] == 4 and summary["methods"]["rloo"]["not_reached"] == []
    assert sample_efficiency.reached(cell(slow, 0), 0.9) == (4, 40.0, 4.0, False)
    assert summary["methods"]["vine"]["accuracy"][0] == pytest.approx(0.905)
    assert summary["best_stock_at_the_end"] == "rloo" and summary["methods"]["vine"]["ahead"][0] == pytest.approx(0.2)


def test_a_summary_of_one_seed_has_no_interval():
    cell = {"adam": "0.0001:1e-08:1", "accuracy": [0.5], "tokens": [10.0], "seconds": [1.0], "test": 0.51234}
    own = sample_efficiency.summarise({"short/rloo/0": cell}, "short")["methods"]["rloo"]
    assert own["accuracy"] == [0.5123, None, None] and own["ahead"] == [0.0, None, None]


def test_a_stock_method_with_more_updates_sets_no_peak():
    def cell(accuracy):
        count = len(accuracy)
        return {
            "adam": "0.0001:1e-08:1",
            "accuracy": accuracy,
            "tokens": [1.0] * count,
            "seconds": [1.0] * count,
            "test": accuracy[-1],
        }

    cells = {f"long/ppo/{s}": cell([0.3, 0.3]) for s in (0, 1)}
    cells |= {f"long/ppo_longer/{s}": cell([0.3, 0.3, 0.3, 0.9, 0.9, 0.9]) for s in (0, 1)}
    summary = sample_efficiency.summarise(cells, "long")
    assert summary["best_stock"] == summary["best_stock_at_the_end"] == "ppo" and summary["peak"] == 0.3
    assert summary["methods"]["ppo_longer"]["ahead"][0] == pytest.approx(0.6)


def test_settings_are_read_and_written():
    given = sample_efficiency.Adam.read("4.8e-3:1e-4:0.01")
    assert given.steps == 4 and str(given) == "0.0048:0.0001:0.01"
    given = sample_efficiency.Adam.read("9.6e-3:1e-4:0.01:2")
    assert given.steps == 2 and sample_efficiency.Adam.read(str(given)) == given


def test_the_fastest_setting_is_not_taken_where_it_ruins_another_tuning_seed(tmp_path):
    slow, fast, worst = (sample_efficiency.Adam.read(text) for text in ("3e-4:1e-8:1", "6e-4:1e-8:1", "1e-2:1e-8:1"))

    def cell(end):
        return {"accuracy": [0.2, 0.2, 0.2, 0.2, end, end]}

    cells = runs.Cells(tmp_path / "out.json", {})
    ends = {(slow, 99): 0.7, (fast, 99): 0.9, (worst, 99): 0.1, (slow, 98): 0.7, (fast, 98): 0.0}
    cells.filled = {
        sample_efficiency.tuning_cell("long", "ppo", adam, seed): cell(end) for (adam, seed), end in ends.items()
    }
    found = sample_efficiency.Runs(argparse.Namespace(adam=[worst, slow, fast]), cells)
    assert list(found.tuned("long", "ppo", (99,))) == [fast, slow, worst]
    assert found.tuned("long", "ppo_longer") == {slow: pytest.approx(0.7), fast: 0.0}, "the worst has one seed"
    assert next(iter(found.tuned("long", "ppo"))) == slow
    assert found.contender("long", "ppo") is None, "0.1 cannot become better than 0.7"
    del cells.filled[sample_efficiency.tuning_cell("long", "ppo", slow, 98)]
    assert found.contender("long", "ppo") == slow
    assert found.contender("short", "ppo") is None, "nothing was tried"


def test_what_is_tuned_for_speed_counts_all_updates(tmp_path):
    early, late = (sample_efficiency.Adam.read(text) for text in ("1:1:1:2", "1:1:1:4"))
    curves = {early: [0.8, 0.9, 0.9, 0.9, 0.9, 0.9], late: [0.1, 0.2, 0.3, 0.4, 1.0, 1.0]}
    cells = runs.Cells(tmp_path / "out.json", {})
    cells.filled = {
        sample_efficiency.tuning_cell("long", "prm_mistakes", adam, 99): {"accuracy": curve}
        for adam, curve in curves.items()
    }
    found = sample_efficiency.Runs(argparse.Namespace(adam=[late, early]), cells)
    assert list(found.tuned("long", "prm_mistakes", (99,))) == [late, early]
    assert list(found.tuned("long", "prm_fast", (99,))) == [early, late]


def test_spoilt_labels():
    mix = HabitMix(filler=0.5)
    clean = labelled("tune", Labels(20, mix), seed=0)
    for row in clean:
        assert row["hard_labels"] == [int(right) for right in check_steps(row["question"], row["steps"])]
    spoilt = labelled("tune", Labels(20, mix, noise=0.3, trusted=("filler",)), seed=0)
    pairs = [(s, v) for row in spoilt for s, v in zip(row["steps"], row["hard_labels"], strict=True)]
    assert all(verdict == 1 for step, verdict in pairs if habit_of(step) == "filler")
    assert any(row["hard_labels"] != [int(r) for r in check_steps(row["question"], row["steps"])] for row in spoilt)


def training(module, flags, folder):
    """Stands for `train_ppo`: four updates, the same for every method."""
    flags = [str(flag) for flag in flags]
    assert all(flag.startswith("--") for flag in flags if "." in flag and "/" not in flag and not flag[0].isdigit())
    (folder / "policy").mkdir(parents=True, exist_ok=True)
    curves = {
        "rollout/reward_mean": [0.4, 0.5, 0.6, 0.6],
        "rollout/response_length_mean": [90.0, 80.0, 70.0, 60.0],
        "rollout/num_samples": [256.0] * 4,
        **{f"timing/{part}": [1.0] * 4 for part in (*overhead.PARTS, "step_total")},
    }
    if "--eval.dataset" in flags:
        curves["eval/eval_default_pass1"] = [0.9]
    if module == runs.OURS:
        curves["process/accuracy"] = [0.5, 0.6, 0.7, 0.7]
    if "--prm.model_name_or_path" in flags:
        curves |= {"process/reward": [0.1, 0.2, 0.3, 0.4], "process/hacking": [0.0] * 4, "process/scoring_s": [0.1] * 4}
        curves |= {"process/steps": [5.0] * 4, "process/repetition": [0.1] * 4, "process/scoring_hidden": [0.9] * 4}
    return {tag: list(enumerate(series, start=1)) for tag, series in curves.items()}, 9.0


def evaluation(policies, data, folder, samples, limit, seed=0):
    """Stands for `evaluate`; the policy before training is the longest."""
    assert data.exists()
    return {
        name: {
            "greedy": 0.9,
            f"mean_at_{samples}": 0.8,
            "mean_tokens": 100.0 if name == "before" else 60.0,
            "step_accuracy": 0.9,
            "intervals": {f"mean_at_{samples}": [0.7, 0.9]},
        }
        for name in policies
    }


def command(monkeypatch, capsys, folder, module, *flags) -> dict:
    name = module.__name__.split(".")[-1]
    monkeypatch.setattr(module, "train_ppo", training)
    work = ["--work-dir", str(folder / "work"), "--output", str(folder / f"{name}.json")]
    figure = [] if module is overhead else ["--figure", str(folder / f"{name}.svg")]
    monkeypatch.setattr(sys, "argv", [name, *work, *figure, *flags])
    assert module.command() == 0
    assert module is overhead or (folder / f"{name}.svg").read_text().startswith("<?xml")
    assert json.loads((folder / f"{name}.json").read_text())["summary"]
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_overhead_from_flags_to_its_last_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(overhead, "as_prm", lambda policy, folder: folder)
    summary = command(monkeypatch, capsys, tmp_path, overhead, "--updates", "4", "--warmup", "1", "--rounds", "2")
    assert summary["ratio"] == 1.0 and summary["hidden_share"] == 0.9


def test_hacking_from_flags_to_its_last_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(hacking, "train", lambda folder, *rest: folder / "prm")
    monkeypatch.setattr(hacking, "quality", lambda *rest: {"auc": 0.6})
    summary = command(monkeypatch, capsys, tmp_path, hacking, "--updates", "4")
    assert set(summary) == {*hacking.METHODS, "prm"}
    assert summary["sum"]["diverged_at"] is None and summary["sum"]["reward_end"] == 0.3
    assert "reward_end" not in summary["outcome"]


def test_length_control_from_flags_to_its_last_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(length_control, "fine_tune", lambda output, *rest: output)
    monkeypatch.setattr(length_control, "evaluate", evaluation)
    flags = ("--updates", "4", "--questions", "5", "--target", "0.7")
    summary = command(monkeypatch, capsys, tmp_path, length_control, *flags)
    assert set(summary) == {"before", *length_control.METHODS}
    assert summary["kimi"]["reached"] and summary["kimi"]["tokens_change"] == -0.4
    assert summary["lagrangian"]["target"] == 70


def test_sample_efficiency_from_flags_to_its_last_line(monkeypatch, capsys, tmp_path):
    def annotated(module, flags, log):
        flags = [str(flag) for flag in flags]
        if module.endswith("annotate"):
            place = flags[flags.index("--data.output") + 1]
            with open(place, "w") as labels:
                labels.write(json.dumps({"rollouts": [7, 6, 1], "endings": [1, 0, 1]}) + "\n")
        return 1.0

    monkeypatch.setattr(sample_efficiency, "fine_tune", lambda output, *rest, **more: output)
    monkeypatch.setattr(sample_efficiency, "evaluate", evaluation)
    monkeypatch.setattr(sample_efficiency, "run_command", annotated)
    flags = ("--chains", "short", "--seeds", "2", "--updates", "4", "--questions", "5", "--labelled", "5")
    flags = (*flags, "--methods", *sample_efficiency.METHODS)
    summary = command(monkeypatch, capsys, tmp_path, sample_efficiency, *flags)["short"]
    assert set(summary["methods"]) == set(sample_efficiency.METHODS)
    assert set(summary["prm_cost"]) == {"prm", "prm_mistakes"} and summary["prm_cost"]["prm"]["label_rollouts"] == 12
    # What stock logs as reward is its accuracy: 0.5667 at the end of the moving mean; ours has it with three updates.
    assert summary["peak"] == 0.5667 and summary["methods"]["tree"]["updates"] == 3
    assert summary["methods"]["tree"]["tokens"] == 240 * 256 and summary["methods"]["ppo"]["accuracy"] == [0.9] * 3
    assert summary["before"] == 0.8
    cells = json.loads((tmp_path / "sample_efficiency.json").read_text())["cells"]
    assert {name.rsplit("/", 1)[1] for name in cells if name.startswith("tune/short/vine/")} == {"98", "99"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["overhead", "--warmup", "99"], "overhead: error: --warmup must lie in 0..13, got 99"),
        (["mc_values", "--prm", "/no/prm"], "mc_values: error: --prm: there is no checkpoint in /no/prm"),
        (["hacking", "--noise", "0.7"], "hacking: error: --noise must lie in [0, 0.5), got 0.7"),
        (["length_control", "--updates", "0"], "length_control: error: --updates must be 1 or more, got 0"),
        (["sample_efficiency", "--adam", "3e-4"], "must be LR:EPS:MAX_NORM[:STEPS], all above 0, got '3e-4'"),
        (["sample_efficiency", "--adam", "1:1:1:3"], "--adam 1:1:1:3: STEPS must divide the 128 responses"),
        (
            ["sample_efficiency", "--adam", "1:0:1"],
            "argument --adam: must be LR:EPS:MAX_NORM[:STEPS], all above 0, got '1:0:1'",
        ),
    ],
)
def test_a_wrong_flag_is_one_line(flags, message):
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{flags[0]}", *flags[1:]], capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1
