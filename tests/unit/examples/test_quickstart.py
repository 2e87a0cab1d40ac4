"""The quickstart's stages: done ones are kept, changed or failed ones run again, questions are disjoint."""

import json
import sys
from dataclasses import replace

import pytest

from benchmarks.ppo_methods import Adam
from benchmarks.runs import ROOT
from examples.quickstart.run import GUIDED_ADAM, ROLLOUT_QUESTIONS, SAMPLES, STOCK_ADAM, plan, write_questions
from examples.quickstart.stages import Stage, StageFailed, made_folder, run_stages


def stage(tmp_path, code, output="out.txt", **options):
    path = tmp_path / output
    return Stage("one", "first stage", [sys.executable, "-c", code, str(path)], [path], expected_s=1, **options)


COUNT = "import sys; open(sys.argv[1], 'a').write('x')"


def test_a_finished_stage_is_not_run_again(tmp_path):
    first = run_stages([stage(tmp_path, COUNT)], tmp_path)
    assert run_stages([stage(tmp_path, COUNT)], tmp_path) == first
    assert (tmp_path / "out.txt").read_text() == "x"


def test_a_changed_command_or_a_lost_output_runs_again(tmp_path):
    run_stages([stage(tmp_path, COUNT)], tmp_path)
    run_stages([stage(tmp_path, COUNT + "  # changed")], tmp_path)
    assert (tmp_path / "out.txt").read_text() == "xx"
    (tmp_path / "out.txt").unlink()
    run_stages([stage(tmp_path, COUNT + "  # changed")], tmp_path)
    assert (tmp_path / "out.txt").read_text() == "x"


def test_stages_after_one_that_ran_again_run_again(tmp_path):
    def both(comment):
        return [stage(tmp_path, COUNT + comment, "a"), replace(stage(tmp_path, COUNT, "b"), name="two")]

    run_stages(both(""), tmp_path)
    run_stages(both("  # changed"), tmp_path)
    assert (tmp_path / "b").read_text() == "xx"


def test_a_failure_shows_the_end_of_the_log_and_is_not_marked_done(tmp_path):
    broken = stage(tmp_path, COUNT + "; raise SystemExit('the reason')")
    with pytest.raises(StageFailed, match=r"the reason(.|\n)*exit code 1"):
        run_stages([broken], tmp_path)
    with pytest.raises(StageFailed):
        run_stages([broken], tmp_path)
    assert (tmp_path / "out.txt").read_text() == "xx"


def test_a_command_that_leaves_no_output_has_failed(tmp_path):
    with pytest.raises(StageFailed, match="no .*out.txt"):
        run_stages([stage(tmp_path, "pass")], tmp_path)


def test_half_done_folders_are_removed_before_a_stage_starts(tmp_path):
    (tmp_path / "curves").mkdir()
    (tmp_path / "curves" / "old").touch()
    run_stages([stage(tmp_path, COUNT, fresh=(tmp_path / "curves",))], tmp_path)
    assert not (tmp_path / "curves").exists()


def test_a_file_in_the_folders_place_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit) as ended:
            made_folder(path)
        assert ended.value.code == 2
        assert capsys.readouterr().err.splitlines()[0].startswith(f"--output {path}: ")
    assert made_folder(tmp_path / "new" / "one").is_dir() and made_folder(str(tmp_path)) == tmp_path


def test_questions_of_the_parts_are_disjoint(tmp_path):
    write_questions(tmp_path, 0)
    parts = {
        path.stem: {json.loads(line)["question"] for line in path.read_text().splitlines()}
        for path in tmp_path.glob("*.jsonl")
    }
    assert set(parts) == {"label_questions", "ppo_questions", "test_questions"}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values()))


def test_the_comparison_is_the_host_alone_on_the_same_questions(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    stages = {stage.name: stage.command for stage in plan(tmp_path, seed=0, compare=True)}
    guided, stock = stages["ppo_guided"], stages["ppo_stock"]
    # The host's own would join a Ray that another command has started.
    assert stock[:2] == ["env", "RAY_ADDRESS=local"]
    stock = stock[2:]
    assert guided[2] == "openrlhf_prm.cli.train_ppo_ray" and stock[2] == "openrlhf.cli.train_ppo_ray"
    differing = {flag for flag in set(guided) ^ set(stock) if flag.startswith("--")}
    assert differing and all(
        flag in guided and flag.startswith(("--prm.", "--process_reward.", "--algo.advantage.")) for flag in differing
    )

    changed = set(zip(stock, stock[1:], strict=False)) - set(zip(guided, guided[1:], strict=False))
    assert {flag for flag, value in changed if flag.startswith("--") and not value.startswith("--")} == {
        *("--actor.adam.lr", "--train.batch_size", "--algo.advantage.estimator"),
        *("--ckpt.output_dir", "--ckpt.path", "--logger.tensorboard_dir"),
    }


def test_optimizer_steps_an_update_divide_its_responses(tmp_path):
    for stage in plan(tmp_path, seed=0, compare=True):
        if stage.name.startswith("ppo_"):
            batch = int(stage.command[stage.command.index("--train.batch_size") + 1])
            assert (ROLLOUT_QUESTIONS * SAMPLES) % batch == 0


def test_the_baseline_is_what_tuning_chose(tmp_path):
    """`make quickstart COMPARE=1` runs the stock method and setting that the benchmark found best."""
    record = json.loads((ROOT / "benchmarks" / "results" / "sample_efficiency.json").read_text())
    summary = record["summary"]["long"]
    assert summary["best_stock_at_the_end"] == "rloo"
    for method, adam in (("rloo", STOCK_ADAM), ("prm_fast", GUIDED_ADAM)):
        tuned = Adam.read(summary["methods"][method]["adam"])
        assert (tuned.lr, tuned.eps, tuned.max_norm, tuned.steps) == (adam["lr"], 1e-4, 0.01, adam["steps"])
