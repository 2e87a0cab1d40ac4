"""The line of an update, and the time that is left, by hand."""

import math
import re
from pathlib import Path

import pytest

from openrlhf_prm.ppo.progress import SECONDS_LEFT, SHARE, Progress, progress_line


def test_what_is_left_rests_on_the_prompts_taken_since_the_first_update():
    clock = iter([1000.0, 1010.0, 1030.0])
    progress = Progress(80, now=lambda: next(clock))
    assert progress.columns(8) == {SHARE: 0.1}  # the engines' start lies before it
    assert progress.columns(16) == {SHARE: 0.2, SECONDS_LEFT: pytest.approx(10 / 8 * 64)}
    assert progress.columns(80) == {SHARE: 1.0, SECONDS_LEFT: 0.0}


def test_a_resumed_run_does_not_count_what_the_killed_one_took():
    clock = iter([0.0, 6.0])
    progress = Progress(100, now=lambda: next(clock))
    assert progress.columns(50) == {SHARE: 0.5}
    assert progress.columns(60)[SECONDS_LEFT] == pytest.approx(24.0)


@pytest.mark.parametrize(("prompts", "consumed"), [(0, 0), (0, 8), (8, 16)])
def test_the_share_stays_in_its_bounds(prompts, consumed):
    progress = Progress(prompts)
    columns = [progress.columns(consumed), progress.columns(consumed)]
    assert all(0 <= column[SHARE] <= 1 for column in columns)
    assert not any(SECONDS_LEFT in column for column in columns)  # nothing was taken between the two


def test_the_line():
    status = {
        "process/accuracy": 0.412,
        "rollout/reward_mean": 0.4,
        "process/reward": -0.25,
        "process/step_score": 0.7,
        "rollout/response_length_mean": 212.7,
        "kl": 0.0031,
        "vllm_kl": 2e-5,
        "process/scoring_hidden": math.nan,
        "timing/generation": 20.0,
        "timing/make_experience": 1.5,
        "timing/ppo_train": 18.25,
        "timing/broadcast": 0.3,
        "timing/step_total": 40.05,
        SHARE: 0.2,
        SECONDS_LEFT: 1999.6,
    }
    assert progress_line(12, status) == (
        "update 12/60 · accuracy 41.2% · reward 0.4 · process reward -0.25 · step score 0.700 · tokens 213 · KL 0.0031"
        " · KL between engines 2e-05 · 40.0 s (rollout 20.0, rewards 1.5, training 18.2, weights 0.3) · 0:33:20 left"
    )


def test_the_docs_name_everything_that_is_logged():
    root = Path(__file__).parents[4]
    code = "".join(file.read_text() for file in (root / "openrlhf_prm/ppo").rglob("*.py"))
    names = set(re.findall(r'"((?:process|vine|online_prm|progress)/\w+)"', code))
    assert len(names) > 15
    assert names - set(re.findall(r"`([\w/]+)`", (root / "docs/ppo.md").read_text())) == set()


def test_what_is_not_logged_is_not_said():
    assert progress_line(3, {}) == "update 3"
    corrects = {"accuracy_t1": 0.5, "difference": -0.125, "stage": 2.0}
    status = {f"self_correction/{name}": value for name, value in corrects.items()}
    assert progress_line(3, status) == "update 3 · stage 2 · first attempts 50.0% · won less lost -12.5%"
    assert progress_line(3, {SHARE: 1.0, "reward": 0.5}) == "update 3/3 · reward 0.5"
