"""Small decision processes that can be enumerated: every response, its probability, what it is worth.

A response is a path through states. In each the policy makes one choice, which writes one step; the logits of the
choices are its parameters. Then the environment may write a word, and the next state follows, or the response ends and
is right with some chance.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Parameter = tuple[str, int]
"""A state's name and the number of a choice: whose logit."""


@dataclass(frozen=True)
class State:
    """choices: what may be written there. Names are unique within a process."""

    name: str
    choices: tuple["Choice", ...]

    def value(self) -> float:
        """Expected outcome."""
        return sum(choice.probability * choice.value() for choice in self.choices)


@dataclass(frozen=True)
class Choice:
    """probability: under the policy. reward: the process reward of the step. then: the chance that the response, which
    ends here, is right; or what follows, by probability, with the word that an environment writes before, None for
    nothing. tokens: length of the step, of which the first is the choice.
    """

    probability: float
    reward: float
    then: float | tuple[tuple[float, int | None, State], ...]
    tokens: int = 1

    def value(self) -> float:
        if isinstance(self.then, float):
            return self.then
        return sum(chance * state.value() for chance, _, state in self.then)


@dataclass(frozen=True)
class Response:
    """One path with its outcome. tokens: as `StepBatch.token_ids`. ends: token counts at which steps end. values: of
    the states before steps. probabilities: of tokens. choices: for each step its state, its choice, and the place of
    the token that makes it.
    """

    probability: float
    outcome: float
    tokens: list[int | tuple[int, ...]]
    ends: list[int]
    rewards: list[float]
    values: list[float]
    probabilities: list[float]
    choices: list[tuple[State, int, int]]

    def score(self) -> dict[Parameter, dict[int, float]]:
        """Parameter -> place of a token -> derivative of that token's log-probability."""
        derivatives: dict[Parameter, dict[int, float]] = {}
        for state, chosen, place in self.choices:
            for number, choice in enumerate(state.choices):
                derivatives.setdefault((state.name, number), {})[place] = float(number == chosen) - choice.probability
        return derivatives


def responses(start: State) -> list[Response]:
    """All responses from a state, of which the probabilities sum to 1."""
    return list(_onwards(start, None, Response(1.0, 0.0, [], [], [], [], [], [])))


def forked_groups(start: State, factors: Sequence[int]) -> list[tuple[float, tuple[Response, ...]]]:
    """All groups of responses that fork after each step, as `advantages.forked_tree`, with their probabilities: so many
    begin, and go on with so many after the first step, and so on. One that ends before stands for what would follow.
    """
    return _forked(_then(start), Response(1.0, 0.0, [], [], [], [], [], []), factors)


def _forked(draws, past: Response, factors: Sequence[int]) -> list[tuple[float, tuple[Response, ...]]]:
    """From what follows a step, as `Choice.then`."""
    factor, *rest = factors
    children: list[tuple[float, tuple[Response, ...]]] = []
    for chance, word, state in draws:
        begun = _ended(past, 0.0, chance)
        for ahead, choice in _steps(state, word, begun):
            if rest and not isinstance(choice.then, float):
                share = ahead.probability / past.probability
                children += [(share * weight, leaves) for weight, leaves in _forked(choice.then, ahead, rest)]
            else:
                whole = _after(ahead, choice)
                children += [(one.probability / past.probability, (one,) * math.prod(rest)) for one in whole]
    return [
        (math.prod(weight for weight, _ in chosen), tuple(leaf for _, leaves in chosen for leaf in leaves))
        for chosen in itertools.product(children, repeat=factor)
    ]


def _onwards(state: State, word: int | None, past: Response) -> Iterator[Response]:
    for ahead, choice in _steps(state, word, past):
        yield from _after(ahead, choice)


