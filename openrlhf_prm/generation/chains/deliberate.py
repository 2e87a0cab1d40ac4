"""`deliberate`: planner -> elaborator, one step at a time -> critic -> verifier -> editor.

A step that the critic finds wrong is taken back in the text, in so many words, and another is tried after the last
right one, at most `tries` others; then one level up. A wrong answer at the end is a mistake that the critic missed: it
is looked for at the step with the lowest score where there are scores, else ever further up, `rounds` times.

    while the answer is not there:
        step    <- elaborator(question, plan, accepted steps, tries at this place that failed)
        wrong i <- critic(question, accepted steps + step)
        if there is one: all from i on failed; go on from i - 1, or from the deepest step above with a try left

What is written again word for word, cut at the token limit or empty counts as a try and is no part of the chain.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from openrlhf_prm.generation.chains.critics import Critic, Verdict, judged
from openrlhf_prm.generation.chains.desk import Desk
from openrlhf_prm.generation.chains.draft import ROOT, Draft, Event, NoChain, Part
from openrlhf_prm.generation.chains.pieces import next_step, numbered, plan, recheck, reflection, words
from openrlhf_prm.options import Options, option


@dataclass(frozen=True, kw_only=True)
class DeliberateOptions(Options):
    """What the chains depend on."""

    tries: int = option(2, "other tries after a wrong step, before it goes one level up", least=0)
    rounds: int = option(2, "how often a wrong answer sends a chain back", least=0)
    max_steps: int = option(40, "steps of the way to the answer, at most", least=1)
    plan: bool = option(True, "let the planner plan first")
    max_parts: int = option(12, "lines of a plan, at most", least=1, read_with="plan")
    recheck: bool = option(True, "let the verifier look over the steps before the answer")
    edit: bool = option(False, "let the editor smooth the text; a chain that loses a step thereby is rejected")


class Deliberate:
    """See the module."""

    Options = DeliberateOptions
    critics = ("generated", "prm", "rollouts", "exact", "none")

    def __init__(self, options: DeliberateOptions, critic: Critic):
        self.options, self.critic = options, critic

    @staticmethod
    def roles(options: DeliberateOptions) -> set[str]:
        """Who is asked, the critic apart."""
        asked = {"planner": options.plan, "verifier": options.recheck, "editor": options.edit}
        return {"elaborator", *(name for name, needed in asked.items() if needed)}

    async def write(self, desk: Desk) -> Draft:
        """The draft of a question; a `fault` where no chain came of it. Raises what ends the run."""
        draft = Draft(events=desk.events)
        try:
            if self.options.plan:
                draft.plan = await plan(desk, "planner", self.options.max_parts, self.options.tries)
                text = desk.phrase("plan", ROOT, numbered(draft.plan))
                draft.parts.append(Part(kind="plan", text=text))
            await _Walk(self.options, self.critic, desk, draft).to_the_answer()
            if self.options.recheck:
                await recheck(desk, draft)
            draft.response = desk.cast.book.separator.join(part.text for part in draft.parts)
            if self.options.edit:
                answer, _ = await desk.ask("editor", ROOT, 0, draft=draft.response)
                draft.response = answer.text
            draft.correct = await desk.is_right(draft.response)
        except NoChain as error:
            draft.fault = error.reason
        return draft


class _Walk:
    """From the question to the answer. `path`: the accepted steps as parts of the chain."""

    def __init__(self, options: DeliberateOptions, critic: Critic, desk: Desk, draft: Draft):
        self.options, self.critic, self.desk, self.draft = options, critic, desk, draft
        self.path: list[Part] = []
        self.tried: Counter[int] = Counter()
        self.nodes = 0
        self.rounds = 0

    async def to_the_answer(self) -> None:
        """Raises NoChain where it does not get there."""
        while True:
            if self._here() != ROOT and self._exhausted(self._here()):
                self._back(len(self.path) - 1, "dead_end")
            if self._exhausted(self._here()):
                raise NoChain("no_try_left")
            if len(self.path) >= self.options.max_steps:
                raise NoChain("no_answer")
            part = await self._next_step()
            if part is None:
                continue
            verdict = await self._judge(part)
            if verdict.wrong is not None:
                for one in self.path[verdict.wrong :]:
                    one.wrong = True
                self._back(verdict.wrong, "doubt", verdict.reason)
            elif self.desk.cast.states_answer(part.text):
                if await self.desk.is_right(self._text(self.path)):
                    part.kind = "answer"
                    return
                self._wrong_answer(part, verdict)

    def _here(self) -> int:
        return self.path[-1].node if self.path else ROOT

    def _exhausted(self, node: int) -> bool:
        return self.tried[node] > self.options.tries

    def _text(self, parts: Sequence[Part]) -> str:
        return self.desk.cast.book.separator.join(part.text for part in parts)

    async def _next_step(self) -> Part | None:
        parent, attempt = self._here(), self.tried[self._here()]
        self.tried[parent] += 1
        failed = [part.text for part in self.draft.parts if part.kind == "failed" and part.parent == parent]
        text, event = await next_step(self.desk, parent, attempt, self.path, self.draft.plan, failed)
        if not event.verdict and any(words(part.text) == words(text) for part in self.draft.parts):
            event.verdict = "repeated"
        if event.verdict:
            return None
        self.nodes += 1
        event.node, event.text = self.nodes, text
        part = Part(kind="step", text=text, node=self.nodes, parent=parent)
        self.path.append(part)
        self.draft.parts.append(part)
        return part

    async def _judge(self, part: Part) -> Verdict:
        texts, nodes = [one.text for one in self.path], [one.node for one in self.path]
        verdict = await judged(self.critic, self.desk, texts, nodes)
        part.score = verdict.scores[-1] if verdict.scores else None
        return verdict

    def _wrong_answer(self, part: Part, verdict: Verdict) -> None:
        self.rounds += 1
        part.wrong = True
        if self.rounds > self.options.rounds:
            raise NoChain("wrong_answer")
        if verdict.scores:
            keep = min(range(len(self.path)), key=verdict.scores.__getitem__)
        else:
            keep = max(0, len(self.path) - 1 - self.rounds)
        target = self.path[keep - 1].node if keep else ROOT
        self.desk.events.append(Event(role="checker", node=part.node, verdict="wrong", target=target))
        self._back(keep, "wrong_answer")

    def _back(self, keep: int, why: str, reason: str = "") -> None:
        """Takes back the path's steps from `keep` on, and more while no try is left there; says so in the chain."""
        while keep and self._exhausted(self.path[keep - 1].node):
            keep -= 1
        for part in self.path[keep:]:
            part.kind = "failed"
        self.path = self.path[:keep]
        back_to = self.path[-1] if self.path else None
        self.draft.parts.append(reflection(self.desk, why, (self.nodes, self._here()), back_to, reason))
