"""Request and response of `POST /v1/step_rewards`. No torch, no vLLM: clients may import this alone."""

import time
import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_prm.aggregation import SCORE_AGGREGATIONS

MAX_ITEMS = 1024
"""Solutions per request."""
MAX_STEPS = 4096
"""Steps per solution."""
MAX_CHARACTERS = 4_000_000
"""Characters per text."""

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]


class _Strict(BaseModel):
    # An unknown field is a mistake of the caller; ignoring "step" for "steps" would score nothing.
    model_config = ConfigDict(extra="forbid")


class Message(_Strict):
    """A chat message."""

    role: str
    content: Text


class StepRewardItem(_Strict):
    """One solution: a `question` or chat `messages`, and `steps`, or a `response` cut at every `splitter`.

    Exactly one of each pair. `steps` carry no trailing separator. Pieces of a `response` that are blank are dropped.
    """

    question: Text | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    steps: list[Text] | None = Field(default=None, max_length=MAX_STEPS)
    response: Text | None = None
    splitter: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> "StepRewardItem":
        if (self.question is None) == (self.messages is None):
            raise ValueError("give exactly one of question and messages")
        if (self.steps is None) == (self.response is None):
            raise ValueError("give exactly one of steps and response")
        if self.splitter is not None and self.response is None:
            raise ValueError("splitter cuts a response; with steps it has no meaning")
        if self.response is not None and self.response.count(self.splitter or "\n") >= MAX_STEPS:
            raise ValueError(f"response has more than {MAX_STEPS} steps")
        return self

    def asked(self) -> str | list[dict[str, str]]:
        """The question's text, or the messages as plain dicts."""
        return self.question if self.messages is None else [message.model_dump() for message in self.messages]

    def solution_steps(self) -> list[str]:
        """The texts of the steps, without separators."""
        if self.steps is not None:
            return self.steps
        return [piece for piece in self.response.split(self.splitter or "\n") if piece.strip()]


class StepRewardRequest(_Strict):
    """Solutions to score. A single solution may be written without `data`: its fields at the top level.

    `aggregate`: also give one score per solution. `truncate`: null instead of an error for steps beyond the context.
    """

    model: str | None = None
    data: list[StepRewardItem] = Field(min_length=1, max_length=MAX_ITEMS)
    aggregate: Literal["min", "prod", "last", "mean"] | None = None
    truncate: bool = False

    @model_validator(mode="before")
    @classmethod
    def _single_solution(cls, value):
        if not isinstance(value, dict) or "data" in value:
            return value
        item = {name: value[name] for name in StepRewardItem.model_fields if name in value}
        rest = {name: field for name, field in value.items() if name not in item}
        return {**rest, "data": [item]} if item else value


class StepRewards(_Strict):
    """Scores of the solution at `index` of the request; null where the context ended before the step.

    `score` is the aggregate of the step rewards, null when none was asked for, or no step was scored.
    """

    index: int
    object: Literal["step_rewards"] = "step_rewards"
    step_rewards: list[float | None]
    score: float | None = None


class StepRewardUsage(_Strict):
    """Tokens of this request: rendered, spared by a cache, forwarded."""

    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int


class StepRewardResponse(_Strict):
    """Scores of all solutions, in the order of the request."""

    id: str = Field(default_factory=lambda: f"steprw-{uuid.uuid4().hex}")
    object: Literal["list"] = "list"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    data: list[StepRewards]
    usage: StepRewardUsage


def aggregated(step_rewards: list[float | None], aggregate: str | None) -> float | None:
    """The aggregate over the scored steps; None when not asked for or when a step is missing, or there is none.

    A score over part of a solution would look like a score of the whole, so a truncated solution has none.
    """
    if aggregate is None or not step_rewards or None in step_rewards:
        return None
    return SCORE_AGGREGATIONS[aggregate](step_rewards)
