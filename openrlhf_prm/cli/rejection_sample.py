"""Turns a policy's own right answers into data for supervised fine-tuning:
`python -m openrlhf_prm.cli.rejection_sample ...`.

Samples responses with vLLM engines placed by Ray, or servers at `--rollout.urls`, keeps those with the right answer,
ranks them by the step scores of a PRM where one is given, drops duplicates, keeps the best of each question and writes
rows that `openrlhf.cli.train_sft` takes (see `openrlhf_prm.generation.sft_data`).

The right responses of a question are in `OUTPUT.samples.jsonl`, and on disk, the moment it is finished; the same
command goes on after a kill, and another selection (`--select.*`) of the same samples costs no sampling. OUTPUT itself
appears whole or not at all. The last line on stdout is a JSON summary, with the flags for `train_sft`.

Exit codes: 0 done, 2 a flag or an input row is wrong (said before any engine starts), 130 interrupted.
"""

import asyncio
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, add_engine_flags, engine_options, nested, questions_of
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import (
    TooFewGPUs,
    require_at_least_one,
    require_checkpoint,
    require_family,
    require_urls,
)
from openrlhf_prm.cluster.context_length import model_context, require_room
from openrlhf_prm.data.prompts import PromptOptions, QuestionTooLong, check_lengths, prompt_maker
from openrlhf_prm.data.questions import Question
from openrlhf_prm.data.steps import STEP_SPLITTERS
from openrlhf_prm.evaluation.scoring import fingerprint
from openrlhf_prm.generation.sampler import SampledQuestion, Sampler, SamplerOptions
from openrlhf_prm.generation.samples_file import SamplesFile
from openrlhf_prm.generation.selection import SIMILARITIES, SelectionOptions
from openrlhf_prm.generation.sft_data import sft_flags, write_selection
from openrlhf_prm.options import build
from vllm_prm.aggregation import SCORE_AGGREGATIONS


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="rejection_sample", description="A policy's own best right answers as data for SFT.")
    add = parser.add_argument
    add("--actor.model_name_or_path", required=True, help="checkpoint of the policy")
    add("--data.input", required=True, help="JSONL file of questions with reference answers")
    add("--data.output", required=True, help="JSONL file of SFT data; samples are kept beside it")
    add("--data.input_key", default="question", help="key of the question in an input row")
    add("--data.label_key", default="label", help="key of the reference answer in an input row")
    add("--data.max_samples", type=int, help="use the first N questions only")
    add("--data.input_template", default="{}", help="text in which {} is replaced by the question")
    add("--data.apply_chat_template", action="store_true", help="send the question through the policy's chat template")
    add("--rollout.n_samples_per_prompt", type=int, default=16, help="responses per question")
    add("--rollout.temperature", type=float, default=1.0, help="of the responses")
    add("--rollout.top_p", type=float, default=1.0, help="of the responses")
    add("--rollout.max_new_tokens", type=int, default=1024, help="token limit of a response; one cut there is wrong")
    add("--rollout.concurrency", type=int, default=64, help="questions in flight on each engine")
    add("--rollout.urls", nargs="+", default=[], help="OpenAI-compatible servers of the policy, instead of engines")
    add("--steps.splitter", default="newline", choices=list(STEP_SPLITTERS), help="where a step ends")
    add("--answers.checker", default="math", help=CHECKER_HELP)
    add("--prm.model_name_or_path", help="checkpoint of a process reward model that ranks the right responses")
    add("--prm.url", help="a running `vllm-prm serve`, instead of PRM engines")
    add("--prm.family", help="PRM family, where the checkpoint does not tell")
    defaults = SelectionOptions()
    add("--select.aggregation", default=defaults.aggregation, choices=list(SCORE_AGGREGATIONS), help="score from steps")
    add("--select.min_score", type=float, help="leave out responses that score less")
    add("--select.similarity", default=defaults.similarity, choices=list(SIMILARITIES), help="what duplicates share")
    near = "similarity to a better response from which one is a duplicate; below 1 for near-duplicates by step_set"
    add("--select.duplicate_from", type=float, default=defaults.duplicate_from, help=near)
    add("--select.max_per_question", type=int, default=defaults.max_per_question, help="best responses that are kept")
    add_engine_flags(parser)
    add("--train.seed", type=int, default=0, help="seed of the engines")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    prepare_environment()
    try:
        questions, sampling, selection = check(args)
        samples = SamplesFile(f"{args.data.output}.samples.jsonl", settings_of(args, sampling))
    except ValueError as error:
        parser.error(str(error))
    with samples:
        todo = [question for question in questions if question.id not in samples.finished]
        try:
            retried = run(args, sampling, todo, samples) if todo else 0
        except (QuestionTooLong, TooFewGPUs) as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            kept = f"{len(samples.finished)} finished questions are in {samples.path}"
            print(f"rejection_sample: interrupted; {kept}; run the same command again to go on", file=sys.stderr)
            return 130
        counts = write_selection(Path(args.data.output), questions, samples, selection, row_maker(args))
    counts |= {"resumed_questions": len(questions) - len(todo), "retried_questions": retried}
    print_counts(counts)
    print(json.dumps({**counts, "train_sft": sft_flags(args.data.output, args.data.apply_chat_template)}))
    return 0


