"""Questions -> graded responses: one greedy and n sampled responses a question, split into steps, checked and scored.

Every response is a request of its own, so that it is split, checked and sent to the PRM the moment it ends, while the
policy's engines go on with the others. Tokens become steps by `data.steps`; what the PRM sees is the text of
the steps.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.answers.checkers import AnswerChecker, extract_answer
from openrlhf_prm.data.questions import Question
from openrlhf_prm.data.steps import split_steps, visible
from openrlhf_prm.evaluation.responses import GradedResponse
from openrlhf_prm.evaluation.step_checkers import StepChecker
from openrlhf_prm.options import Options, option


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
    checker.

    `prm` has `async score(question, steps) -> list[float]` (`openrlhf_prm.cluster.workers.ScoringPool`).
    """

    is_correct: AnswerChecker
    splitter: str
    prm: Any = None
    step_checker: StepChecker | None = None


async def collect(
    questions: Sequence[Question],
    policy: Any,
    tokenizer: Any,
    sampling: Sampling,
    judges: Judges,
    prompt_of: Callable[[str], str],
    on_response: Callable[[], None] = lambda: None,
) -> list[GradedResponse]:
    """The greedy and the sampled responses of each question, graded, in the order of the questions.

    `policy` has `async generate(prompt, **sampling) -> list[Completion]` (`cluster.workers.GenerationPool`);
    `prompt_of` turns a question into the text the policy reads; `on_response` is called after each response. The first
    error, of an engine or of a checker, ends everything and is raised.
    """
    places = asyncio.Semaphore(sampling.in_flight)

    async def respond(index: int, sample: int | None) -> GradedResponse:
        question = questions[index]
        async with places:
            request = request_of(sampling, index, sample)
            [completion] = await policy.generate(prompt_of(question.question), **request)
            graded = await grade(index, sample, question, completion, tokenizer, judges)
        on_response()
        return graded

    samples = [None, *range(sampling.n_samples_per_prompt)]
    tasks = [asyncio.create_task(respond(i, sample)) for i in range(len(questions)) for sample in samples]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def request_of(sampling: Sampling, index: int, sample: int | None) -> dict:
    """Sampling parameters of one response; sample None is the greedy one."""
    request = {"n": 1, "max_tokens": sampling.max_new_tokens}
    if sample is None:
        return {**request, "temperature": 0.0}
    digest = hashlib.sha256(f"{sampling.seed}-{index}-{sample}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    return {**request, "temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}


async def grade(
    index: int, sample: int | None, question: Question, completion: Any, tokenizer: Any, judges: Judges
) -> GradedResponse:
    """A completion with its steps, verdicts and step scores. One that shows nothing has no steps and is not scored."""
    steps: list[str] = []
    if visible(completion.text):
        steps = [step.text.rstrip() for step in split_steps(completion.token_ids, tokenizer, judges.splitter)]
    scores = checks = None
    if judges.prm is not None:
        scores = list(await judges.prm.score(question.question, steps)) if steps else []
    if judges.step_checker is not None:
        checks = judges.step_checker(question.question, steps)
    return GradedResponse(
        index=index,
        kind="greedy" if sample is None else "sample",
        sample=sample,
        question=question.question,
        label=question.label,
        response=completion.text,
        answer=extract_answer(completion.text),
        correct=bool(judges.is_correct(completion.text, question.label)),
        steps=steps,
        step_scores=scores,
        step_checks=checks,
        tokens=len(completion.token_ids),
        truncated=completion.truncated,
    )
