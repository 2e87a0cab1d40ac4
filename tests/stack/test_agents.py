"""An agent of two turns on real Ray, vLLM and DeepSpeed: trained with rewards per turn, and measured."""

import re

import pytest
from commands import ROOT, summary_of
from ppo_runs import POLICY, data, host_flags, logged_steps, train  # noqa: F401

from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.evaluation.responses import read_samples

pytestmark = pytest.mark.stack
AGENT = ROOT / "tests" / "stack" / "two_turn_agent.py"


def test_rewards_per_turn(data, tmp_path):  # noqa: F811
    done = train(
        *host_flags(data),
        *("--data.max_samples", 16, "--train.agent_func_path", AGENT, "--credit.turn_rewards", "--credit.unit", "turn"),
        *("--algo.advantage.estimator", "step_group", "--data.max_len", 300),
        *("--eval.dataset", data / "questions.jsonl", "--eval.steps", 2, "--eval.n_samples_per_prompt", 1),
        *("--ckpt.output_dir", tmp_path / "out", "--ckpt.path", tmp_path / "ckpt"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    output = done.stdout + done.stderr
    statuses = logged_steps(output)
    assert len(statuses) == 2
    for status in statuses:
        assert abs(status["vllm_kl"]) < 0.005, "what the environment wrote has no log-probability"
        # 0.25 for every first turn, 0.5 where it is right, 1 for a right second one; a turn is a step.
        assert 0.25 <= status["process/turn_reward"] <= 1.75 and 1 <= status["process/steps"] <= 2
    (accuracy,) = re.findall(r"'eval_\w*pass1': ([\d.]+)", output)
    # The host cuts the questions it evaluates at `--data.max_samples` too.
    assert float(accuracy) * 16 == round(float(accuracy) * 16), "right answers of 16, no rewards of turns"


def test_an_agents_policy_is_measured_in_conversations(data, tmp_path):  # noqa: F811
    flags = ["--actor.model_name_or_path", POLICY, "--data.input", data / "questions.jsonl", "--data.max_samples", 8]
    flags += ["--eval.agent_func_path", AGENT, "--vllm.max_model_len", 300, "--eval.n_samples_per_prompt", 4]
    flags += ["--eval.samples", tmp_path / "samples.jsonl", "--steps.splitter", "newline"]
    result = summary_of("openrlhf_prm.cli.evaluate", *flags)
    responses = read_samples(tmp_path / "samples.jsonl")
    assert result["questions"] == 8 and result["n"] == 4 and len(responses) == 8 * 5
    is_right = answer_checker("math")
    for response in responses:
        first, asked_again, second = response.response.partition(response.question)
        assert first and asked_again, "the environment's words stand between the turns"
        assert response.truncated or second
        assert all(step and step not in response.question for step in response.steps), "and are no step"
        assert response.correct == any(is_right(turn, response.label) for turn in (first, second)), "the agent judges"
    assert 0 < result["mean_at_4"] < 1
    assert result["mean_at_4"] == sum(r.correct for r in responses if r.kind == "sample") / 32
    twice = [r.response.split(r.question) for r in responses if r.kind == "sample" and not r.truncated]
    assert any(first != second for first, second in twice), "turns have seeds of their own"
