"""An agent executor around the host's own: it splits each response into steps, has them scored and branches from
them, the moment it ends.

All of this awaits inside the rollout actor's event loop, so the PRM works on one response while the policy still writes
others.
"""

import asyncio
import math
import re
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, pairwise

from openrlhf.utils.agent import AgentExecutorBase, SingleTurnAgentExecutor

from openrlhf_prm.advantages.branch_values import VineOptions
from openrlhf_prm.advantages.forked_tree import ForkedTree
from openrlhf_prm.answers.outcome_numbers import outcome_number
from openrlhf_prm.answers.own_response import WRITTEN
from openrlhf_prm.data.steps import Step, split_steps
from openrlhf_prm.data.turns import (
    Turn,
    joined_with_next,
    paid_turns,
    read_turns,
    steps_of_turns,
    steps_within,
    texts_for_prm,
)
from openrlhf_prm.ppo.rollout.branches import BranchSampler, Origin, QuestionOutcomes
from openrlhf_prm.ppo.rollout.forks import ForkingEngine, QuestionForks
from openrlhf_prm.ppo.rollout.judging import REWARD_FAULT, limit_waiting, no_reward, reward_flag, verdict
from openrlhf_prm.ppo.rollout.recording import recording_rewards
from openrlhf_prm.ppo.rollout.records import StepRecord
from openrlhf_prm.ppo.score_ranges import as_probabilities
from vllm_prm.splitters import visible

# Of the response being written: responses of one question run as tasks of one call.
QUESTION_OUTCOMES: ContextVar[QuestionOutcomes] = ContextVar("question_outcomes")
QUESTION_FORKS: ContextVar[QuestionForks] = ContextVar("question_forks")


@dataclass(frozen=True)
class StepScoring:
    """How responses become step records.

    scorer: a pool of PRM workers or an URL, or None; the question is cut out of the prompt for it. score_range: what
    its numbers mean, see `score_ranges`. splitter: where steps end in the text. segment_ends: token probabilities of a
    response -> where its segments end, instead of steps; then there is no splitter. vine: how states are sampled, None
    for not at all. observations: whether the PRM reads what an agent's environment wrote. turn_rewards: whether the
    agent must say what it pays for each turn. turns_apart: whether each turn answers the question anew, so that the PRM
    reads it as a solution of its own. forks: which responses go on from another of their group. Without a splitter and
    segments a turn is a step.
    """

    scorer: object | None
    splitter: str | None
    question_pattern: str | None = None
    score_range: str = "probability"
    segment_ends: Callable[[Sequence[float]], list[int]] | None = None
    vine: VineOptions | None = None
    observations: bool = True
    turn_rewards: bool = False
    turns_apart: bool = False
    forks: ForkedTree | None = None

    def question(self, prompt: str) -> str:
        """The question within a prompt: the last match of the pattern's first group, or the prompt itself.

        Raises ValueError where a pattern was given and does not occur.
        """
        if self.question_pattern is None:
            return prompt
        matches = list(re.finditer(self.question_pattern, prompt, re.DOTALL))
        if not matches:
            raise ValueError(
                f"--prm.question_pattern {self.question_pattern!r} does not occur in the prompt {prompt!r}"
            )
        return matches[-1].group(1)

    async def record(self, prompt: str, turns: Sequence[Turn], steps: Sequence[Step]) -> StepRecord:
        """The steps of one response, its turns, and the steps' scores."""
        started, ended = time.monotonic(), time.time()
        seen = [visible(step.text) for step in steps]
        texts = [step.text.rstrip() for step, shows in zip(steps, seen, strict=True) if shows]
        turn_ends, turn_rewards = paid_turns(turns)
        if self.turn_rewards and turn_ends and turn_rewards is None:
            raise ValueError(
                "--credit.turn_rewards: the executor of --train.agent_func_path says nothing of its turns; it must "
                'give "rewards", one number per turn, beside "reward"'
            )
        scores = None
        if self.scorer is not None:
            observations = self.observations and not self.turns_apart
            read = texts_for_prm(turns, steps, observations)
            solutions = [range(len(steps))] if not self.turns_apart else steps_of_turns(turn_ends, steps)
            scored = [
                self._scores([read[k] for k in places], [seen[k] for k in places], prompt) for places in solutions
            ]
            scores = tuple(chain.from_iterable(await asyncio.gather(*scored)))
        return StepRecord(
            ends=tuple(step.end for step in steps),
            scores=scores,
            repetition=1 - len(set(texts)) / len(texts) if texts else 0.0,
            scoring_s=time.monotonic() - started,
            ended_s=ended,
            turn_ends=turn_ends,
            turn_rewards=turn_rewards,
            text_ends=None if self.splitter is None else tuple(step.text_end for step in steps),
        )

    async def _scores(self, read: list[str], seen: list[bool], prompt: str) -> list[float]:
        """One score per step of a solution, NaN for those that show nothing."""
        texts = joined_with_next(read, seen)
        known = iter(await self.score(prompt, texts) if texts else [])
        return [next(known) if shows else math.nan for shows in seen]

    async def score(self, prompt: str, steps: list[str]) -> list[float]:
        return as_probabilities(await self.scorer.score(self.question(prompt), steps), self.score_range)

    async def score_last(self, prompt: str, steps: list[str]) -> float:
        return (await self.score(prompt, steps))[-1]


