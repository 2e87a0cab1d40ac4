"""Responses of several turns in an evaluation: the host's own executor, with a stand-in for the engines."""

import asyncio
from types import SimpleNamespace

import pytest
import torch
from openrlhf.utils.agent import AgentExecutorBase, AgentInstanceBase, MultiTurnAgentExecutor

from examples.quickstart.make_policy import build_tokenizer
from openrlhf_prm.data.questions import Question
from openrlhf_prm.evaluation.agents import Agent, AskedEngine, load_agent
from openrlhf_prm.evaluation.collecting import Judges, Sampling, collect

TOKENIZER = build_tokenizer(named=True)
QUESTION = Question("1", "Q: 12+35=?\n", "47")


class Echo(AgentInstanceBase):
    """Counts the turns and ends after the third; the answer is right where the last turn is the label."""

    def __init__(self):
        self.turns = 0

    async def step(self, states, **kwargs):
        self.turns += 1
        right = states["action_text"] == states["label"]
        done = self.turns == 3
        return {
            "rewards": torch.tensor(0.25),
            "scores": torch.tensor(float(right)),
            "environment_feedback": "" if done else f"{self.turns}\n",
            "done": done,
        }


class Engines:
    """Writes the texts in order, and keeps what it was asked."""

    def __init__(self, *texts: str, truncated: bool = False):
        self.texts, self.truncated, self.asked = list(texts), truncated, []

    async def generate(self, prompt, **request):
        text = self.texts[len(self.asked) % len(self.texts)]
        self.asked.append((TOKENIZER.decode(prompt), request))
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        return [SimpleNamespace(text=text, token_ids=ids, truncated=self.truncated)]


def respond(engines, context: int = 200, executor=None, **request):
    agent = Agent(executor or MultiTurnAgentExecutor(Echo), TOKENIZER, context)
    request = {"n": 1, "max_tokens": 50, "temperature": 1.0, "top_p": 0.9, "seed": 7, **request}
    return asyncio.run(agent.respond(engines, QUESTION.question, QUESTION.label, request))


def test_a_response_of_three_turns():
    engines = Engines("12+35=47", "so 47", "47")
    response = respond(engines)
    assert response.text == "12+35=471\nso 472\n47" and response.correct and not response.truncated
    assert [turn.before for turn in response.turns] == ["", "1\n", "2\n"]
    assert [TOKENIZER.decode(list(turn.tokens)) for turn in response.turns] == ["12+35=47", "so 47", "47"]
    assert response.tokens == sum(len(turn.tokens) for turn in response.turns) == 8 + 3 + 2
    prompts, requests = zip(*engines.asked, strict=True)
    assert prompts == tuple(QUESTION.question + text for text in ("", "12+35=471\n", "12+35=471\nso 472\n"))
    # What is left of the context, and numbers of its own for every turn; the same ones when it is asked again.
    assert [request["max_tokens"] for request in requests] == [200 - 8, 200 - 8 - 8 - 2, 200 - 8 - 8 - 2 - 3 - 2]
    assert all(request["top_p"] == 0.9 for request in requests)
    seeds = [request["seed"] for request in requests]
    assert len(set(seeds)) == 3
    again = Engines("12+35=47", "so 47", "47")
    respond(again)
    assert [request["seed"] for _, request in again.asked] == seeds
    assert not respond(Engines("47", "47", "48")).correct, "the sum of the turns' rewards is no verdict"


def test_greedy_turns_have_no_seed():
    engines = Engines("47")
    respond(engines, temperature=0.0, seed=None)
    assert all(request["temperature"] == 0.0 and "seed" not in request for _, request in engines.asked)


def test_a_conversation_that_fills_the_context():
    response = respond(Engines("12+35=47", truncated=True), context=8 + 8 + 2)
    assert len(response.turns) == 1 and response.truncated and not response.correct


class Silent(AgentExecutorBase):
    """An executor of a user's own, that lets the policy write nothing at all."""

    def __init__(self, **more):
        self.more = more

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        tokens = hf_tokenizer(prompt)["input_ids"]
        output = {"observation_tokens": tokens, "action_ranges": [], "truncated": False, "reward": 0.75}
        return output | self.more


def test_an_executor_without_a_turn_and_without_scores():
    response = respond(Engines("x"), executor=Silent())
    assert (response.text, response.turns, response.tokens) == ("", [], 0)
    assert response.correct, "one reward above 0.5, as in training"
    assert not respond(Engines("x"), executor=Silent(scores=0.5)).correct


@pytest.mark.parametrize("score", [float("nan"), "good", [1.0, 2.0]])
def test_a_verdict_that_is_none(score):
    with pytest.raises(ValueError, match="--eval.agent_func_path gave the reward .* for the prompt 'Q: 12"):
        respond(Engines("x"), executor=Silent(scores=score))


class Prm:
    async def score(self, question, steps):
        self.read = steps
        return [0.5] * len(steps)


def test_turns_are_graded():
    prm = Prm()
    judges = Judges(is_correct=lambda *_: pytest.fail("the agent judges"), splitter="newline", prm=prm)
    agent = Agent(MultiTurnAgentExecutor(Echo), TOKENIZER, 200)
    sampling = Sampling(n_samples_per_prompt=1)
    work = ([QUESTION], Engines("12+35=47", "", "47"), TOKENIZER, sampling, judges, str)
    greedy, sampled = asyncio.run(collect(*work, agent=agent))
    assert greedy.correct and greedy.steps == ["12+35=47", "47"] and greedy.step_scores == [0.5, 0.5]
    assert prm.read == ["12+35=47", "1\n2\n47"], "the PRM reads the environment's words"
    assert greedy.response == "12+35=471\n2\n47" and greedy.tokens == 10
    assert sampled.kind == "sample" and sampled.correct


def test_an_engine_is_asked_for_what_differs_from_the_default():
    from vllm import SamplingParams

    engines = Engines("47")
    given = SamplingParams(max_tokens=5, stop=["\n"], logprobs=1)
    output = asyncio.run(AskedEngine(engines, None).generate([1, 2], given))
    assert engines.asked[0][1] == {"max_tokens": 5, "stop": ["\n"], "logprobs": 1}
    assert output.outputs[0].text == "47" and output.outputs[0].finish_reason == "stop"


def test_files_that_hold_no_agent(tmp_path):
    file = tmp_path / "agent.py"
    cases = {
        "x = 1": "defines no AgentExecutor",
        "AgentExecutor = 1": "must inherit from openrlhf.utils.agent.AgentExecutorBase",
        "class AgentExecutor: pass": "must inherit from openrlhf.utils.agent.AgentExecutorBase",
        "import nothing_of_that_name": "cannot be imported",
    }
    for number, (text, fault) in enumerate(cases.items()):
        file = tmp_path / f"agent{number}.py"
        file.write_text(text)
        with pytest.raises(ValueError, match=f"--eval.agent_func_path.*{fault}"):
            load_agent(str(file))
    with pytest.raises(ValueError, match="--eval.agent_func_path.*there is no file"):
        load_agent(str(tmp_path / "absent.py"))
    with pytest.raises(ValueError, match="--eval.agent_func_path.* must be a Python file"):
        load_agent(str(tmp_path))
    assert type(load_agent("examples/calculator_agent/agent.py")).__name__ == "AgentExecutor"
