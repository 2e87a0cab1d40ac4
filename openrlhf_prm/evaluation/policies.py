"""Policies measured on questions with known answers, one after the other, on engines that Ray places.

All policies answer the same questions and share one start of Ray and of the PRM. The files of a policy are written as
soon as it is measured, so an interrupt loses the policy in hand alone.
"""

import asyncio
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from openrlhf_prm.answers.checkers import AnswerChecker
from openrlhf_prm.cluster.checks import prm_paths
from openrlhf_prm.cluster.context_length import model_context
from openrlhf_prm.cluster.engine_options import EngineOptions, ServerFlags
from openrlhf_prm.data.ledger import Ledger
from openrlhf_prm.data.prompts import PromptOptions, check_lengths, prompt_maker
from openrlhf_prm.data.questions import Question
from openrlhf_prm.evaluation.agents import FLAG, Agent
from openrlhf_prm.evaluation.budgets import BudgetOptions, Spent, summarize_budgets
from openrlhf_prm.evaluation.collecting import Judges, Sampling, collect, collect_budgets
from openrlhf_prm.evaluation.further_attempts import FurtherAttempts, summarize_attempts
from openrlhf_prm.evaluation.responses import GradedResponse, write_samples
from openrlhf_prm.evaluation.step_checkers import STEP_CHECKERS, STEP_KINDS
from openrlhf_prm.evaluation.summary import summarize
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.options import Options, option
from vllm_prm.aggregation import SCORE_AGGREGATIONS
from vllm_prm.durable_file import write_atomically


@dataclass(frozen=True, kw_only=True)
class MeasuredPolicy:
    """A checkpoint, and the files that its numbers (JSON) and its graded responses (JSONL) go to."""

    model: str
    output: Path | None = None
    samples: Path | None = None

    @property
    def name(self) -> str:
        """What the policy is called beside others: its file of numbers, else the checkpoint."""
        return str(self.output or self.model)


