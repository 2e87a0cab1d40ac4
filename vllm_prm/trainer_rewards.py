"""Step scores as the one reward that other trainers take for a response: TRL's `reward_funcs`, verl's custom function.

    reward = prm_weight * aggregate(s_1, ..., s_S) + outcome_weight * outcome

s_k the step scores of the response as `splitter` cuts it, `aggregate` a rule of `SCORE_AGGREGATIONS`: `min` is the min
form (PURE, arXiv:2504.15275), a response is as good as its worst step. `outcome` is the caller's own function.

    GRPOTrainer(reward_funcs=PRMReward(StepScorer.from_url("http://prm:8000")), ...)

    custom_reward_function.path=pkg://vllm_prm.trainer_rewards custom_reward_function.name=verl_reward
    +custom_reward_function.reward_kwargs.url=http://prm:8000 +custom_reward_function.reward_kwargs.unscored=0.0

A trainer that takes rewards per token or step wants more than this one number: see `examples/other_trainers`.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any

from vllm_prm.aggregation import SCORE_AGGREGATIONS, require_aggregation
from vllm_prm.extension_files import resolve
from vllm_prm.families.prm_family import Question
from vllm_prm.protocol import aggregated, cut
from vllm_prm.scorer import StepScorer


@dataclass(frozen=True, kw_only=True)
class RewardRule:
    """How step scores and an outcome become one reward; see the module's formula.

    `unscored` is the reward's first part for a response whose scores could not be had: it shows no step, lies beyond
    the PRM's context, or a generative PRM gave no verdict. None leaves such a response without a reward. `ValueError`
    for an unknown rule, or a number that is not finite.
    """

    aggregate: str = "min"
    splitter: str = "auto"
    prm_weight: float = 1.0
    outcome_weight: float = 1.0
    unscored: float | None = None

    def __post_init__(self) -> None:
        resolve(SCORE_AGGREGATIONS, self.aggregate, "aggregate")
        if not self.splitter:
            raise ValueError("splitter must be a text to cut at, or the name of a rule, got ''")
        for name in ("prm_weight", "outcome_weight", "unscored"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
                raise ValueError(f"{name} must be a finite number, got {value!r}")

    def steps(self, response: str) -> list[str]:
        """The steps of a response."""
        return cut(response, self.splitter)

    def reward(self, step_scores: list[float | None], outcome: float | None) -> float | None:
        """The reward of one response; None where scores or outcome could not be had. `outcome` 0 is no outcome."""
        score = aggregated(step_scores, self.aggregate)
        score = self.unscored if score is None else score
        if score is None or outcome is None:
            return None
        return self.prm_weight * score + self.outcome_weight * outcome


class PRMReward:
    """A reward function for TRL's `GRPOTrainer` and `RLOOTrainer`: a batch of completions in, a reward each out.

    `scorer`: over a server, which every process of the training may share, or with an offline engine in this process.
    All completions are scored in one call, so the engine batches them. `outcome(response, row)` gives the outcome of a
    response, or None; `row` holds the dataset's columns of its prompt. `question_key`: the column with the question,
    where the prompt is more than that (a template as text, say). Other options are those of `RewardRule`.
    """

    __name__ = "prm_reward"  # TRL's name for it in its logs

    def __init__(
        self,
        scorer: StepScorer,
        *,
        outcome: Callable[[str, Mapping[str, Any]], float | None] | None = None,
        question_key: str | None = None,
        **rule: Any,
    ) -> None:
        self.scorer, self.outcome, self.question_key = scorer, outcome, question_key
        self.rule = RewardRule(**rule)
        if scorer.family is not None:
            require_aggregation(self.rule.aggregate, scorer.family.score_range)

    def __call__(self, prompts: Sequence[Question], completions: Sequence, **columns: Any) -> list[float | None]:
        """Rewards in the order of `completions`; None where there is none, which TRL leaves out of its sums."""
        rows = _rows(len(prompts), columns)
        if self.question_key is not None and self.question_key not in columns:
            raise ValueError(f"the dataset has no column {self.question_key!r}; it has {sorted(columns)}")
        questions = prompts if self.question_key is None else columns[self.question_key]
        responses = [text_of(completion) for completion in completions]
        items = [(question, self.rule.steps(response)) for question, response in zip(questions, responses, strict=True)]
        scores = self.scorer.score(items, truncate=True)
        outcomes = [0.0 if self.outcome is None else self.outcome(*pair) for pair in zip(responses, rows, strict=True)]
        if log := columns.get("log_metric"):
            self._log(log, scores)
        return [self.rule.reward(*pair) for pair in zip(scores, outcomes, strict=True)]

    def _log(self, log: Callable[[str, float], None], scores: Sequence[Sequence[float | None]]) -> None:
        if scores:
            log("prm/steps", sum(map(len, scores)) / len(scores))
            log("prm/unscored", sum(not steps or None in steps for steps in scores) / len(scores))


def text_of(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """What the policy wrote: a text, or the assistant's messages of a conversation, with blank lines between them."""
    if isinstance(completion, str):
        return completion
    return "\n\n".join(message["content"] or "" for message in completion if message["role"] == "assistant")


def _rows(count: int, columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The dataset's columns of each prompt; what TRL hands over beside them is the same for all, and left out."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == count}
    return [{name: values[index] for name, values in lists.items()} for index in range(count)]


async def verl_reward(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: str,
    unscored: float,
    api_key_env: str | None = None,
    question_key: str = "question",
    outcome: str | None = None,
    aggregate: str = "min",
    splitter: str = "auto",
    prm_weight: float = 1.0,
    outcome_weight: float = 1.0,
    **others: Any,
) -> dict[str, float]:
    """A custom reward function for verl: one response in, `score` and its parts out. verl awaits many at a time.

    The question is `extra_info[question_key]`. `outcome`: `module:function`, called with verl's own four arguments;
    `verl.utils.reward_score:default_compute_score` is verl's. `url`, `api_key_env`: of a server of step rewards.
    verl needs a number for every response, so `unscored` must be one. Raises `ValueError` where the question is not
    there, and whatever the scorer raises.
    """
    rule = RewardRule(
        aggregate=aggregate,
        splitter=splitter,
        prm_weight=prm_weight,
        outcome_weight=outcome_weight,
        unscored=float(unscored),
    )
    question = (extra_info or {}).get(question_key)
    if question is None:
        raise ValueError(f"extra_info has no {question_key!r}: name the question's field with question_key")
    scores = await _scorer(url, api_key_env).score_async(question, rule.steps(solution_str), truncate=True)
    value = 0.0
    if outcome is not None:
        value = resolve_name(outcome)(
            data_source=data_source, solution_str=solution_str, ground_truth=ground_truth, extra_info=extra_info
        )
        value = await value if inspect.isawaitable(value) else value
        value = float(value["score"] if isinstance(value, Mapping) else value)
    prm = aggregated(scores, aggregate)
    return {
        "score": rule.reward(scores, value),
        "prm": rule.unscored if prm is None else prm,
        "outcome": value,
        "steps": float(len(scores)),
        "unscored": float(prm is None),
    }


@cache
def _scorer(url: str, api_key_env: str | None) -> StepScorer:
    return StepScorer.from_url(url, api_key_env)
