"""`tree_to_chain`: a search over steps whose tree is told as one chain, its wrong branches and the ways back included
(ASTRO, arXiv:2507.00417; O1 Journey, arXiv:2410.18982).

    states <- the question
    until an answer is right:
        from each state `width` next steps; the critic judges each; wrong ones end, stated answers are checked
        states <- the `beam` best of the others

The chain follows the way to the right answer of the best score. Before a step of it stand, up to `detours` in all, the
wrong branches that leave there: a step that the critic found wrong, or all steps to a wrong answer. Those are told that
looked best to the critic, the tempting mistakes.

A tree costs `width` times `beam` steps for each step of the chain, and rollouts besides: a row's `calls` and tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from openrlhf_prm.generation.chains.critics import Critic, judged
from openrlhf_prm.generation.chains.desk import Desk, together
from openrlhf_prm.generation.chains.draft import ROOT, Draft, Event, NoChain, Part
from openrlhf_prm.generation.chains.pieces import next_step, recheck, reflection, words
from openrlhf_prm.options import Options, option


@dataclass(frozen=True, kw_only=True)
class TreeToChainOptions(Options):
    """What the chains depend on."""

    width: int = option(4, "steps that are tried after each state", least=1)
    beam: int = option(2, "states that are kept at each depth", least=1)
    detours: int = option(3, "wrong branches that a chain tells of, at most", least=0)
    max_steps: int = option(40, "depth of the tree, at most", least=1)
    recheck: bool = option(True, "let the verifier look over the steps before the answer")


@dataclass
class State:
    """A step in the tree. `score`: the critic's; `wrong`: it ends here; `answered`: it states an answer."""

    node: int
    parent: "State | None"
    text: str = ""
    score: float = 1.0
    wrong: bool = False
    answered: bool = False
    reason: str = ""
    children: list["State"] = field(default_factory=list)

    def path(self) -> list["State"]:
        """The steps from the question's first to this one."""
        return [] if self.parent is None else [*self.parent.path(), self]

    def part(self, kind: str) -> Part:
        """As a part of a chain."""
        places = {"node": self.node, "parent": self.parent.node}
        return Part(kind=kind, text=self.text, score=self.score, wrong=self.wrong, **places)


class TreeToChain:
    """See the module."""

    Options = TreeToChainOptions
    critics = ("prm", "rollouts", "generated", "exact")

    def __init__(self, options: TreeToChainOptions, critic: Critic):
        self.options, self.critic = options, critic

    @staticmethod
    def roles(options: TreeToChainOptions) -> set[str]:
        """Who is asked, the critic apart."""
        return {"elaborator", *(["verifier"] if options.recheck else [])}

    async def write(self, desk: Desk) -> Draft:
        """The draft of a question; a `fault` where no chain came of it. Raises what ends the run."""
        draft = Draft(events=desk.events)
        try:
            answer = await self._search(desk)
            draft.parts = told(answer, self.options.detours, desk)
            if self.options.recheck:
                await recheck(desk, draft)
            draft.response = desk.cast.book.separator.join(part.text for part in draft.parts)
            draft.correct = await desk.is_right(draft.response)
        except NoChain as error:
            draft.fault = error.reason
        return draft

    async def _search(self, desk: Desk) -> State:
        """The state with the right answer. Raises NoChain where there is none."""
        root = State(ROOT, None)
        states, nodes = [root], 0
        for _ in range(self.options.max_steps):
            fresh = await self._expand(desk, states, nodes)
            nodes += len(fresh)
            for state in fresh:  # one after the other, so that events do not depend on who answers first
                await self._judge(desk, state)
            right = [state for state in fresh if state.answered and not state.wrong]
            if right:
                return max(right, key=lambda state: state.score)
            open_states = [state for state in fresh if not state.wrong]
            states = sorted(open_states, key=lambda state: -state.score)[: self.options.beam]
            if not states:
                raise NoChain("no_try_left")
        raise NoChain("no_answer")

    async def _expand(self, desk: Desk, states: Sequence[State], nodes: int) -> list[State]:
        calls = []
        for state in states:
            path = [one.part("step") for one in state.path()]
            calls += [next_step(desk, state.node, attempt, path) for attempt in range(self.options.width)]
        answers = iter(await together(calls))
        fresh: list[State] = []
        for state in states:
            before = {words(one.text) for one in state.path()}
            for _ in range(self.options.width):
                text, event = next(answers)
                if not event.verdict and words(text) in before:
                    event.verdict = "repeated"
                if event.verdict:
                    continue
                before.add(words(text))
                one = State(nodes + len(fresh) + 1, state, text, answered=desk.cast.states_answer(text))
                event.node, event.text = one.node, text
                state.children.append(one)
                fresh.append(one)
        return fresh

    async def _judge(self, desk: Desk, state: State) -> None:
        path = state.path()
        steps = [one.text for one in path]
        verdict = await judged(self.critic, desk, steps, [one.node for one in path])
        state.score = verdict.scores[-1] if verdict.scores else float(verdict.wrong is None)
        state.wrong, state.reason = verdict.wrong is not None, verdict.reason
        if state.answered and not state.wrong and not await desk.is_right(desk.cast.book.separator.join(steps)):
            state.wrong = True
            desk.events.append(Event(role="checker", node=state.node, verdict="wrong", target=state.parent.node))


def told(answer: State, detours: int, desk: Desk) -> list[Part]:
    """The chain to the state with the right answer, each wrong branch before the step at which it leaves the way."""
    way = answer.path()
    chosen = _branches(way, detours)
    parts: list[Part] = []
    before: Part | None = None
    for index, state in enumerate(way):
        for branch in chosen.get(index, ()):
            parts += [one.part("failed") for one in branch]
            why, end = "wrong_answer" if branch[-1].answered else "doubt", branch[-1]
            parts.append(reflection(desk, why, end.node, before, end.reason))
        before = state.part("answer" if state is answer else "step")
        parts.append(before)
    return parts


def _branches(way: Sequence[State], detours: int) -> dict[int, list[list[State]]]:
    """Index of a step of the way -> the wrong branches that are told before it. No step stands twice in a chain."""
    found: list[tuple[int, list[State]]] = []
    for index, state in enumerate(way):
        for sibling in state.parent.children:
            if sibling is not state:
                found += [(index, end.path()[index:]) for end in _wrong_ends(sibling)]
    best = sorted(found, key=lambda pair: (-pair[1][-1].score, pair[1][-1].node))
    said = {words(state.text) for state in way}
    chosen: dict[int, list[list[State]]] = {}
    for index, branch in best:
        texts = {words(state.text) for state in branch}
        if len(texts) == len(branch) and not texts & said and sum(map(len, chosen.values())) < detours:
            chosen.setdefault(index, []).append(branch)
            said |= texts
    return chosen


def _wrong_ends(state: State) -> list[State]:
    if state.wrong:
        return [state]
    return [end for child in state.children for end in _wrong_ends(child)]
