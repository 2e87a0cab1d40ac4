"""PRM-guided PPO for real: Ray, vLLM rollouts, a vLLM PRM worker, DeepSpeed, weights back to vLLM.

Its responses fork, and its algorithms are a user's: shaping, estimator, length penalty and step splitter from files.
"""

import json
import re
from collections import Counter

import pytest
from commands import in_turn
from ppo_runs import POLICY, ROOT, data, host_flags, logged_steps, prm, train  # noqa: F401 (fixtures)

from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_host_flags
from openrlhf_prm.report.run_folder import read_run

pytestmark = pytest.mark.stack

LISTENING = """
import json

from openrlhf_prm.answers.outcome import reward_func as judged


def reward_func(queries, prompts, labels):
    with open("{log}", "a") as log:
        log.write(json.dumps([prompts[0], queries[0][len(prompts[0]) :]]) + "\\n")
    return judged(queries, prompts, labels)
"""


@pytest.fixture(scope="module")
def trained(data, prm):  # noqa: F811
    """A run of two updates: its output, and the folder of all that it wrote, with `responses` as they were judged."""
    listening = data / "listening.py"
    listening.write_text(LISTENING.format(log=data / "responses"))
    extensions = "examples/extensions"  # of the repository, in which the command runs
    done = train(
        *host_flags(data),
        *("--prm.model_name_or_path", prm, "--data.max_samples", 16, "--reward.remote_url", listening),
        *("--process_reward.shaping", f"{extensions}/shaping.py:FirstMistake", "--process_reward.threshold", 2),
        *("--algo.advantage.estimator", ROOT / "tests/stack/best_of_forks.py:BestOfForks"),
        *("--algo.advantage.decay", 0.5, "--algo.advantage.branching", "2x2", "--algo.advantage.fork_at", "unsure"),
        *("--length_penalty.kind", f"{extensions}/penalty.py:PerToken", "--length_penalty.price", 0.5),
        *("--steps.splitter", f"{extensions}/splitter.py:sentences"),
        *("--ckpt.output_dir", data / "out", "--ckpt.path", data / "ckpt"),
        *("--logger.tensorboard_dir", data / "tensorboard"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done, data


def test_algorithms_from_files_train_a_policy_and_its_weights_reach_vllm(trained):
    done, folder = trained
    steps = logged_steps(done.stdout + done.stderr)
    assert len(steps) == 2
    for status in steps:
        assert abs(status["vllm_kl"]) < 0.005
        assert 0 <= status["process/step_score"] <= 1 and status["process/steps"] >= 2
        # Below a threshold of 2 every first step is a mistake; right answers pay for their tokens.
        assert status["process/reward"] == -1.0
        assert 0 <= status["accuracy"] <= 1 and status["length_penalty"] <= 0
        assert (status["length_penalty"] < -1) == (status["accuracy"] > 0)
    weights = (folder / "out" / "model.safetensors").read_bytes()
    assert weights != (POLICY / "model.safetensors").read_bytes()


def test_its_progress_is_printed_and_kept(trained):
    done, folder = trained
    lines = re.findall(r"openrlhf_prm: update (\d)/2 · accuracy .* · step score .* s \(rollout .*\)", done.stdout)
    assert lines == ["1", "2"] and "· 0:00:00 left" in done.stdout
    live = read_run(folder / "tensorboard").scalars["after"]
    assert [update for update, _ in live["train/process/step_score"]] == [1, 2]
    assert live["train/progress/share"][-1] == (2, 1.0)


def test_responses_fork_where_the_policy_was_unsure(trained):
    groups = {}
    for line in (trained[1] / "responses").read_text().splitlines():
        prompt, response = json.loads(line)
        groups.setdefault(prompt, []).append(response)
    assert len(groups) == 16 and {len(group) for group in groups.values()} == {4}
    # Two and two begin alike: no fork stands before the first token, so each of at most two stands twice.
    for group in groups.values():
        first = Counter(response[0] for response in group)
        assert len(first) <= 2 and {count % 2 for count in first.values()} == {0}
    assert any(len(set(group)) > 2 for group in groups.values()), "behind the fork they differ"


def test_a_wrong_flag_is_one_line_before_anything_starts(data):  # noqa: F811
    seam = ("--train.plugin", "openrlhf_prm.plugin")
    # Module and command in front of the flags, a wrong flag, and how the error begins.
    given = [
        (("openrlhf_prm.cli.train_ppo_ray",), "prm", "python -m openrlhf_prm.cli.train_ppo_ray: error: "),
        (("openrlhf_prm.cli.main", "train-ppo"), "prm", "openrlhf-prm train-ppo: error: "),
        (("openrlhf.cli.train_ppo_ray", *seam), "prm", "error: "),
        (("openrlhf.cli.train_ppo_ray", *seam), "outcome", "error: argument "),
    ]
    wrong = {
        "prm": (("--prm.model_name_or_path", "/no/such/prm"), "there is no folder /no/such/prm"),
        # Of the patched host, which takes outcome rewards by name.
        "outcome": (
            ("--reward.remote_url", "maths"),
            "'maths' must be one of math, exact, reasoning_gym, one FILE.py",
        ),
    }
    commands = [(*first, *host_flags(data), *cpu_host_flags(), *wrong[kind][0]) for first, kind, _ in given]
    for (code, said, started), (_, kind, begins) in zip(in_turn(commands, cpu_environment()), given, strict=True):
        (flag, _), message = wrong[kind]
        assert (code, started) == (2, False), said
        assert f"{begins}{flag}: {message}" in said.splitlines()[-1], said
