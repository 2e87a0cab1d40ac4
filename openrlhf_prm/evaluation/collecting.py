"""Questions -> graded responses: one greedy and n sampled responses a question, split into steps, checked and scored.

Every response is a request of its own, so that it is split, checked and sent to the PRM the moment it ends, while the
policy's engines go on with the others. Tokens become steps by `data.steps`; what the PRM sees is the text of
the steps.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from openrlhf_prm.answers.checkers import AnswerChecker, extract_answer
from openrlhf_prm.data.questions import Question
from openrlhf_prm.data.turns import Turn, joined_with_next, steps_within, texts_for_prm
from openrlhf_prm.evaluation.agents import Agent, Response, number_of
from openrlhf_prm.evaluation.budgets import BudgetOptions, Spent, Thinker
from openrlhf_prm.evaluation.further_attempts import FurtherAttempts
from openrlhf_prm.evaluation.responses import GradedResponse
from openrlhf_prm.evaluation.step_checkers import StepChecker
from openrlhf_prm.options import Options, option
from vllm_prm.splitters import visible


@dataclass(frozen=True, kw_only=True)
class Sampling(Options):
    """How responses are drawn, each of at most `max_new_tokens` tokens.

    `seed` and the question's position decide the seed of every request, so that a run can be repeated whatever the
    order in which requests are served. `in_flight` bounds the requests handed to the engines at one time.
    """

    n_samples_per_prompt: int = option(8, "sampled responses per question, beside the greedy one", least=1)
    temperature: float = option(1.0, "temperature of the sampled responses", least=0)
    top_p: float = option(1.0, "the sampled responses take the likeliest tokens of this probability", above=0, most=1)
    max_new_tokens: int = 1024
    seed: int = 0
    in_flight: int = 512


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What grades a response: the answer checker, the splitter of its steps, and where there are such, PRM and step
    checker. `further`: attempts that are asked for behind it.

    `prm` has `async score(question, steps) -> list[float]` (`openrlhf_prm.cluster.workers.ScoringPool`).
    """

    is_correct: AnswerChecker
    splitter: str
    prm: Any = None
    step_checker: StepChecker | None = None
    further: FurtherAttempts | None = None


async def collect(
    questions: Sequence[Question],
    policy: Any,
    tokenizer: Any,
    sampling: Sampling,
    judges: Judges,
    prompt_of: Callable[[str], str],
    on_response: Callable[[], None] = lambda: None,
    agent: Agent | None = None,
) -> list[GradedResponse]:
    """The greedy and the sampled responses of each question, graded, in the order of the questions.

    `policy` has `async generate(prompt, **sampling) -> list[Completion]` (`cluster.workers.GenerationPool`);
    `prompt_of` turns a question into the text the policy reads; `on_response` is called after each response; `agent`
    writes responses of several turns. The first error, of an engine, an agent or a checker, ends everything and is
    raised.
    """
    places = asyncio.Semaphore(sampling.in_flight)

    async def respond(index: int, sample: int | None) -> GradedResponse:
        question = questions[index]
        async with places:
            prompt, request = prompt_of(question.question), request_of(sampling, index, sample)
            if agent is not None:
                response = await agent.respond(policy, prompt, question.label, request)
                graded = await grade(index, sample, question, response, tokenizer, judges)
            else:
                [completion] = await policy.generate(prompt, **request)
                turns = [Turn(tuple(completion.token_ids), "", None)]
                response = Response(completion.text, turns, completion.truncated)
                graded = await grade(index, sample, question, response, tokenizer, judges)
                if judges.further is not None:
                    request = partial(request_of, sampling, index, sample)

                    def is_right(text: str) -> bool:
                        return judges.is_correct(text, question.label)

                    later = await judges.further.after(completion, prompt, request, policy, tokenizer, is_right)
                    graded = replace(graded, later=later)
        on_response()
        return graded

    samples = [None, *range(sampling.n_samples_per_prompt)]
    return await _all([respond(i, sample) for i in range(len(questions)) for sample in samples])


def request_of(sampling: Sampling, index: int, sample: int | None, part: int | str = 1) -> dict:
    """Sampling parameters of one response; sample None is the greedy one. part: what of several requests of one
    response."""
    request = {"n": 1, "max_tokens": sampling.max_new_tokens}
    if sample is None:
        return {**request, "temperature": 0.0}
    name = f"{sampling.seed}-{index}-{sample}" + (f"-{part}" if part != 1 else "")
    seed = number_of(name)
    return {**request, "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}


async def collect_budgets(
    questions: Sequence[Question],
    policy: Any,
    tokenizer: Any,
    sampling: Sampling,
    is_correct: AnswerChecker,
    prompt_of: Callable[[str], str],
    options: BudgetOptions,
    on_chain: Callable[[], None] = lambda: None,
) -> list[list[Spent]]:
    """For each question what its sampled chains spent, see `evaluation.budgets`."""
    places = asyncio.Semaphore(sampling.in_flight)

    async def think(index: int, sample: int) -> list[Spent]:
        question = questions[index]

        async def generate(tokens: list[int], name: str, limit: int) -> Any:
            request = request_of(sampling, index, sample, name) | {"max_tokens": limit}
            [completion] = await policy.generate(tokens, **request)
            return completion

        def is_right(text: str) -> bool:
            return is_correct(text, question.label)

        thinker = Thinker(options=options, generate=generate, tokenizer=tokenizer)
        async with places:
            spent = await thinker.spent(prompt_of(question.question), is_right)
        on_chain()
        return spent

    samples = range(sampling.n_samples_per_prompt)
    chains = await _all([think(i, sample) for i in range(len(questions)) for sample in samples])
    by_question = [chains[start : start + len(samples)] for start in range(0, len(chains), len(samples))]
    return [[one for chain in group for one in chain] for group in by_question]


async def _all(jobs: Sequence[Coroutine]) -> list:
    """Their results in order; the first error ends the others and is raised."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def grade(
    index: int, sample: int | None, question: Question, response: Response, tokenizer: Any, judges: Judges
) -> GradedResponse:
    """A response with its steps, verdicts and step scores. One that shows nothing has no steps and is not scored; the
    PRM reads what an environment wrote before a step.
    """
    found = steps_within(response.turns, tokenizer, judges.splitter)
    seen = [visible(step.text) for step in found]
    steps = [step.text.rstrip() for step, shows in zip(found, seen, strict=True) if shows]
    scores = checks = None
    if judges.prm is not None:
        read = joined_with_next(texts_for_prm(response.turns, found, observations=True), seen)
        scores = list(await judges.prm.score(question.question, read)) if read else []
    if judges.step_checker is not None:
        checks = judges.step_checker(question.question, steps)
    correct = response.correct
    if correct is None:
        correct = bool(judges.is_correct(response.text, question.label))
    return GradedResponse(
        index=index,
        kind="greedy" if sample is None else "sample",
        sample=sample,
        question=question.question,
        label=question.label,
        response=response.text,
        answer=extract_answer(response.text),
        correct=correct,
        steps=steps,
        step_scores=scores,
        step_checks=checks,
        tokens=response.tokens,
        truncated=response.truncated,
    )
