"""The quickstart's stages: done ones are kept, changed or failed ones run again, questions are disjoint."""

import json
import sys
from dataclasses import replace

import pytest

from examples.quickstart.run import plan, write_questions
from examples.quickstart.stages import Stage, StageFailed, run_stages


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


def test_questions_of_the_parts_are_disjoint(tmp_path):
    write_questions(tmp_path, 0)
    parts = {
        path.stem: {json.loads(line)["question"] for line in path.read_text().splitlines()}
        for path in tmp_path.glob("*.jsonl")
    }
    assert set(parts) == {"label_questions", "ppo_questions", "test_questions"}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values()))


def test_the_comparison_differs_in_reward_and_estimator_only(tmp_path):
    stages = {stage.name: stage.command for stage in plan(tmp_path, seed=0, compare=True)}
    guided, outcome = set(stages["ppo"]), set(stages["ppo_outcome_only"])
    assert "--prm.model_name_or_path" in guided and "--prm.model_name_or_path" not in outcome
    names = {flag for flag in guided ^ outcome if flag.startswith("--")}
    assert all(name.startswith(("--prm.", "--process_reward.", "--algo.advantage.")) for name in names)
