"""Accuracy against the tokens that a chain may have: does longer thinking pay? Budget forcing (s1, arXiv:2501.19393).

    cut    a chain that is longer than the budget ends there
    wait   one that ends earlier loses its ending and goes on behind a line such as "Wait", until the budget is used up

One chain per sample serves all budgets: what it holds of each is its beginning. With `budget_answer` an unfinished
chain is then asked for its answer; without it, the answer that stands in what there is counts.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.data.attempts import IN_A_CHAIN
from openrlhf_prm.evaluation.plots import Plot, PlotCurve
from openrlhf_prm.measures.intervals import mean, paired_gain, share_interval
from openrlhf_prm.options import Options, option

MODES = ("cut", "wait")


@dataclass(frozen=True, kw_only=True)
class BudgetOptions(Options):
    """`--eval.<field>`."""

    budgets: tuple[str, ...] = option((), "token budgets of one chain, rising: accuracy at each, by budget forcing")
    budget_wait: str = option(
        IN_A_CHAIN, "line behind which a chain goes on that ended before its budget", read_with="budgets"
    )
    budget_answer: str | None = option(
        None, "what asks an unfinished chain for its answer, such as 'Answer: '", kind=str, read_with="budgets"
    )
    budget_answer_tokens: int = option(32, "tokens of that answer", least=1, read_with="budget_answer")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(budget.isdecimal() and int(budget) for budget in self.budgets):
            raise ValueError(f"budgets must be whole numbers above 0, got {' '.join(self.budgets)}")
        if list(self.tokens) != sorted(set(self.tokens)):
            raise ValueError(f"budgets must rise, got {' '.join(self.budgets)}")
        if not self.budget_wait.strip():
            raise ValueError("budget_wait is empty: a chain needs something to go on behind")

    @property
    def tokens(self) -> tuple[int, ...]:
        """The budgets as numbers."""
        return tuple(map(int, self.budgets))

    def check_room(self, prompts: Sequence[str], tokenizer: Any, context: int | None) -> None:
        """Raises ValueError where a prompt, the largest budget and an answer do not fit into `context` tokens; None is
        no limit.
        """
        if not self.budgets or context is None:
            return
        texts = (max(prompts, key=len), self.budget_answer or "")
        longest, asked = (len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        answer = asked + self.budget_answer_tokens if self.budget_answer is not None else 0
        if longest + self.tokens[-1] + answer > context:
            raise ValueError(
                f"--eval.budgets {self.tokens[-1]}: with a question of {longest} tokens and {answer} for the answer "
                f"that is more than the policy's context of {context}"
            )

    @property
    def wait(self) -> str:
        return f"\n{self.budget_wait.strip()}\n"


@dataclass(frozen=True)
class Spent:
    """A chain within its budget: whether its answer is right, and its tokens, a forced answer's included."""

    mode: str
    budget: int
    correct: bool
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Thinker:
    """Writes a question's chains. generate: (tokens, seed's name, limit) -> one `Completion`."""

    options: BudgetOptions
    generate: Callable[[list[int], str, int], Any]
    tokenizer: Any

    async def spent(self, prompt: str, is_correct: Callable[[str], bool]) -> list[Spent]:
        """One chain under every budget, in both modes."""
        start = self._encode(prompt)
        whole = self.options.tokens[-1]
        first = await self.generate(start, "chain", whole)
        chain, ended = list(first.token_ids), not first.truncated
        cut = chain[:-1] if ended else chain  # the ending is no thought
        waiting, done = list(cut), not ended
        while not done and len(waiting) < whole:
            waiting += self._encode(self.options.wait)
            if len(waiting) < whole:
                more = await self.generate([*start, *waiting], f"wait {len(waiting)}", whole - len(waiting))
                waiting += more.token_ids if more.truncated else more.token_ids[:-1]
                done = more.truncated
        jobs = []
        for budget in self.options.tokens:
            finished = ended and len(chain) <= budget
            jobs.append(self._judged("cut", budget, start, cut[:budget], finished, is_correct))
            jobs.append(self._judged("wait", budget, start, waiting[:budget], False, is_correct))
        return list(await asyncio.gather(*jobs))

    async def _judged(self, mode, budget, start, tokens, finished, is_correct) -> Spent:
        count, answer = len(tokens) + finished, ""
        if not finished and self.options.budget_answer is not None:
            asked = self._encode(self.options.budget_answer)
            name, limit = f"answer {mode} {budget}", self.options.budget_answer_tokens
            given = await self.generate([*start, *tokens, *asked], name, limit)
            answer = self.options.budget_answer + given.text
            count += len(asked) + len(given.token_ids)
        text = self.tokenizer.decode(tokens, skip_special_tokens=True) + answer
        return Spent(mode, budget, bool(is_correct(text)), count)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def summarize_budgets(spent: Sequence[Sequence[Spent]], seed: int = 0) -> dict:
    """What each question's chains spent -> per mode a curve of accuracy with its 95% interval over questions and mean
    tokens, and what the largest budget gains over the smallest, paired by question.
    """
    curves: dict = {}
    for mode in MODES:
        rows, shares = [], []
        for budget in sorted({one.budget for question in spent for one in question}):
            chosen = [[one for one in question if (one.mode, one.budget) == (mode, budget)] for question in spent]
            shares.append([mean([float(one.correct) for one in question]) for question in chosen])
            tokens = mean([float(one.tokens) for question in chosen for one in question])
            interval = share_interval(shares[-1], seed=seed)
            rows.append({"budget": budget, "accuracy": mean(shares[-1]), "interval": interval, "tokens": tokens})
        curves[mode] = {"curve": rows, "gain": paired_gain(shares[0], shares[-1], seed=seed)}
    return curves


def budget_plot(results: dict[str, dict]) -> Plot:
    """The curves of one or several policies, by name."""
    curves = [
        PlotCurve(
            f"{name}, {mode}" if len(results) > 1 else mode,
            [(row["budget"], row["accuracy"]) for row in result[mode]["curve"]],
            [row["interval"] for row in result[mode]["curve"]],
        )
        for name, result in results.items()
        for mode in MODES
    ]
    return Plot(
        title="Accuracy against tokens",
        caption="Chains cut at their budget, and chains that go on behind a line such as Wait until it is used up.",
        x_name="tokens that a chain may have",
        y_name="accuracy",
        curves=curves,
        powers=True,
    )
