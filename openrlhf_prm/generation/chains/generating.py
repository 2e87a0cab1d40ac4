"""Long chains for questions, from a task to the counts of what was done."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from openrlhf_prm.annotation.scheduler import annotate_all
from openrlhf_prm.data.background_writer import BackgroundWriter
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains import SCHEMES
from openrlhf_prm.generation.chains.asking import Model
from openrlhf_prm.generation.chains.desk import Cast, Desk
from openrlhf_prm.generation.chains.progress import ChainProgress
from openrlhf_prm.generation.chains.rows import chain_row
from openrlhf_prm.generation.chains.starting import started_models
from openrlhf_prm.generation.chains.task import Generation
from openrlhf_prm.generation.chains.work_file import WorkFile, write_outputs
from openrlhf_prm.generation.rejection_sampling import sft_row


def generate(task: Generation, work: WorkFile) -> dict:
    """Writes the chains that `work` lacks, each on disk the moment it is finished, and then every output; returns the
    summary's counts. Starts nothing where none is left.

    Raises TooFewGPUs, NotSeen and Unreachable before a question is asked, and what an engine raises.
    """
    questions = task.run.unfinished(work.finished)
    began = time.perf_counter()
    if questions:
        with started_models(task) as (models, prm):
            asyncio.run(write_all(task, models, prm, questions, work))
    seconds = time.perf_counter() - began
    length, row = task.length, sft_row(task.run)
    counts = write_outputs(task.output, task.run.questions, work, length, row)
    resumed = len(task.run.questions) - len(questions)
    counts = {"questions": len(task.run.questions), "resumed_questions": resumed, **counts}
    cost = task.price.of(counts)
    counts |= {"cost": round(cost, 6), "cost_per_kept": round(cost / counts["kept"], 6) if counts["kept"] else None}
    rate = len(questions) / seconds * 3600 if questions else None
    return counts | {"seconds": round(seconds, 1), "chains_per_hour": rate and round(rate, 1)}


async def write_all(
    task: Generation, models: Mapping[str, Model], prm: Any, questions: list[Question], work: WorkFile
) -> None:
    """Writes the chains of the questions and puts each on disk as it is finished. The first error ends all."""
    from transformers import AutoTokenizer

    await asyncio.gather(*(model.ready() for model in models.values()))
    tokenizer = AutoTokenizer.from_pretrained(task.run.policy)
    writer = ChainWriter(task, models, prm, lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]))
    progress = ChainProgress(task, len(questions))
    try:
        async with BackgroundWriter(work, progress.add) as disk:
            await annotate_all(questions, [writer], task.run.in_flight, disk.add)
    finally:
        progress.bar.close()


class ChainWriter:
    """Writes the chain of one question after the other, any number at a time (`scheduler.AnnotationEngine`): the models
    behind it look after their engines themselves.
    """

    def __init__(self, task: Generation, models: Mapping[str, Model], prm: Any, count: Callable[[str], int]):
        self.task, self.count = task, count
        self.scheme = SCHEMES[task.scheme](task.options, task.critic_of(prm))
        final_answer = task.judges.final_answer
        self.cast = Cast(
            book=task.book,
            models=models,
            states_answer=lambda text: final_answer(text) is not None,
            seed=task.run.engines.seed,
            max_calls=task.max_calls,
        )
        text = json.dumps(task.settings(), sort_keys=True)
        self.settings = hashlib.sha256(text.encode()).hexdigest()[:16]

    async def annotate(self, question: Question) -> dict:
        """The row of a question."""
        is_correct = self.task.judges.is_correct
        desk = Desk(self.cast, question.id, question.question, lambda text: is_correct(text, question.label))
        draft = await self.scheme.write(desk)
        separator, critic = self.task.book.separator, self.task.critic
        rollouts = critic.rollouts if critic.kind == "rollouts" else 0
        return chain_row(question, self.task.scheme, draft, separator, self.count, self.settings, rollouts)

    async def recover(self) -> None:
        """Nothing is ever lost here."""
