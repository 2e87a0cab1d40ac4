"""`plan_then_write` (AgentWrite, arXiv:2408.07055): an outline with word budgets, then its parts one after the other.

For long texts of any task. Each part is written with the question, the whole outline, all that is written so far and
its own line in view, and only that part is asked for.
"""

import re
from dataclasses import dataclass

from openrlhf_prm.generation.chains.critics import Critic
from openrlhf_prm.generation.chains.desk import Desk
from openrlhf_prm.generation.chains.draft import Draft, NoChain, Part
from openrlhf_prm.generation.chains.pieces import numbered, plan, read_plan, words
from openrlhf_prm.options import Options, option


@dataclass(frozen=True, kw_only=True)
class PlanThenWriteOptions(Options):
    """What the texts depend on."""

    tries: int = option(2, "other tries after a part or an outline that is empty, cut or a repetition", least=0)
    max_parts: int = option(50, "lines of an outline, at most", least=1)
    check_answer: bool = option(
        True, "leave out texts whose answer is wrong; off for tasks without an answer, whose questions need no label"
    )


class PlanThenWrite:
    """See the module. No critic."""

    Options = PlanThenWriteOptions
    critics = ("none",)

    def __init__(self, options: PlanThenWriteOptions, critic: Critic):
        self.options = options

    @staticmethod
    def roles(options: PlanThenWriteOptions) -> set[str]:
        """Who is asked."""
        return {"outliner", "writer"}

    async def write(self, desk: Desk) -> Draft:
        """The draft of a question; a `fault` where no text came of it. Raises what ends the run."""
        draft = Draft(events=desk.events)
        try:
            draft.plan = await plan(desk, "outliner", self.options.max_parts, self.options.tries, read_outline)
            for index in range(len(draft.plan)):
                draft.parts.append(await self._part(desk, draft, index))
            draft.parts[-1].kind = "answer"
            draft.response = desk.cast.book.separator.join(part.text for part in draft.parts)
            draft.correct = await desk.is_right(draft.response) if self.options.check_answer else None
        except NoChain as error:
            draft.fault = error.reason
        return draft

    async def _part(self, desk: Desk, draft: Draft, index: int) -> Part:
        line, budget = _budget(draft.plan[index])
        written = desk.cast.book.separator.join(part.text for part in draft.parts)
        for attempt in range(self.options.tries + 1):
            answer, event = await desk.ask(
                "writer",
                index + 1,
                attempt,
                plan=numbered(draft.plan),
                written=written,
                part=line,
                words=str(budget),
            )
            event.node = None
            if not answer.text:
                event.verdict = "empty"
            elif answer.truncated:
                event.verdict = "cut"
            elif any(words(part.text) == words(answer.text) for part in draft.parts):
                event.verdict = "repeated"
            else:
                event.node, event.parent = index + 1, index
                return Part(kind="step", text=answer.text, node=index + 1, parent=index)
        raise NoChain(f"{event.verdict}_part")


_BUDGET = re.compile(r"\s*[(\[]\D{0,20}(\d+)\s*words?\W*$", re.IGNORECASE)


def _budget(line: str) -> tuple[str, int]:
    found = _BUDGET.search(line)
    return line[: found.start()], int(found[1])


def read_outline(text: str) -> list[str]:
    """The lines of an outline, each with its words; [] where one has none, or a budget of 0."""
    lines = read_plan(text)
    budgets = [_BUDGET.search(line) for line in lines]
    return lines if all(found and int(found[1]) > 0 and found.start() for found in budgets) else []