@dataclass(frozen=True, kw_only=True)
class SummaryOptions(Options):
    """How graded responses become numbers."""

    step_checker: str | None = option(
        None, "exact judge of steps, where the task has one", choices=STEP_CHECKERS, kind=str
    )
    vote_aggregation: str = option(
        "min", "how a weighted vote makes one weight of step scores", choices=SCORE_AGGREGATIONS
    )

    def check(self, questions: tuple[Question, ...]) -> None:
        """Raises ValueError for a question that the step checker cannot judge."""
        for question in questions if self.step_checker is not None else ():
            try:
                STEP_CHECKERS[self.step_checker](question.question, [])
            except ValueError as error:
                raise ValueError(f"--eval.step_checker {self.step_checker}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class PolicyEvaluation:
    """What is measured, and how. `data` names the questions' file in the results; `engines` are a policy's, whichever
    it is; `prm` are a PRM's, or `servers` has one, where steps are scored. `further`: attempts behind each
    response. `budgets`: of tokens, for chains of their own. `agent`: the executor that writes responses of several
    turns.
    """

    policies: tuple[MeasuredPolicy, ...]
    questions: tuple[Question, ...]
    data: str
    prompts: PromptOptions
    sampling: Sampling
    summary: SummaryOptions
    is_correct: AnswerChecker
    splitter: str
    engines: EngineOptions
    prm: EngineOptions | None = None
    prm_family: str | None = None
    servers: ServerFlags = ServerFlags()
    further: FurtherAttempts | None = None
    budgets: BudgetOptions = BudgetOptions()
    agent: Any = None

    @property
    def paths(self) -> list[tuple[str, str]]:
        """What the engines read, by flag."""
        paths = [("--actor.model_name_or_path", policy.model) for policy in self.policies]
        return paths + ([] if self.prm is None else prm_paths(self.prm.model, self.prm_family, self.prm.beside))

    @property
    def prm_name(self) -> str | None:
        """The PRM's checkpoint, or where it is served."""
        return (" ".join(self.servers.url) or None) if self.prm is None else self.prm.model

    @property
    def own_engines(self) -> dict[str, EngineOptions]:
        """Those that Ray places at a time, by the prefix of their flags, in the order in which they start."""
        return {"vllm": self.engines} if self.prm is None else {"prm": self.prm, "vllm": self.engines}

    @property
    def own_engines_by_policy(self) -> list[dict[str, EngineOptions]]:
        """`own_engines` while each of the policies is measured."""
        by_policy = (replace(self.engines, model=policy.model) for policy in self.policies)
        return [{**self.own_engines, "vllm": engines} for engines in by_policy]


def load_tokenizers(evaluation: PolicyEvaluation) -> list[Any]:
    """The policies' tokenizers. Raises ValueError where a checkpoint has none, or a question leaves no room for a
    response.
    """
    from transformers import AutoTokenizer

    tokenizers = []
    for policy in evaluation.policies:
        try:
            tokenizer = AutoTokenizer.from_pretrained(policy.model)
        except (OSError, ValueError) as error:
            fault = " ".join(str(error).split())
            raise ValueError(f"--actor.model_name_or_path: {policy.model} has no tokenizer ({fault})") from None
        context = model_context(policy.model, evaluation.engines.max_model_len)
        if evaluation.agent is not None and context is None:
            raise ValueError(f"{FLAG} needs --vllm.max_model_len: {policy.model} does not say how long its context is")
        prompt_of = prompt_maker(evaluation.prompts, tokenizer)
        check_lengths(evaluation.questions, prompt_of, tokenizer, context)
        evaluation.budgets.check_room([prompt_of(q.question) for q in evaluation.questions], tokenizer, context)
        if evaluation.further is not None:
            prompts = [prompt_of(question.question) for question in evaluation.questions]
            evaluation.further.check_room(prompts, tokenizer, evaluation.sampling.max_new_tokens, context)
        tokenizers.append(tokenizer)
    return tokenizers


def measure_policies(evaluation: PolicyEvaluation, tokenizers: list[Any]) -> dict[str, dict]:
    """Starts the engines in a Ray that is there and measures each policy; name -> numbers.

    Ray is shut down at the end. Errors of an engine are raised.
    """
    import ray

    from openrlhf_prm.cluster.session import generation_pool, silent_stderr

    started = time.perf_counter()
    results: dict[str, dict] = {}
    try:
        scorer = _scorer(evaluation)
        for policy, tokenizer in zip(evaluation.policies, tokenizers, strict=True):
            engines = replace(evaluation.engines, model=policy.model)
            with generation_pool(engines) as pool:
                ready = time.perf_counter()
                ledger = None if policy.output is None else Ledger(policy.output.parent, policy.output.name)
                if ledger is not None:
                    ledger.began()
                responses = _graded_responses(evaluation, engines, pool, scorer, tokenizer)
                spent = _spent(evaluation, pool, tokenizer) if evaluation.budgets.budgets else []
                done = time.perf_counter()
            seconds = {"seconds": round(done - ready, 2), "startup_seconds": round(ready - started, 2)}
            results[policy.name] = _written(evaluation, policy, responses, spent, seconds)
            if ledger is not None:
                _book(ledger, evaluation, responses)
            started = time.perf_counter()
    except KeyboardInterrupt:
        with silent_stderr():
            ray.shutdown()
        raise
    finally:
        ray.shutdown()
    return results


def _book(ledger: Ledger, evaluation: PolicyEvaluation, responses: list[GradedResponse]) -> None:
    asked = len(evaluation.questions) * (evaluation.sampling.n_samples_per_prompt + 1)
    ledger.part(1, "responses", asked, {"graded": len(responses)})
    if evaluation.prm_name is not None:
        steps = [step for response in responses for step in response.step_scores or []]
        expected = sum(len(response.steps) for response in responses)
        unscored = sum(score is None for score in steps)
        ledger.part(1, "steps", expected, {"scored": len(steps) - unscored}, {"the PRM gave no verdict": unscored})
    ledger.ended({"responses": asked})


def _scorer(evaluation: PolicyEvaluation) -> Any:
    """What scores steps, None without a PRM."""
    from openrlhf_prm.cluster.remote_scorer import RemoteScorer
    from openrlhf_prm.cluster.workers import ScoringPool

    if evaluation.prm is not None:
        return ScoringPool.start(evaluation.prm, evaluation.prm_family)
    servers = evaluation.servers
    return RemoteScorer(servers) if servers.url else None


def _graded_responses(
    evaluation: PolicyEvaluation, engines: EngineOptions, pool: Any, scorer: Any, tokenizer: Any
) -> list[GradedResponse]:
    from tqdm import tqdm

    judges = Judges(
        is_correct=evaluation.is_correct,
        splitter=evaluation.splitter,
        prm=scorer,
        step_checker=STEP_CHECKERS.get(evaluation.summary.step_checker),
        further=evaluation.further,
    )
    prompt_of = prompt_maker(evaluation.prompts, tokenizer)
    agent = None
    if evaluation.agent is not None:
        agent = Agent(evaluation.agent, tokenizer, model_context(engines.model, engines.max_model_len))
    total = len(evaluation.questions) * (evaluation.sampling.n_samples_per_prompt + 1)
    with tqdm(total=total, desc="evaluating", unit="response", mininterval=1) as progress:
        work = (evaluation.questions, pool, tokenizer, evaluation.sampling, judges, prompt_of, progress.update, agent)
        return asyncio.run(collect(*work))


def _spent(evaluation: PolicyEvaluation, pool: Any, tokenizer: Any) -> list[list[Spent]]:
    from tqdm import tqdm

    prompt_of = prompt_maker(evaluation.prompts, tokenizer)
    total = len(evaluation.questions) * evaluation.sampling.n_samples_per_prompt
    asked = (evaluation.questions, pool, tokenizer, evaluation.sampling, evaluation.is_correct, prompt_of)
    with tqdm(total=total, desc="budgets", unit="chain", mininterval=1) as progress:
        return asyncio.run(collect_budgets(*asked, evaluation.budgets, progress.update))


def _written(
    evaluation: PolicyEvaluation,
    policy: MeasuredPolicy,
    responses: list[GradedResponse],
    spent: list[list[Spent]],
    seconds: dict[str, float],
) -> dict:
    """The numbers of a policy, after its files are on disk."""
    numbers = summarize(
        responses,
        vote_aggregation=evaluation.summary.vote_aggregation,
        step_kind=STEP_KINDS.get(evaluation.summary.step_checker),
        seed=evaluation.sampling.seed,
    )
    result = {**numbers, **seconds, "seed": evaluation.sampling.seed, "versions": versions(), "policy": policy.model}
    result |= {"prm": evaluation.prm_name, "data": evaluation.data}
    if evaluation.further is not None:
        result["self_correction"] = summarize_attempts(responses, seed=evaluation.sampling.seed)
    if spent:
        result["budgets"] = summarize_budgets(spent, seed=evaluation.sampling.seed)
    if policy.samples is not None:
        write_samples(policy.samples, responses)
    if policy.output is not None:
        write_atomically(policy.output, json.dumps(result, indent=2) + "\n")
    return result
