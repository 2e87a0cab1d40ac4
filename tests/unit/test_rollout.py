"""Step records and the executor around the host's, with a scripted executor and scorer in their place."""

import asyncio
import sys
from types import ModuleType

import pytest

from openrlhf_prm.rollout.records import StepRecord


class SingleTurn:
    """Stands for the host's single-turn executor: two tokens of prompt, five of response."""

    def __init__(self, reward):
        self.reward = reward
        self.reward_endpoints = ["reward.py"]

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        return {"observation_tokens": [7, 8, 1, 2, 1, 3, 0], "action_ranges": [(2, 7)], "reward": self.reward}


class Tokenizer:
    """Token 1 is a word, 2 a newline, 3 the end of a line, 0 the end of sequence, which decodes to nothing."""

    def decode(self, ids, **_):
        return "".join({1: "a", 2: "\n", 3: "b\n", 0: ""}[i] for i in ids)


class Scorer:
    def __init__(self):
        self.asked = []

    async def score(self, question, steps):
        self.asked.append((question, steps))
        return [0.25] * len(steps)


@pytest.fixture
def executor_module(monkeypatch):
    # The host's module pulls in its whole stack; the executor needs two names of it.
    agent = ModuleType("openrlhf.utils.agent")
    agent.AgentExecutorBase, agent.SingleTurnAgentExecutor = object, SingleTurn
    for name in ("openrlhf", "openrlhf.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "openrlhf.utils.agent", agent)
    monkeypatch.delitem(sys.modules, "openrlhf_prm.rollout.executor", raising=False)
    import openrlhf_prm.rollout.executor as module

    yield module
    sys.modules.pop("openrlhf_prm.rollout.executor")


def execute(executor):
    return asyncio.run(executor.execute("<user>17+15</user>", "32", None, 10, Tokenizer(), None))


def test_a_response_comes_back_with_its_steps_and_scores(executor_module):
    scorer = Scorer()
    scoring = executor_module.StepScoring(scorer, "newline", "<user>(.*?)</user>")
    record = execute(executor_module.StepScoringExecutor(SingleTurn(1.0), scoring))["steps"]
    assert scorer.asked == [("17+15", ["a", "ab"])]
    assert record.ends == (2, 5) and record.scores == (0.25, 0.25) and record.repetition == 0.0


def test_a_missing_reward_is_an_error_that_names_the_flag(executor_module):
    with pytest.raises(RuntimeError, match="--reward.remote_url .* gave no reward"):
        execute(executor_module.StepScoringExecutor(SingleTurn(None), None))


def test_a_pattern_that_does_not_occur_is_an_error(executor_module):
    with pytest.raises(ValueError, match="--prm.question_pattern"):
        executor_module.StepScoring(Scorer(), "newline", "<q>(.*?)</q>").question("no tag")


def test_scoring_errors_propagate(executor_module):
    class Broken:
        async def score(self, question, steps):
            raise RuntimeError("the PRM died")

    scoring = executor_module.StepScoring(Broken(), "newline")
    with pytest.raises(RuntimeError, match="the PRM died"):
        execute(executor_module.StepScoringExecutor(SingleTurn(1.0), scoring))


def test_records_align_and_are_cut_inside_a_step():
    with pytest.raises(ValueError, match="got 1, expected 2"):
        StepRecord((1, 2), (0.5,), 0.0, 0.0)
    record = StepRecord((3, 5, 9), (0.1, 0.2, 0.3), 0.0, 0.0)
    assert record.cut(9) is record
    assert (record.cut(7).ends, record.cut(7).scores) == ((3, 5, 7), (0.1, 0.2, 0.3))
    assert (record.cut(5).ends, record.cut(5).scores) == ((3, 5), (0.1, 0.2))