def check(args: SimpleNamespace) -> tuple[list[Question], SamplerOptions, SelectionOptions]:
    """Checks the flags and the input before an engine starts; returns the questions and the options of both stages.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(args, "rollout.concurrency", "vllm.num_engines", "prm.num_engines", "data.max_samples")
    if args.prm.model_name_or_path is not None and args.prm.url is not None:
        raise ValueError("--prm.model_name_or_path and --prm.url exclude each other")
    build(PromptOptions, args.data, "data")
    require_urls("--rollout.urls", args.rollout.urls)
    require_urls("--prm.url", [args.prm.url] if args.prm.url else [])
    require_checkpoint("--actor.model_name_or_path", args.actor.model_name_or_path)
    if args.prm.model_name_or_path is not None:
        require_checkpoint("--prm.model_name_or_path", args.prm.model_name_or_path)
    require_family(args.prm.family, args.prm.model_name_or_path)
    if args.select.min_score is not None and args.prm.model_name_or_path is None and args.prm.url is None:
        raise ValueError("--select.min_score needs step scores: --prm.model_name_or_path or --prm.url")
    if Path(args.data.output).is_dir():
        raise ValueError(f"--data.output: {args.data.output} is a folder, not a file")
    names = {"samples": "n_samples_per_prompt"}
    sampling = _options(
        SamplerOptions,
        "--rollout.",
        names,
        samples=args.rollout.n_samples_per_prompt,
        temperature=args.rollout.temperature,
        top_p=args.rollout.top_p,
        max_new_tokens=args.rollout.max_new_tokens,
        splitter=args.steps.splitter,
    )
    selection = _options(SelectionOptions, "--select.", {}, **vars(args.select))
    questions = questions_of(args)
    if args.prm.model_name_or_path is not None:
        texts = [question.question for question in questions]
        require_room(args.prm.model_name_or_path, args.prm.max_model_len, texts, args.rollout.max_new_tokens)
    return questions, sampling, selection


def _options(kind: type, prefix: str, names: dict[str, str], **given):
    try:
        return kind(**given)
    except ValueError as error:
        name, _, rest = str(error).partition(" ")
        raise ValueError(f"{prefix}{names.get(name, name)} {rest}") from None


def settings_of(args: SimpleNamespace, sampling: SamplerOptions) -> dict:
    """What the samples depend on; their file may only be continued with the same."""
    prm = args.prm.model_name_or_path
    return {
        "--actor.model_name_or_path": args.actor.model_name_or_path,
        "state of the policy": fingerprint(args.actor.model_name_or_path),
        "--data.input_template": args.data.input_template,
        "--data.apply_chat_template": args.data.apply_chat_template,
        "--answers.checker": args.answers.checker,
        "--vllm.dtype": args.vllm.dtype,
        "--train.seed": args.train.seed,
        "--prm.model_name_or_path": prm,
        "state of the PRM": prm and fingerprint(prm),
        "--prm.url": args.prm.url,
        "--prm.family": args.prm.family,
        **dataclasses.asdict(sampling),
    }


def run(args: SimpleNamespace, sampling: SamplerOptions, todo: list[Question], samples: SamplesFile) -> int:
    """Starts the engines and samples the questions; returns how often one was tried again. Errors are raised."""
    import ray
    from transformers import AutoTokenizer

    from openrlhf_prm.annotation.actors import Work, start_engines
    from openrlhf_prm.cluster.session import silent_stderr, start_ray
    from openrlhf_prm.cluster.workers import RemoteScorer, ScoringPool
    from openrlhf_prm.generation.scored_engine import ScoredEngine

    policy, prm = args.actor.model_name_or_path, args.prm.model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(policy)
    prompt_of = prompt_maker(build(PromptOptions, args.data, "data"), tokenizer)
    context = model_context(policy, args.vllm.max_model_len)
    check_lengths(todo, prompt_of, tokenizer, context)
    gpus = 0 if args.rollout.urls else args.vllm.num_engines * args.vllm.gpus_per_engine
    start_ray(gpus + (args.prm.num_engines * args.prm.gpus_per_engine if prm else 0))
    engines = []
    try:
        scorer = None
        if prm is not None:
            scorer = ScoringPool.start(engine_options(prm, args.prm, args.train.seed), args.prm.family)
        elif args.prm.url is not None:
            scorer = RemoteScorer(args.prm.url)
        work = Work(policy, Sampler, sampling, args.answers.checker)
        options = engine_options(policy, args.vllm, args.train.seed)
        engines = start_engines(options, args.rollout.urls, work, args.rollout.concurrency, prompt_of)
        scored = engines if scorer is None else [ScoredEngine(engine, scorer) for engine in engines]
        return asyncio.run(sample_all(todo, scored, args.rollout.concurrency, samples))
    except KeyboardInterrupt:
        with silent_stderr():
            ray.shutdown()
        raise
    finally:
        for engine in engines:
            if ray.is_initialized():
                ray.kill(engine.actor)  # before Ray itself, which would complain about each question in flight
        ray.shutdown()


async def sample_all(questions: list[Question], engines: list, in_flight: int, samples: SamplesFile) -> int:
    """Samples the questions and writes each as it finishes; returns how often one was tried again."""
    from tqdm import tqdm

    from openrlhf_prm.annotation.scheduler import annotate_all
    from openrlhf_prm.annotation.writer import LabelWriter

    totals = Counter()
    with tqdm(total=len(questions), desc="sampling", unit="question", mininterval=1) as bar:

        def written(found: SampledQuestion) -> None:
            totals.update(sampled=found.sampled, correct=len(found.candidates))
            share = totals["correct"] / totals["sampled"]
            bar.set_postfix_str(f"{totals['sampled']} responses, {share:.0%} right", refresh=False)
            bar.update()

        async with LabelWriter(samples, written) as writer:
            return await annotate_all(questions, engines, in_flight, writer.add)


def row_maker(args: SimpleNamespace):
    """The function from a question and a response to a row of SFT data."""
    ending = ""
    if not args.data.apply_chat_template:
        from transformers import AutoTokenizer

        ending = AutoTokenizer.from_pretrained(args.actor.model_name_or_path).eos_token or ""

    def row(question: Question, response: str) -> dict:
        return {"input": args.data.input_template.replace("{}", question.question), "output": response + ending}

    return row


def print_counts(counts: dict[str, int]) -> None:
    """Prints the counts as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="rejection sampling", title_style="")
    table.add_column("")
    table.add_column("count", justify="right")
    for name, count in counts.items():
        table.add_row(name.replace("_", " "), str(count))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
