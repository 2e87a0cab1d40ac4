"""A policy's own best right answers as SFT data, from what is asked for to the counts of what was done."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.annotation.scheduler import AnnotationEngine, annotate_all
from openrlhf_prm.cluster.checks import prm_paths
from openrlhf_prm.cluster.engine_options import EngineOptions, ServerFlags
from openrlhf_prm.data.background_writer import BackgroundWriter
from openrlhf_prm.data.ledger import Ledger
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.sampler import SampledQuestion, Sampler, SamplerOptions
from openrlhf_prm.generation.samples_file import SamplesFile
from openrlhf_prm.generation.scored_engine import ScoredEngine
from openrlhf_prm.generation.selection import SelectionOptions
from openrlhf_prm.generation.sft_data import write_selection
from vllm_prm.durable_file import checkpoint_state


@dataclass(frozen=True, kw_only=True)
class RankingPRM:
    """The PRM that ranks right responses: in engines of our own, or behind servers; neither is none."""

    engines: EngineOptions | None = None
    family: str | None = None
    servers: ServerFlags = ServerFlags()

    @property
    def own_engines(self) -> dict[str, EngineOptions]:
        """Those that Ray places, by the prefix of their flags."""
        return {} if self.engines is None else {"prm": self.engines}

    @property
    def paths(self) -> list[tuple[str, str]]:
        """What its engines read, by flag."""
        engines = self.engines
        return [] if engines is None else prm_paths(engines.model, self.family, engines.beside)

    def settings(self) -> dict:
        """What the step scores depend on."""
        model = None if self.engines is None else self.engines.model
        return {
            "--prm.model_name_or_path": model,
            "state of the PRM": model and checkpoint_state(model),
            "--prm.url": " ".join(self.servers.url) or None,
            "--prm.family": self.family,
        }

    def start(self) -> Any:
        """What scores steps: `async score(question, steps)`. None without a PRM."""
        from openrlhf_prm.cluster.remote_scorer import RemoteScorer
        from openrlhf_prm.cluster.workers import ScoringPool

        if self.engines is not None:
            return ScoringPool.start(self.engines, self.family)
        return RemoteScorer(self.servers) if self.servers.url else None


@dataclass(frozen=True, kw_only=True)
class RejectionSampling:
    """What is to be sampled, how it is ranked and selected, and where to."""

    run: PolicyRun
    sampling: SamplerOptions
    selection: SelectionOptions
    prm: RankingPRM
    output: Path

    @property
    def own_engines(self) -> dict[str, EngineOptions]:
        """Those that Ray places, in the order in which they start."""
        return {**self.prm.own_engines, **self.run.own_engines}

    def open_samples(self) -> SamplesFile:
        """The file of samples, beside the output. Raises ValueError where it cannot be continued."""
        settings = {**self.run.settings(), **self.prm.settings(), **asdict(self.sampling)}
        return SamplesFile(self.output.with_name(self.output.name + ".samples.jsonl"), settings)


def write_sft_data(task: RejectionSampling, samples: SamplesFile) -> dict[str, int]:
    """Samples the questions that `samples` lacks, selects and writes the output; returns the summary's counts.

    Raises QuestionTooLong, TooFewGPUs and NotSeen before an engine starts, and what an engine raises.
    """
    questions = task.run.unfinished(samples.finished)
    ledger = Ledger(task.output.parent, task.output.name)
    ledger.began()
    retried = sample(task, questions, samples) if questions else 0
    counts = write_selection(task.output, task.run.questions, samples, task.selection, sft_row(task.run))
    book(ledger, counts)
    return counts | {
        "resumed_questions": len(task.run.questions) - len(questions),
        "retried_questions": retried,
    }


def book(ledger: Ledger, counts: dict[str, int]) -> None:
    """What became of questions and responses."""
    without, wrong = counts["questions_without_any"], counts["questions_without_correct"]
    reasons = {"no right response": wrong, "all right responses left out": without - wrong}
    ledger.part(1, "questions", counts["questions"], {"with rows": counts["questions"] - without}, reasons)
    reasons = {name.replace("_", " "): counts[name] for name in ("below_score", "duplicates", "beyond_cap")}
    reasons["wrong"] = counts["sampled"] - counts["correct"]
    ledger.part(1, "responses", counts["sampled"], {"rows": counts["kept"]}, reasons)
    ledger.ended({"questions": counts["questions"]})


def sample(task: RejectionSampling, questions: list[Question], samples: SamplesFile) -> int:
    """Starts the engines and samples the questions; returns how often one was tried again. Errors are raised."""
    from openrlhf_prm.cluster.session import ray_session

    prompt_of = task.run.prompt_maker(questions)
    with ray_session(task.own_engines, [*task.run.paths, *task.prm.paths]):
        prm = task.prm.start()
        with task.run.started_engines(Sampler, task.sampling, prompt_of) as engines:
            scored = engines if prm is None else [ScoredEngine(engine, prm) for engine in engines]
            return asyncio.run(sample_all(questions, scored, task.run.in_flight, samples))


async def sample_all(
    questions: list[Question], engines: list[AnnotationEngine], in_flight: int, samples: SamplesFile
) -> int:
    """Samples the questions and writes each as it finishes; returns how often one was tried again."""
    from tqdm import tqdm

    totals = Counter()
    with tqdm(total=len(questions), desc="sampling", unit="question", mininterval=1) as bar:

        def written(sampled: SampledQuestion) -> None:
            totals.update(sampled=sampled.sampled, correct=len(sampled.candidates))
            share = totals["correct"] / totals["sampled"]
            bar.set_postfix_str(f"{totals['sampled']} responses, {share:.0%} right", refresh=False)
            bar.update()

        async with BackgroundWriter(samples, written) as writer:
            return await annotate_all(questions, engines, in_flight, writer.add)


def sft_row(run: PolicyRun) -> Callable[[Question, str], dict]:
    """The function from a question and a response to a row of SFT data (`sft_data`)."""
    ending = ""
    if not run.prompts.apply_chat_template:
        from transformers import AutoTokenizer

        ending = AutoTokenizer.from_pretrained(run.policy).eos_token or ""
    return lambda question, response: {"input": run.prompts.around(question.question), "output": response + ending}
