"""The rollouts of one question: sampled by an engine, judged by the answer checker, kept by their prefix.

A *prefix* is a tuple of response token ids that ends where a step ends; () is the question itself. A rollout decoded
after prefix q is a fair sample of what the policy does after every longer prefix p that it happens to pass through, so
p may use it too: given that it passes through p, what follows is drawn from the policy as for a rollout decoded after
p. It says nothing fair about prefixes shorter than q, where it was not free to choose.

That holds as long as its outcome has no part in p being looked at. A solution of the policy that is labelled whatever
its outcome is one more rollout of each of its states, free of charge (`math_shepherd`). One that is searched because it
is wrong is none: with n fair rollouts of a state of value m and its own ending the estimate has the mean n m / (n + 1).
What every rollout proves, however it was chosen, is that its right ending can be reached from each state it passes
(`reached`).
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from openrlhf_prm.annotation.records import Tally
from openrlhf_prm.data.steps import split_steps
from openrlhf_prm.options import Options, option
from vllm_prm.splitters import STEP_SPLITTERS, visible

Prefix = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SamplingOptions(Options):
    """How solutions and rollouts are sampled. `max_new_tokens` limits a whole response, so a rollout may use what its
    prefix left of it; a response cut there is unfinished and counts as wrong, whatever it says so far. None: what the
    question leaves of the engine's context.
    """

    temperature: float = option(1.0, "how freely the policy samples; 0 is greedy", least=0)
    top_p: float = option(1.0, "share of the probability that tokens are sampled from", above=0, most=1)
    max_new_tokens: int | None = option(
        None,
        "token limit of a whole response, its prefix included; without it, the policy's context",
        least=1,
        kind=int,
    )
    splitter: str = option("auto", "where a reasoning step ends", registry=STEP_SPLITTERS)

    def require_random_samples(self, *counts: int) -> None:
        """Raises ValueError where several equal samples would be taken for several observations."""
        if self.temperature == 0 and max(counts) > 1:
            raise ValueError("temperature 0 makes all samples equal: set it above 0, or take 1 solution and 1 rollout")


@dataclass(frozen=True, kw_only=True)
class LabelOptions(SamplingOptions):
    """What all annotators' labels depend on besides."""

    count_endings: bool = option(
        True, "count responses that pass through a state as rollouts of it, where that is fair"
    )


class NoTokenLimit(ValueError):
    """Nothing says how long a response may be: no option, and no engine."""


@dataclass(frozen=True, eq=False)
class Rollout:
    """A whole response: a prefix and what was decoded after it. Compared by identity: equal texts are two samples.
    `start`: tokens of the prefix.
    """

    token_ids: Prefix
    correct: bool
    truncated: bool
    start: int = 0

    def passes(self, prefix: Prefix) -> bool:
        """Whether it begins with the tokens of a prefix and goes on."""
        return len(self.token_ids) > len(prefix) and self.token_ids[: len(prefix)] == prefix


@dataclass(frozen=True, eq=False)
class Solution:
    """A rollout split into S steps; `ends` are the S ends of its steps in tokens."""

    rollout: Rollout
    response: str
    steps: list[str]
    ends: list[int]

    def prefix(self, steps: int) -> Prefix:
        """The tokens of the first `steps` steps."""
        return self.rollout.token_ids[: self.ends[steps - 1]] if steps else ()


