"""Models that answer from a script, and what schemes, critics and rows are tried with: chains without an engine."""

import asyncio
import random
from collections.abc import Callable

from openrlhf_prm.answers.final_answer import extract_answer
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.asking import Answer
from openrlhf_prm.generation.chains.desk import Cast, Desk
from openrlhf_prm.generation.chains.draft import Draft
from openrlhf_prm.generation.chains.roles import Role, RoleBook, read_roles
from openrlhf_prm.generation.chains.rows import chain_row
from openrlhf_prm.tasks.arithmetic import careful_step, check_steps, operands_of

Say = Callable[[Role, str, int], str]
"""(role, prompt, seed) -> what is said; it ends in "<cut>" where it was cut."""


class ScriptedModel:
    """Says what `say` says, and keeps what it was asked."""

    def __init__(self, say: Say):
        self.say = say
        self.prompts: list[str] = []
        self.seeds: list[int] = []

    async def ready(self) -> None:
        pass

    async def answer(self, role: Role, system: str, prompt: str, seed: int) -> Answer:
        await asyncio.sleep(0)
        self.prompts.append(system + prompt)
        self.seeds.append(seed)
        said = self.say(role, prompt, seed)
        text = said.removesuffix("<cut>")
        return Answer(text, len(text.split()), len(prompt.split()), said != text)


def book(separator: str = "\n", **prompts: str) -> RoleBook:
    """The default roles with short prompts, so that a script can tell them apart."""
    short = {
        "planner": "PLAN {question}",
        "elaborator": "STEP {question}|{plan}|{steps}|{tried}",
        "critic": "JUDGE {question}|{numbered}",
        "verifier": "CHECK {question}|{steps}",
        "editor": "EDIT {draft}",
        "finisher": "FINISH {question}|{steps}",
        "outliner": "OUTLINE {question}",
        "writer": "WRITE {question}|{plan}|{written}|{part}|{words}",
    }
    default = read_roles()
    roles = {
        name: Role(**{**vars(role), "prompt": {**short, **prompts}.get(name, role.prompt)})
        for name, role in default.roles.items()
    }
    return RoleBook(
        models={}, roles=roles, separator=separator, phrases=default.phrases, raw={**default.raw, "prompts": prompts}
    )


def cast(say: Say | ScriptedModel, seed: int = 0, max_calls: int = 200, separator: str = "\n") -> Cast:
    """Roles of one scripted model."""
    model = say if isinstance(say, ScriptedModel) else ScriptedModel(say)
    return Cast(
        book=book(separator),
        models={"policy": model},
        states_answer=lambda text: extract_answer(text) is not None,
        seed=seed,
        max_calls=max_calls,
    )


def written(scheme, question: Question, who: Cast, answer: str | None = None) -> tuple[Draft, dict]:
    """The draft of a question and its row. A response is right that ends in `Answer: ` and the answer, or the label."""
    right = f"Answer: {answer or question.label}"
    desk = Desk(who, question.id, question.question, lambda text: text.strip().endswith(right))
    draft = asyncio.run(scheme.write(desk))
    return draft, chain_row(question, "scheme", draft, who.book.separator, lambda text: len(text.split()), "hash")


def stumbling(mistakes: float) -> Say:
    """An elaborator of sums that makes a mistake with this chance, by the seed; the other roles say little."""

    def say(role: Role, prompt: str, seed: int) -> str:
        kind, _, rest = prompt.partition(" ")
        if kind not in ("STEP", "FINISH"):
            return {"PLAN": "1. Add them one by one", "CHECK": "Adding again gives the same."}[kind]
        question, *_, steps = rest.split("|")[: 3 if kind == "STEP" else 2]
        done = [line for line in steps.split("\n") if line]
        if kind == "FINISH":  # right where the steps are, and luck is with it
            right = all(check_steps(question, done)) and random.Random(seed).random() < 0.7
            return f"Answer: {sum(operands_of(question)) + (not right)}"
        operands, chance = operands_of(question), random.Random(seed)
        total = sum(operands[: len(done) + 1])
        off = chance.randint(1, 9) if chance.random() < mistakes else 0
        if len(done) == len(operands) - 1:
            return f"Answer: {total + off}"
        step = careful_step(total, operands[len(done) + 1])[0]
        return step if not off else f"{total}+{operands[len(done) + 1]}={total + operands[len(done) + 1] + off}"

    return say


def wrong_steps(question: str, steps: list[str]) -> list[int]:
    """The numbers of the wrong ones, by the task's own checker."""
    return [index for index, right in enumerate(check_steps(question, steps)) if not right]
