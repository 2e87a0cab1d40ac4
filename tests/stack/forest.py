"""Random solutions that grow, branch, repeat or start anew from those before, as a search asks for their scores."""

import random

Chain = tuple[str, tuple[str, ...]]


class Forest:
    """Solutions that share prefixes, none longer than `context` tokens; `draw` gives the next one asked for."""

    def __init__(self, rng: random.Random, context: int) -> None:
        self.rng = rng
        self.context = context
        self.chains: list[Chain] = []

    def text(self, longest: int) -> str:
        return "".join(self.rng.choices("abcdefg +=", k=self.rng.randint(0, longest)))

    def draw(self) -> Chain:
        kind = self.rng.choices(["grow", "branch", "repeat", "new"], weights=[6, 3, 1, 1])[0]
        if not self.chains or kind == "new":
            chain = (self.text(30), (self.text(16),))
        else:
            # The latest are asked for again more often, as by a search that goes on from what it has.
            question, steps = self.chains[-1 - min(int(self.rng.expovariate(0.2)), len(self.chains) - 1)]
            if kind == "branch":
                steps = steps[: self.rng.randint(0, len(steps))]
            if kind != "repeat":
                steps = (*steps, *(self.text(16) for _ in range(self.rng.randint(1, 2))))
            chain = (question, steps)
        if len(chain[0]) + sum(len(step) + 2 for step in chain[1]) > self.context - 1:
            return self.draw()
        self.chains = [*self.chains[-40:], chain]
        return chain