async def together(*coroutines: Awaitable) -> list:
    """The results of all. After an error the others are cancelled, being of no use, and it is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


class QuestionRollouts:
    """Samples, judges and keeps the rollouts of one question.

    `engine` has `async generate(prompt token ids, n, max_tokens, temperature, top_p)` and returns n completions with
    `token_ids` and `truncated`; its `context` is asked for where `max_new_tokens` is left open. Prefixes are passed as
    the sampled token ids, never tokenised again, so the engine finds them in its cache. `usage` counts what was
    decoded, and the rollouts that served a second time.
    """

    def __init__(self, engine, tokenizer, is_correct, options: SamplingOptions, prompt: str, label: str):
        self.engine = engine
        self.tokenizer = tokenizer
        self.is_correct = is_correct
        self.options = options
        self.prompt_ids = self.tokens(prompt)
        self.limit = options.max_new_tokens or engine.context - len(self.prompt_ids)
        self.label = label
        self.usage = Counter({"rollouts": 0, "rollout_tokens": 0, "reused_rollouts": 0, "solution_tokens": 0})
        self._decoded: dict[Prefix, list[Rollout]] = {}
        self._locks: dict[Prefix, asyncio.Lock] = {}

    async def solutions(self, n: int) -> list[Solution]:
        """n new solutions of the question; they are rollouts of () too."""
        rollouts = await self._sample((), n)
        self.usage["solution_tokens"] += sum(len(rollout.token_ids) for rollout in rollouts)
        return [self.split(rollout) for rollout in rollouts]

    async def decode(self, prefix: Prefix, n: int) -> list[Rollout]:
        """n new rollouts of a prefix."""
        rollouts = await self._sample(prefix, n)
        self.usage["rollouts"] += n
        self.usage["rollout_tokens"] += sum(len(rollout.token_ids) - len(prefix) for rollout in rollouts)
        return rollouts

    async def exactly(self, prefix: Prefix, n: int) -> list[Rollout]:
        """The first n rollouts decoded after a prefix; those that are missing are decoded now."""
        async with self.lock(prefix):
            there = len(self._decoded.get(prefix, ()))
            self.usage["reused_rollouts"] += min(there, n)
            if there < n:
                await self.decode(prefix, n - there)
            return self._decoded[prefix][:n]

    def lock(self, prefix: Prefix) -> asyncio.Lock:
        """Held by who samples a prefix, so that another who needs it waits and finds the rollouts there."""
        return self._locks.setdefault(prefix, asyncio.Lock())

    def decoded(self, prefix: Prefix) -> Tally:
        """The rollouts decoded after exactly this prefix."""
        return tally(self._decoded.get(prefix, ()), prefix)

    def passing(self, prefix: Prefix, without: Rollout | None = None, endings: bool = True) -> Tally:
        """All rollouts that are samples of what follows a prefix: decoded after it or, with `endings`, after a shorter
        one and passing through it.

        `without`: the solution that is searched. It was chosen for being wrong, so it is no fair sample.
        """
        length = len(prefix)
        return tally(
            (
                rollout
                for rollout in self._all()
                if rollout is not without
                and (rollout.start == length or (rollout.start < length and endings))
                and rollout.passes(prefix)
            ),
            prefix,
        )

    def reached(self, prefix: Prefix) -> bool:
        """Whether the right answer was reached from a prefix: by a rollout that passes through it, decoded after
        whichever prefix. Where the policy wrote all of it (no changed digits), its chance of a right answer from here
        is above 0, however that rollout came to be looked at.
        """
        return any(rollout.correct and rollout.passes(prefix) for rollout in self._all())

    def split(self, rollout: Rollout) -> Solution:
        """A rollout with its steps. One without text has none."""
        response = self.text(rollout.token_ids)
        steps = split_steps(rollout.token_ids, self.tokenizer, self.options.splitter) if visible(response) else []
        return Solution(rollout, response, [step.text.rstrip() for step in steps], [step.end for step in steps])

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text, without special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def text(self, token_ids: Prefix) -> str:
        """What the token ids say, without special tokens."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    async def _sample(self, prefix: Prefix, n: int) -> list[Rollout]:
        completions = await self.engine.generate(
            [*self.prompt_ids, *prefix],
            n=n,
            max_tokens=self.limit - len(prefix),
            temperature=self.options.temperature,
            top_p=self.options.top_p,
        )
        assert len(completions) == n, f"the engine returned {len(completions)} of {n} samples"
        rollouts = [self._judge((*prefix, *one.token_ids), one.truncated, len(prefix)) for one in completions]
        self._decoded.setdefault(prefix, []).extend(rollouts)
        return rollouts

    def _judge(self, token_ids: Prefix, truncated: bool, start: int) -> Rollout:
        correct = not truncated and bool(self.is_correct(self.text(token_ids), self.label))
        return Rollout(token_ids, correct, truncated, start)

    def _all(self) -> Iterator[Rollout]:
        return itertools.chain.from_iterable(self._decoded.values())


def tally(rollouts: Iterable[Rollout], prefix: Prefix = ()) -> Tally:
    """How many of the rollouts of a prefix are right."""
    counted = list(rollouts)
    endings = sum(rollout.start < len(prefix) for rollout in counted)
    return Tally(sum(rollout.correct for rollout in counted), len(counted), endings)


class Annotator:
    """What the annotators share: the engine, the tokenizer of the policy, the answer checker and the options."""

    def __init__(self, engine, tokenizer, is_correct: Callable[[str, str], bool], options: SamplingOptions):
        self.engine = engine
        self.tokenizer = tokenizer
        self.is_correct = is_correct
        self.options = options

    def rollouts_of(self, prompt: str, label: str) -> QuestionRollouts:
        """The question's rollouts, of which there are none yet."""
        return QuestionRollouts(self.engine, self.tokenizer, self.is_correct, self.options, prompt, label)
