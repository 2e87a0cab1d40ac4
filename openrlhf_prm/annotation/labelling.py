"""Labels for a policy's questions, from what is asked for to the summary of what was done."""

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path

from openrlhf_prm.annotation import ANNOTATORS
from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.annotation.progress import LabellingProgress
from openrlhf_prm.annotation.rollouts import SamplingOptions
from openrlhf_prm.annotation.scheduler import AnnotationEngine, annotate_all
from openrlhf_prm.data.background_writer import BackgroundWriter
from openrlhf_prm.data.ledger import Ledger
from openrlhf_prm.data.questions import Question


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """What is to be labelled, how and where to. `annotator`: a key of `ANNOTATORS`; `options` are of its class."""

    run: PolicyRun
    annotator: str
    options: SamplingOptions
    output: Path

    def open_labels(self) -> LabelFile:
        """The file of labels. Raises ValueError where it cannot be continued."""
        settings = {"--annotator": self.annotator, **self.run.settings(), **asdict(self.options)}
        if self.options.max_new_tokens is None:
            settings["--vllm.max_model_len"] = self.run.engines.max_model_len
        return LabelFile(self.output, settings)


def label_questions(labelling: Labelling, labels: LabelFile) -> dict:
    """Labels the questions that `labels` lacks, each on disk the moment it is finished; returns the summary's counts.
    Starts nothing where none is left.

    Raises QuestionTooLong, TooFewGPUs, NotSeen and NoTokenLimit before a question is asked, and what an engine raises.
    """
    run = labelling.run
    questions = run.unfinished(labels.finished)
    counts = {"questions": len(questions), "resumed_questions": len(run.questions) - len(questions)}
    ledger = Ledger(labelling.output.parent, labelling.output.name)
    ledger.began()
    if questions:
        counts |= _label_missing(labelling, questions, labels)
    else:
        counts |= LabellingProgress(0).summary()
    labelled, dropped = labels.counts({question.id for question in run.questions})
    ledger.part(1, "questions", len(run.questions), {"labelled": labelled}, dropped)
    ledger.ended({"questions": len(run.questions)})
    return counts


def _label_missing(labelling: Labelling, questions: list[Question], labels: LabelFile) -> dict:
    from openrlhf_prm.cluster.session import ray_session

    run = labelling.run
    prompt_of = run.prompt_maker(questions)
    with ray_session(run.own_engines, run.paths):
        annotator = ANNOTATORS[labelling.annotator]
        with run.started_engines(annotator, labelling.options, prompt_of) as engines:
            return asyncio.run(label_all(questions, engines, run.in_flight, labels))


async def label_all(
    questions: list[Question], engines: list[AnnotationEngine], in_flight: int, labels: LabelFile
) -> dict:
    """Labels the questions and writes each as it finishes; returns the counts. The first error ends all."""
    progress = LabellingProgress(len(questions))

    async def ask_caches() -> None:
        counters = await asyncio.gather(*[engine.cache_counters() for engine in engines])
        progress.cache = tuple(map(sum, zip(*counters, strict=True)))

    async def watch_caches() -> None:
        while True:
            await asyncio.sleep(2.0)
            await ask_caches()

    watching = asyncio.ensure_future(watch_caches())
    try:
        async with BackgroundWriter(labels, written=progress.add) as writer:
            retried = await annotate_all(questions, engines, in_flight, writer.add)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        progress.bar.close()
    progress.totals["retried_questions"] = retried
    await ask_caches()
    return progress.summary()