class StepScoringExecutor(AgentExecutorBase):
    """Runs the host's executor (single-turn or a user's agent), then looks at the steps of what it wrote, unless
    `looking` was switched off.
    """

    def __init__(self, inner: AgentExecutorBase, scoring: StepScoring | None, reward_timeout_s: float | None = None):
        self.inner = inner
        if reward_timeout_s is not None:
            limit_waiting(inner, reward_timeout_s)
        self.scoring = scoring
        self.looking = scoring is not None
        self.sampler = None
        if scoring is not None and scoring.vine is not None:
            score = scoring.score_last if scoring.vine.control_variate else None
            self.sampler = BranchSampler(scoring.vine, scoring.splitter, score)

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        in_segments = self.looking and self.scoring.segment_ends is not None
        forks = self.scoring.forks if self.looking else None
        params = sampling_params
        if (in_segments or (forks is not None and forks.reads_probabilities)) and params.logprobs is None:
            params = deepcopy(params)
            params.logprobs = 0
        inner, paid = recording_rewards(self.inner) if self.looking else (self.inner, None)
        engine = forked = llm_engine
        if forks is not None:
            engine = forked = ForkingEngine(llm_engine, QUESTION_FORKS.get(), partial(self._step_ends, hf_tokenizer))
        if isinstance(inner, SingleTurnAgentExecutor) and inner.reward_func:
            engine = ListeningEngine(engine)
            WRITTEN.set(lambda: hf_tokenizer.decode(engine.written, skip_special_tokens=False))
        output = await inner.execute(prompt, label, params, max_length, hf_tokenizer, engine, images=images)
        # The host logs a failed reward and trains on without one; a missing reward is an error here.
        if isinstance(self.inner, SingleTurnAgentExecutor) and self.inner.reward_endpoints and output["reward"] is None:
            raise no_reward(self.inner, prompt, REWARD_FAULT.get()) from REWARD_FAULT.get()
        for key in ("reward", "scores"):
            if output.get(key) is not None:
                output[key] = outcome_number(output[key], self._source(), prompt)
        if not self.looking:
            if self.scoring is not None and self.scoring.turn_rewards and output.get("scores") is not None:
                output["reward"] = output["scores"]  # an evaluation, which no sum over turns is
            return output
        turns = read_turns(output, hf_tokenizer, paid)
        if in_segments:
            steps, probabilities = self._segments(output, turns, hf_tokenizer)
        else:
            steps, probabilities = steps_within(turns, hf_tokenizer, self.scoring.splitter), None
        record, branches = await asyncio.gather(
            self.scoring.record(prompt, turns, steps),
            self._branches(prompt, label, sampling_params, max_length, output, steps, hf_tokenizer, llm_engine),
        )
        fork_ends = () if forked is llm_engine else forked.fork_ends
        output["steps"] = replace(record, branches=branches, probabilities=probabilities, fork_ends=fork_ends)
        if params is not sampling_params:
            output["rollout_log_probs"] = None
        return output

    def _step_ends(self, tokenizer, tokens: Sequence[int]) -> list[int]:
        return [step.end for step in split_steps(tokens, tokenizer, self.scoring.splitter)]

    def _segments(self, output, turns, tokenizer) -> tuple[list[Step], tuple[float, ...]]:
        log_probs = output["rollout_log_probs"]
        probabilities = tuple(
            math.exp(value) for start, end in output["action_ranges"] for value in log_probs[start:end]
        )
        response = [token for turn in turns for token in turn.tokens]
        bounds = sorted({0, *self.scoring.segment_ends(probabilities), *paid_turns(turns)[0]})
        return [Step(tokenizer.decode(response[a:b]), a, b) for a, b in pairwise(bounds)], probabilities

    async def _branches(self, prompt, label, sampling, max_length, output, steps, tokenizer, engine):
        if self.sampler is None:
            return None
        outcomes = QUESTION_OUTCOMES.get()
        outcomes.report(float(output["reward"]))
        if self.scoring.vine.skip_uniform and not await outcomes.have_variance():
            return None
        ((start, _),) = output["action_ranges"]
        limit = max_length if sampling.max_tokens is None else min(max_length, start + sampling.max_tokens)
        tokens = output["observation_tokens"]
        origin = Origin(prompt, label, tokens, start, sampling, limit, self._judge(prompt, label))
        texts = [step.text.rstrip() for step in steps]
        return await self.sampler.sample(origin, [start + step.end for step in steps], texts, engine, tokenizer)

    def _judge(self, prompt: str, label: str):
        """The reward that the host's single-turn executor would give a text, of which the second is the policy's."""

        async def judge(text: str, response: str) -> float:
            answer = await verdict(self.inner, text, response, prompt, label)
            return float(outcome_number(answer["rewards"], self._source(), prompt))

        return judge

    def _source(self) -> str:
        """Who gives outcome rewards."""
        if isinstance(self.inner, SingleTurnAgentExecutor):
            return reward_flag(self.inner)
        return "--train.agent_func_path"


class ListeningEngine:
    """The host's engine as its single-turn executor sees it, keeping the tokens of the response in `written`."""

    def __init__(self, engine):
        self._engine = engine
        self.written: Sequence[int] = ()

    async def generate(self, *args, **kwargs):
        output = await self._engine.generate(*args, **kwargs)
        self.written = output.outputs[0].token_ids
        return output

    def __getattr__(self, name):
        return getattr(self._engine, name)