def _steps(state: State, word: int | None, past: Response) -> Iterator[tuple[Response, Choice]]:
    for number, choice in enumerate(state.choices):
        first = number + 1
        written = [first if word is None else (word, first), *[9] * (choice.tokens - 1)]
        ahead = Response(
            past.probability * choice.probability,
            0.0,
            past.tokens + written,
            [*past.ends, len(past.tokens) + choice.tokens],
            [*past.rewards, choice.reward],
            [*past.values, state.value()],
            [*past.probabilities, choice.probability, *[1.0] * (choice.tokens - 1)],
            [*past.choices, (state, number, len(past.tokens))],
        )
        yield ahead, choice


def _after(ahead: Response, choice: Choice) -> Iterator[Response]:
    """All responses that go on so."""
    if isinstance(choice.then, float):
        for outcome, chance in ((1.0, choice.then), (0.0, 1 - choice.then)):
            if chance:
                yield _ended(ahead, outcome, chance)
    else:
        for chance, next_word, following in choice.then:
            yield from _onwards(following, next_word, _ended(ahead, 0.0, chance))


def _ended(past: Response, outcome: float, chance: float) -> Response:
    return Response(past.probability * chance, outcome, *list(vars(past).values())[2:])


def _then(state: State) -> tuple[tuple[float, int | None, State], ...]:
    return ((1.0, None, state),)


def _processes() -> dict[str, State]:
    # However long it goes on, the sum of rewards and the chance are the same: nothing is to be learned.
    last = State("third", (Choice(0.4, 0.1, 0.5), Choice(0.6, 0.1, 0.5, tokens=3)))
    second = State("second", (Choice(0.5, 0.2, 0.5), Choice(0.5, 0.1, _then(last))))
    indifferent = State("first", (Choice(0.5, 0.5, 0.5), Choice(0.5, 0.3, _then(second), tokens=2)))
    # To stop is right less often, but the PRM likes steps.
    finish = State("finish", (Choice(0.7, 0.4, 0.9), Choice(0.3, -0.2, 0.2)))
    stop_or_go = State("stop or go", (Choice(0.6, 0.3, 0.25), Choice(0.4, 0.5, _then(finish))))
    # Two habits: a short one and a long one of which the first step decides nothing.
    long = State("long", (Choice(0.95, -0.1, 0.75), Choice(0.05, 0.2, 0.0)))
    habits = State("habit", (Choice(0.7, 0.2, 0.5), Choice(0.3, -0.3, _then(long), tokens=2)))
    # Every response shares a beginning with another.
    left = State("left", (Choice(0.5, 0.3, 1.0), Choice(0.5, -0.4, 0.0)))
    right = State("right", (Choice(0.8, 0.1, 0.0), Choice(0.2, 0.6, 1.0)))
    prefixes = State("root", (Choice(0.6, 0.2, _then(left)), Choice(0.4, -0.1, _then(right))))
    # The first step decides nearly everything, what follows nothing.
    good = State("on course", (Choice(0.9, 0.1, 0.9), Choice(0.1, -0.1, 0.9)))
    lost = State("off course", (Choice(0.9, 0.1, 0.1), Choice(0.1, -0.1, 0.1)))
    early = State("course", (Choice(0.8, 0.2, _then(good)), Choice(0.2, -0.2, _then(lost))))
    # Two turns; the environment answers the first one well or badly.
    well = State("answered well", (Choice(0.5, 0.2, 1.0), Choice(0.5, 0.1, 0.0)))
    badly = State("answered badly", (Choice(0.5, -0.2, 0.0), Choice(0.5, 0.3, 0.5)))
    asked = ((0.75, 7, well), (0.25, 8, badly))
    turns = State("ask", (Choice(0.5, 0.1, asked), Choice(0.5, 0.0, 0.25)))
    return {
        "indifferent": indifferent,
        "stop or go": stop_or_go,
        "two habits": habits,
        "shared prefixes": prefixes,
        "early decision": early,
        "two turns": turns,
    }


PROCESSES = _processes()
