"""The calculator agent's task and agents, by hand; no engine runs."""

import asyncio
import random

import pytest

from examples.calculator_agent.agent import CalculatorAgent
from examples.calculator_agent.make_policy import batch, tokens_of
from examples.calculator_agent.outcome_agent import OutcomeAgent
from examples.calculator_agent.task import MIX, MOST_TURNS, Conversation, Habits, demonstration
from examples.quickstart.make_policy import build_tokenizer
from openrlhf_prm.tasks.arithmetic import operands_of, questions

QUESTION = "Q: 17+a25+b31=?\n"  # 42, 73


def verdicts(*turns: str) -> list[bool]:
    conversation = Conversation(QUESTION)
    return [conversation.reply(turn).right for turn in turns]


def test_a_conversation_with_the_calculator():
    conversation = Conversation(QUESTION)
    replies = [conversation.reply(turn) for turn in ("17+a25=?", "42+b31=73", "Answer: 73")]
    assert [reply.feedback for reply in replies] == ["42\n", "\n", ""]
    assert [reply.right for reply in replies] == [True] * 3
    assert [reply.done for reply in replies] == [False, False, True] and replies[-1].solved


@pytest.mark.parametrize(
    ("turns", "right"),
    [
        # A turn is judged against the total that stands, so one can be right after a wrong one.
        (("17+a25=32", "32+b31=63", "Answer: 63"), [False, True, True]),
        (("17+a25=32", "42+b31=73", "Answer: 73"), [False, False, True]),  # what it repairs unasked is no next step
        (("17+a25=42", "Answer: 42"), [True, False]),  # too early
        (("17+a25=42", "42+b31=73", "Answer: 74"), [True, True, False]),
        (("17+b31=48",), [False]),  # not the next number
        (("17+25=42",), [False]),  # without its name
        (("18+a25=?",), [False]),  # asks for something else
        (("17+a25=42", "42+b31=73", "73+c10=83"), [True, True, False]),  # no number is left
        (("",), [False]),
        (("17+a25",), [False]),
        (("17+a25=42\n",), [True]),  # white space around a turn says nothing
    ],
)
def test_each_turn_is_judged(turns, right):
    assert verdicts(*turns) == right


def test_an_answer_is_solved_only_where_it_is_the_sum():
    assert not Conversation(QUESTION).reply("Answer: 17").solved
    lucky = Conversation(QUESTION).reply("Answer: 73")
    assert lucky.solved and not lucky.right, "the sum out of nothing solves the question, and is no right turn"


def test_conversations_end():
    for bad in ("", "hello", "17+a25=", "Answer: x"):
        reply = Conversation(QUESTION).reply(bad)
        assert reply.done and not reply.right and not reply.solved
    endless = Conversation(QUESTION)
    assert [endless.reply("1+a1=2").done for _ in range(MOST_TURNS)] == [False] * (MOST_TURNS - 1) + [True]


def test_demonstrations_err_by_their_habits_alone():
    rng, careful = random.Random(0), Habits(alone=0.0, early=0.0)
    for question, answer in questions("train", 50, 0, MIX):
        turns = demonstration(question, rng, careful)
        assert 3 <= len(turns) == len(operands_of(question)) <= 5
        conversation = Conversation(question)
        assert all(conversation.reply(turn).right for turn, _ in turns)
        assert turns[-1][0] == f"Answer: {answer}"
    alone = [demonstration(question, rng, Habits(1.0, 0.0)) for question, _ in questions("train", 200, 0, MIX)]
    assert not any("?" in turn for turns in alone for turn, _ in turns)
    early = [demonstration(question, rng, Habits(0.0, 1.0)) for question, _ in questions("train", 50, 0, MIX)]
    assert {len(turns) for turns in early} == {2}


def paid(agent, *turns: str) -> list[tuple[float, float, bool]]:
    async def talk():
        first = await agent.reset({"observation": QUESTION, "label": "73"})
        assert first["observation"] == QUESTION
        return [await agent.step({"action_text": turn}) for turn in turns]

    return [(float(r["rewards"]), float(r["scores"]), r["done"]) for r in asyncio.run(talk())]


def test_what_the_agents_pay():
    turns = ("17+a25=32", "32+b31=63", "Answer: 63")
    assert paid(CalculatorAgent(), *turns) == [(0.0, 0.0, False), (1.0, 0.0, False), (1.0, 0.0, True)]
    assert paid(OutcomeAgent(), *turns) == [(0.0, 0.0, False), (0.0, 0.0, False), (0.0, 0.0, True)]
    turns = ("17+a25=?", "42+b31=73", "Answer: 73")
    assert paid(CalculatorAgent(), *turns)[-1] == paid(OutcomeAgent(), *turns)[-1] == (1.0, 1.0, True)


def test_only_the_policys_own_tokens_carry_loss():
    tokenizer = build_tokenizer(named=True)
    ids, labels = tokens_of(tokenizer, QUESTION, random.Random(0), Habits(0.0, 0.0))
    own = [token for token in labels if token != -100]
    assert tokenizer.decode(own) == "17+a25=?<eos>42+b31=?<eos>Answer: 73<eos>"
    assert tokenizer.decode(ids) == f"{QUESTION}17+a25=?<eos>42\n42+b31=?<eos>73\nAnswer: 73<eos>"
    rows = batch(tokenizer, [(ids, labels), (ids[:3], labels[:3])])
    assert rows["input_ids"].shape == rows["labels"].shape and (rows["labels"][1] == -100).all()
