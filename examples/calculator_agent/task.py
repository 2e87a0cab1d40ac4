"""The conversation of an agent that adds up a chain of numbers and has a calculator.

A question is one of `openrlhf_prm.tasks.arithmetic`, ``Q: 12+a35+b48=?``. Each turn of the agent is one line::

    12+a35=?      asks the calculator, which writes 47
    47+b48=85     adds by itself: quick, and wrong where there is a carry
    Answer: 85    ends the conversation

A turn is right when it adds the next number to the total that stands in the conversation, and gets it right, or when
it answers with that total after the last number. So a turn can be right after a wrong one; the answer is right when
all turns are.
"""

import random
import re
from dataclasses import dataclass

from openrlhf_prm.tasks.arithmetic import NAMES, HabitMix, operands_of, quick_step

MIX = HabitMix(carry=0.7, additions=(2, 3, 4), named=True)
"""3 to 5 turns: the additions and the answer. Most additions carry."""
MOST_TURNS = 8
"""A conversation that does not end by itself ends here."""

_SUM = re.compile(r"(\d+)\+([a-z]?)(\d+)=(\?|\d+)")
_ANSWER = re.compile(r"Answer: (\d+)")


@dataclass(frozen=True)
class Habits:
    """How demonstrations go wrong: the chance that an addition is done without the calculator, and the chance that the
    agent answers too early instead of an addition after the first.
    """

    alone: float = 0.75
    early: float = 0.1


@dataclass(frozen=True)
class Reply:
    """right: whether the turn was. feedback: what the environment writes, "" at the end. done: whether it is the end.
    solved: whether the answer to the question is right, which only an answer can be.
    """

    right: bool
    feedback: str
    done: bool
    solved: bool = False


class Conversation:
    """The environment's side of one question."""

    def __init__(self, question: str):
        self.operands = operands_of(question)
        self.total, *self.left = self.operands
        self.names = iter(NAMES)
        self.turns = 0

    def reply(self, turn: str) -> Reply:
        """What the environment says to a turn. One that is neither a sum nor an answer ends the conversation."""
        self.turns += 1
        turn = turn.strip()
        if match := _ANSWER.fullmatch(turn):
            given = int(match.group(1))
            return Reply(given == self.total and not self.left, "", True, given == sum(self.operands))
        match = _SUM.fullmatch(turn)
        if match is None:
            return Reply(False, "", True)
        a, name, b, result = match.groups()
        asked, true = result == "?", int(a) + int(b)
        named, operand = (next(self.names), self.left.pop(0)) if self.left else ("", None)
        right = (int(a), name, int(b)) == (self.total, named, operand) and (asked or int(result) == true)
        self.total = true if asked else int(result)
        return Reply(right, f"{true}\n" if asked else "\n", self.turns >= MOST_TURNS)


def demonstration(question: str, rng: random.Random, habits: Habits) -> list[tuple[str, str]]:
    """Turns as a policy with these habits writes them, errors included, each with what the environment replies."""
    conversation, turns = Conversation(question), []
    done = False
    while not done:
        early = conversation.turns > 0 and rng.random() < habits.early
        if conversation.left and not early:
            name, operand = NAMES[conversation.turns], conversation.left[0]
            own, _ = quick_step(conversation.total, operand, name)
            turn = own if rng.random() < habits.alone else f"{conversation.total}+{name}{operand}=?"
        else:
            turn = f"Answer: {conversation.total}"
        reply = conversation.reply(turn)
        turns.append((turn, reply.feedback))
        done = reply.done
    return turns
