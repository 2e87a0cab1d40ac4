"""Critics: is there a mistake in these steps, and where is the first?"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from openrlhf_prm.generation.chains.asking import Answer
from openrlhf_prm.generation.chains.desk import Desk, together
from openrlhf_prm.generation.chains.draft import ROOT, Event, NoChain
from openrlhf_prm.options import Options, option
from vllm_prm.errors import ContextLengthError


@dataclass(frozen=True)
class Verdict:
    """On the S steps of a path: which is the first wrong one (from 0), None for none; the score of each where there are
    any; and why, in the first person or "".
    """

    wrong: int | None
    scores: Sequence[float] | None = None
    reason: str = ""


class Critic(Protocol):
    """What a scheme asks after each step."""

    async def judge(self, desk: Desk, steps: Sequence[str], node: int) -> Verdict:
        """The verdict on the steps so far, of which the last is `node`. Raises NoChain where there is none to be had,
        and what a scorer raises.
        """


@dataclass(frozen=True, kw_only=True)
class CriticOptions(Options):
    """Who says that a step is wrong."""

    kind: str | None = option(
        None,
        "what makes a step wrong: generated: the critic role's verdict; prm: a score below tau; rollouts: none of them "
        "gets the answer right from there; exact: the checker of --critic.task; none: nothing, only a wrong answer "
        "sends a chain back; by default the first of them that the scheme takes",
        choices=("generated", "prm", "rollouts", "exact", "none"),
        kind=str,
    )
    tau: float = option(0.5, "score below which a step is wrong")
    retries: int = option(2, "how often a critic is asked again whose verdict cannot be read", least=0)
    rollouts: int = option(8, "how often the finisher goes on from each step", least=1)

    def unread(self, prefix: str) -> dict[str, str]:
        """Options of another kind."""
        readers = {"tau": "prm", "retries": "generated", "rollouts": "rollouts"}
        return {name: f"--{prefix}.kind {kind}" for name, kind in readers.items() if self.kind != kind}


class PRMCritic:
    """The first step that scores below tau. `prm` has `async score(question, steps)`."""

    def __init__(self, prm: Any, tau: float):
        self.prm, self.tau = prm, tau

    async def judge(self, desk: Desk, steps: Sequence[str], node: int) -> Verdict:
        """A chain that the PRM cannot read ends."""
        try:
            scores = await self.prm.score(desk.question, list(steps))
        except ContextLengthError as error:
            raise NoChain("too_long_for_prm") from error
        if any(score is None for score in scores):
            raise NoChain("unscored_step")
        wrong = next((index for index, score in enumerate(scores) if score < self.tau), None)
        return Verdict(wrong, scores)


class ExactCritic:
    """The task's own checker: `check(question, steps)` has a verdict for each step."""

    def __init__(self, check: Callable[[str, Sequence[str]], list[bool]]):
        self.check = check

    async def judge(self, desk: Desk, steps: Sequence[str], node: int) -> Verdict:
        """Raises ValueError where the question is none of the task."""
        verdicts = self.check(desk.question, steps)
        return Verdict(next((index for index, right in enumerate(verdicts) if not right), None))


class RolloutCritic:
    """Rollouts of the role `finisher`: a step's score is the share of them that get the answer right, and it is wrong
    where that is 0. A step that states the answer needs none.
    """

    def __init__(self, rollouts: int):
        self.rollouts = rollouts

    async def judge(self, desk: Desk, steps: Sequence[str], node: int) -> Verdict:
        """The earlier steps keep the scores that they got when they were judged."""
        texts = tuple(steps)
        separator = desk.cast.book.separator
        so_far = "".join(step + separator for step in texts)
        if desk.cast.states_answer(texts[-1]):
            value = float(await desk.is_right(so_far))
        else:
            calls = [desk.ask("finisher", node, attempt, steps=so_far) for attempt in range(self.rollouts)]
            right = [await self._right(desk, so_far, *said) for said in await together(calls)]
            value = sum(right) / self.rollouts
        desk.values[texts] = value
        scores = [desk.values.get(texts[: count + 1], 1.0) for count in range(len(texts))]
        return Verdict(None if value else len(texts) - 1, scores)

    async def _right(self, desk: Desk, so_far: str, answer: Answer, event: Event) -> bool:
        right = not answer.truncated and await desk.is_right(so_far + answer.text)
        event.verdict = "right" if right else "wrong"
        return right


class GeneratedCritic:
    """What the role `critic` says: text that ends in `VERDICT: right` or `VERDICT: wrong at step N`, N from 1."""

    def __init__(self, retries: int):
        self.retries = retries

    async def judge(self, desk: Desk, steps: Sequence[str], node: int) -> Verdict:
        """A verdict that cannot be read is asked for again; then the chain ends."""
        numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))
        for attempt in range(self.retries + 1):
            answer, event = await desk.ask("critic", node, attempt, numbered=numbered)
            verdict = None if answer.truncated else read_verdict(answer.text, len(steps))
            if verdict is not None:
                event.verdict = "right" if verdict.wrong is None else "wrong"
                return verdict
            event.verdict = "malformed"
        raise NoChain("malformed_verdict")


_VERDICT = re.compile(r"^\W*VERDICT\W+(?:(right)|wrong(?:\s+at)?\s+step\s+(\d+))\W*$", re.IGNORECASE | re.MULTILINE)


def read_verdict(text: str, count: int) -> Verdict | None:
    """The verdict on `count` steps that the text ends in, its last paragraph before that as the reason; None where
    there is none, or it names a step that is not there.
    """
    found = list(_VERDICT.finditer(text))
    if not found or text[found[-1].end() :].strip():
        return None
    if found[-1][1]:
        return Verdict(None)
    step = int(found[-1][2])
    reason = text[: found[-1].start()].strip().split("\n")[-1].strip()
    return Verdict(step - 1, reason=reason) if 1 <= step <= count else None


class NoCritic:
    """Finds nothing."""

    async def judge(self, desk: Desk, steps: Sequence[str], node: int) -> Verdict:
        """Never a wrong step."""
        return Verdict(None)


async def judged(critic: Critic, desk: Desk, steps: Sequence[str], nodes: Sequence[int]) -> Verdict:
    """The critic's verdict on the steps at these nodes, and its event, with the node before the first wrong step as the
    target: a role has its event already.
    """
    verdict = await critic.judge(desk, steps, nodes[-1])
    target = None if verdict.wrong is None else [ROOT, *nodes][verdict.wrong]
    if desk.events[-1].role == "critic" and desk.events[-1].node == nodes[-1]:
        desk.events[-1].target = target
        return verdict
    score = verdict.scores[-1] if verdict.scores else None
    said = "right" if verdict.wrong is None else "wrong"
    desk.events.append(Event(role="critic", node=nodes[-1], score=score, verdict=said, target=target))
    return verdict
