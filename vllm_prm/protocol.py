"""Request and response of `POST /v1/step_rewards`. No torch, no vLLM: clients may import this alone."""

import time
import uuid
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.splitters import STEP_SPLITTERS, split_text, visible


class _Strict(BaseModel):
    # An unknown field is a mistake of the caller; ignoring "step" for "steps" would score nothing.
    model_config = ConfigDict(extra="forbid")


class Message(_Strict):
    """A chat message."""

    role: str
    content: str


def _given(name: str) -> dict:
    """In a schema: the field is there, and not null, which says as much as leaving it out."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def _exactly_one(*names: str) -> dict:
    return {"oneOf": [_given(name) for name in names]}


# What JSON schema cannot take from the types: the validators below say the same.
_ONE_SOLUTION = {"allOf": [_exactly_one("question", "messages"), _exactly_one("steps", "response")]}


class _Solution(_Strict):
    question: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    steps: list[str] | None = None
    response: str | None = None
    splitter: str | None = Field(default=None, min_length=1)


def cut(response: str, splitter: str) -> list[str]:
    """The steps of `response` without separators: cut by the rule of `STEP_SPLITTERS` that `splitter` names, else at
    every `splitter`. Never by a file of code: requests say what it is."""
    if splitter in STEP_SPLITTERS:
        return [piece.strip() for piece in split_text(response, splitter) if visible(piece)]
    return [piece for piece in response.split(splitter) if piece.strip()]


class StepRewardItem(_Solution):
    """One solution: a `question` or chat `messages`, and `steps`, or a `response` cut by `splitter`.

    Exactly one of each pair. `steps` carry no trailing separator. `splitter` is a text to cut at, or the name of a rule
    (`auto`, `blank_line`, `marker`, `newline`); unless given what the PRM's family cuts at, a newline or a blank line.
    Pieces of a `response` that are blank are dropped.
    """

    model_config = ConfigDict(json_schema_extra=_ONE_SOLUTION)

    @model_validator(mode="after")
    def _one_of_each(self) -> "StepRewardItem":
        if (self.question is None) == (self.messages is None):
            raise ValueError("give exactly one of question and messages")
        if (self.steps is None) == (self.response is None):
            raise ValueError("give exactly one of steps and response")
        if self.splitter is not None and self.response is None:
            raise ValueError("splitter cuts a response; with steps it has no meaning")
        return self

    def asked(self) -> str | list[dict[str, str]]:
        """The question's text, or the messages as plain dicts."""
        return self.question if self.messages is None else [message.model_dump() for message in self.messages]

    def solution_steps(self, splitter: str | None = None) -> list[str]:
        """The texts of the steps, without separators; `splitter` where the solution names none, see `cut`.

        Raises ValueError where neither says at what a response is split.
        """
        if self.steps is not None:
            return self.steps
        splitter = self.splitter or splitter
        if splitter is None:
            raise ValueError('a response needs its splitter ("\\n\\n", say): the family of the PRM is not known here')
        return cut(self.response, splitter)


class StepRewardRequest(_Solution):
    """Solutions to score: a list of them in `data`, or a single one, its fields at the top level instead of `data`.

    After validation `data` holds them either way. `aggregate`: also give one score per solution. `truncate`: null
    instead of an error for steps beyond the context. `return_usage`: false leaves the token counts out. How much one
    request may ask for is the server's matter, see `Limits`.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [_given("data"), _ONE_SOLUTION]})

    model: str | None = None
    data: list[StepRewardItem] | None = Field(default=None, min_length=1)
    aggregate: Literal["min", "prod", "last", "mean"] | None = None
    truncate: bool = False
    return_usage: bool = True

    @model_validator(mode="after")
    def _one_form(self) -> "StepRewardRequest":
        single = {name: getattr(self, name) for name in _Solution.model_fields if getattr(self, name) is not None}
        if single and self.data is not None:
            raise ValueError(f"give the solution's fields at the top level or in data, not both: {sorted(single)}")
        if self.data is None:
            if not single:
                raise ValueError("give data, or the fields of a single solution: question or messages and so on")
            self.data = [StepRewardItem(**single)]
        return self


class StepRewards(_Strict):
    """Scores of the solution at `index` of the request; null where the context ended before the step.

    `score` is the aggregate of the step rewards, null when none was asked for, or no step was scored.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    index: int
    object: Literal["step_rewards"] = "step_rewards"
    step_rewards: list[float | None]
    score: float | None = None


class CritiquedStepRewards(StepRewards):
    """Scores by a generative PRM; null also where no critique gave a verdict. `critiques`: how many were written;
    `malformed`: judgements in them that could not be read; `empty_critiques` have no word, `cut_off_critiques` ran into
    the limit of tokens."""

    critiques: int
    malformed: int
    empty_critiques: int = 0
    cut_off_critiques: int = 0


class StepRewardUsage(_Strict):
    """Tokens of this request: rendered, spared by a cache, forwarded."""

    prompt_tokens: int
    cached_tokens: int
    computed_tokens: int


class CritiqueUsage(StepRewardUsage):
    """With a generative PRM: tokens of its prompts and of its critiques, and the totals of these."""

    generated_tokens: int
    critiques: int
    malformed: int
    empty_critiques: int = 0
    cut_off_critiques: int = 0


class StepRewardResponse(_Strict):
    """Scores of all solutions, in the order of the request; `usage` is null when the request asked for none."""

    id: str = Field(default_factory=lambda: f"steprw-{uuid.uuid4().hex}")
    object: Literal["list"] = "list"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    data: list[StepRewards | CritiquedStepRewards]
    usage: StepRewardUsage | CritiqueUsage | None = None


def aggregated(step_rewards: list[float | None], aggregate: str | None) -> float | None:
    """The aggregate over the scored steps; None when not asked for or when a step is missing, or there is none.

    A score over part of a solution would look like a score of the whole, so a truncated solution has none.
    """
    if aggregate is None or not step_rewards or None in step_rewards:
        return None
    return SCORE_AGGREGATIONS[aggregate](step_rewards)
