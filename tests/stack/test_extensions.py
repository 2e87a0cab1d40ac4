"""A PPO run all of whose algorithms come from a user's files: shaping, estimator, length penalty and step splitter; the
outcome reward is chosen by name.
"""

import pytest
from ppo_runs import data, host_flags, logged_steps, prm, train  # noqa: F401 (fixtures)

pytestmark = pytest.mark.stack


def test_algorithms_from_files_reach_the_trainer_and_the_rollout_actors(data, prm, tmp_path):  # noqa: F811
    folder = "examples/extensions"  # of the repository, in which the command runs
    done = train(
        *host_flags(data),
        *("--prm.model_name_or_path", prm, "--data.max_samples", 8, "--reward.remote_url", "math"),
        *("--process_reward.shaping", f"{folder}/shaping.py:FirstMistake", "--process_reward.threshold", 2),
        *("--algo.advantage.estimator", f"{folder}/estimator.py:BestOfGroup", "--algo.advantage.decay", 0.5),
        *("--length_penalty.kind", f"{folder}/penalty.py:PerToken", "--length_penalty.price", 0.5),
        *("--steps.splitter", f"{folder}/splitter.py:sentences"),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (status,) = logged_steps(done.stdout + done.stderr)
    # Below a threshold of 2 every first step is a mistake; right answers pay for their tokens.
    assert status["process/reward"] == -1.0
    assert status["length_penalty"] <= 0 and status["process/steps"] >= 1
    assert abs(status["vllm_kl"]) < 0.005
