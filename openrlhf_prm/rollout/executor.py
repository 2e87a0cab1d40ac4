"""An agent executor around the host's own: it splits each response into steps and has them scored the moment it ends.

Scoring awaits inside the rollout actor's event loop, so the PRM works on one response while the policy still writes
others.
"""

import re
import time
from dataclasses import dataclass

from openrlhf.utils.agent import AgentExecutorBase, SingleTurnAgentExecutor

from openrlhf_prm.rollout.records import StepRecord
from openrlhf_prm.steps import split_steps


@dataclass(frozen=True)
class StepScoring:
    """How responses are scored: by a pool of PRM workers or an URL, after splitting, with the question cut out of the
    prompt.
    """

    scorer: object
    splitter: str
    question_pattern: str | None = None

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

    async def record(self, prompt: str, token_ids: list[int], tokenizer) -> StepRecord:
        """The steps and scores of one response."""
        started = time.monotonic()
        steps = split_steps(token_ids, tokenizer, self.splitter)
        texts = [step.text.rstrip() for step in steps]
        scores = await self.scorer.score(self.question(prompt), texts)
        return StepRecord(
            ends=tuple(step.end for step in steps),
            scores=tuple(scores),
            repetition=1 - len(set(texts)) / len(texts) if texts else 0.0,
            scoring_s=time.monotonic() - started,
        )


class StepScoringExecutor(AgentExecutorBase):
    """Runs the host's executor (single-turn or a user's agent), then scores the steps of what it wrote."""

    def __init__(self, inner: AgentExecutorBase, scoring: StepScoring | None):
        self.inner = inner
        self.scoring = scoring

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        output = await self.inner.execute(
            prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=images
        )
        # The host logs a failed reward and trains on without one; a missing reward is an error here.
        if isinstance(self.inner, SingleTurnAgentExecutor) and self.inner.reward_endpoints and output["reward"] is None:
            raise RuntimeError(
                f"--reward.remote_url {self.inner.reward_endpoints} gave no reward for the prompt {prompt!r}; "
                "the rollout actor's log holds the error"
            )
        if self.scoring is not None:
            tokens = output["observation_tokens"]
            response = [token for start, end in output["action_ranges"] for token in tokens[start:end]]
            output["steps"] = await self.scoring.record(prompt, response, hf_tokenizer)
        return output
