"""Labels the steps of a policy's solutions: `python -m openrlhf_prm.cli.annotate --annotator adaptive ...`.

Reads questions with reference answers (JSONL), samples solutions and continuations with vLLM engines placed by Ray, or
with servers at `--annotation.urls`, and appends step labels to a JSONL file (schema: `openrlhf_prm.annotation.records`)
that `openrlhf_prm.cli.train_prm` trains on. A question is written, and on disk, the moment it is finished; the
questions of an engine that dies are tried again. Started again with the same flags after a kill or Ctrl-C it goes on
where it stopped. The last line on stdout is a JSON summary.

Exit codes: 0 done, 2 a flag or an input row is wrong (said before any engine starts), 130 interrupted.
"""

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from collections import Counter
from types import SimpleNamespace

from openrlhf_prm.annotation import ANNOTATORS, AnnotatedQuestion, LabelFile
from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, engine_options, nested, questions_of
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import TooFewGPUs, require_at_least_one, require_checkpoint, require_urls
from openrlhf_prm.data.prompts import PromptOptions, QuestionTooLong, check_lengths, prompt_maker
from openrlhf_prm.data.questions import Question
from openrlhf_prm.data.steps import STEP_SPLITTERS
from openrlhf_prm.evaluation.scoring import fingerprint
from openrlhf_prm.options import build


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="annotate", description="Label the steps of a policy's solutions by Monte Carlo rollouts.")
    add = parser.add_argument
    add("--annotator", default="math_shepherd", choices=list(ANNOTATORS), help="how steps are labelled")
    add("--actor.model_name_or_path", required=True, help="checkpoint of the policy that writes solutions and rollouts")
    add("--data.input", required=True, help="JSONL file of questions")
    add("--data.output", required=True, help="JSONL file of labelled solutions; an unfinished one is continued")
    add("--data.input_key", default="question", help="key of the question in an input row")
    add("--data.label_key", default="label", help="key of the reference answer in an input row")
    add("--data.max_samples", type=int, help="use the first N questions only")
    add("--data.input_template", default="{}", help="text in which {} is replaced by the question")
    add("--data.apply_chat_template", action="store_true", help="send the question through the policy's chat template")
    add("--steps.splitter", default="newline", choices=list(STEP_SPLITTERS), help="where a step ends")
    add("--answers.checker", default="math", help=CHECKER_HELP)
    add_annotator_flags(parser)
    add("--annotation.concurrency", type=int, default=64, help="questions in flight on each engine")
    add("--annotation.urls", nargs="+", default=[], help="OpenAI-compatible servers of the policy, instead of engines")
    add("--rollout.max_new_tokens", type=int, default=256, help="token limit of a whole response, its prefix included")
    add("--vllm.num_engines", type=int, default=1, help="engines that share the work")
    add("--vllm.gpus_per_engine", type=float, default=1.0, help="GPUs that Ray sets aside per engine")
    add("--vllm.tensor_parallel_size", type=int, default=1, help="GPUs per engine over which the model is split")
    add("--vllm.dtype", default="auto", help="data type of weights and computation")
    add("--vllm.enforce_eager", action="store_true", help="no CUDA graphs, faster start")
    add("--vllm.gpu_memory_utilization", type=float, help="share of GPU memory per engine")
    add("--vllm.max_model_len", type=int, help="context length; shorter than the model's saves memory")
    add("--train.seed", type=int, default=0, help="seed of the engines")
    return parser


def add_annotator_flags(parser: FlagParser) -> None:
    """One flag `--annotation.NAME` per option that an annotator has; `None` where it is not given."""
    found: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for name, annotator in ANNOTATORS.items():
        for field in dataclasses.fields(annotator.Options):
            if "help" in field.metadata:
                found.setdefault(field.name, []).append((name, field))
    for option, fields in found.items():
        meaning = "; ".join(dict.fromkeys(field.metadata["help"] for _, field in fields))
        defaults = ", ".join(f"{name} {field.default}" for name, field in fields)
        text = {"help": f"{meaning} (default: {defaults})", "default": argparse.SUPPRESS}
        kind = type(fields[0][1].default)
        if kind is bool:
            target = f"annotation.{option}"
            parser.add_argument(f"--{target}", action="store_true", **text)
            parser.add_argument(f"--annotation.no_{option}", dest=target, action="store_false", **text)
        else:
            parser.add_argument(f"--annotation.{option}", type=kind, **text)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        questions, options = check(args)
        is_correct = answer_checker(args.answers.checker)
        labels = LabelFile(args.data.output, settings_of(args, options))
    except ValueError as error:
        parser.error(str(error))
    with labels:
        done_before = len(labels.finished)
        todo = [question for question in questions if question.id not in labels.finished]
        try:
            summary = run(args, options, is_correct, todo, labels) if todo else {}
        except (QuestionTooLong, TooFewGPUs) as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            done = len(labels.finished) - done_before
            print(
                f"annotate: interrupted, {done} questions finished in this run are in {args.data.output}; "
                "run the same command again to go on",
                file=sys.stderr,
            )
            return 130
    counts = {"questions": len(todo), "resumed_questions": len(questions) - len(todo)}
    print(json.dumps({**counts, **(summary or Progress(0).summary())}))
    return 0


def check(args: SimpleNamespace) -> tuple[list[Question], object]:
    """Checks the flags and the input before an engine starts; returns the questions and the annotator's options.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(
        args,
        "annotation.concurrency",
        "vllm.num_engines",
        "vllm.tensor_parallel_size",
        "data.max_samples",
    )
    build(PromptOptions, args.data, "data")
    require_urls("--annotation.urls", args.annotation.urls)
    require_checkpoint("--actor.model_name_or_path", args.actor.model_name_or_path)
    return questions_of(args), options_of(args)


def options_of(args: SimpleNamespace) -> object:
    """The annotator's options: what was given, else the class's defaults.

    Raises ValueError for a value it does not allow, and for an option that is another annotator's.
    """
    options_class = ANNOTATORS[args.annotator].Options
    own = {field.name for field in dataclasses.fields(options_class)}
    given = {name: value for name, value in vars(args.annotation).items() if name not in ("concurrency", "urls")}
    if foreign := sorted(given.keys() - own):
        raise ValueError(f"--annotation.{foreign[0]} is no option of --annotator {args.annotator}")
    given |= {"max_new_tokens": args.rollout.max_new_tokens, "splitter": args.steps.splitter}
    try:
        return options_class(**given)
    except ValueError as error:
        raise ValueError(f"{'--rollout.' if str(error).startswith('max_new') else '--annotation.'}{error}") from None


def settings_of(args: SimpleNamespace, options) -> dict:
    """What the labels depend on; the output file may only be continued with the same."""
    return {
        "--annotator": args.annotator,
        "--actor.model_name_or_path": args.actor.model_name_or_path,
        "state of the policy": fingerprint(args.actor.model_name_or_path),
        "--data.input_template": args.data.input_template,
        "--data.apply_chat_template": args.data.apply_chat_template,
        "--answers.checker": args.answers.checker,
        "--vllm.dtype": args.vllm.dtype,
        "--train.seed": args.train.seed,
        **dataclasses.asdict(options),
    }


def run(args: SimpleNamespace, options, is_correct, todo: list[Question], labels: LabelFile) -> dict:
    """Starts the engines and labels the questions; returns the summary's counts. Errors of an engine are raised."""
    prepare_environment()
    import ray
    from transformers import AutoConfig, AutoTokenizer

    from openrlhf_prm.annotation.actors import Work, start_engines
    from openrlhf_prm.cluster.session import start_ray

    policy = args.actor.model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(policy)
    prompt_of = prompt_maker(build(PromptOptions, args.data, "data"), tokenizer)
    config = AutoConfig.from_pretrained(policy).get_text_config()
    context = args.vllm.max_model_len or getattr(config, "max_position_embeddings", None)  # some models have no limit
    check_lengths(todo, prompt_of, tokenizer, context)
    work = Work(policy, ANNOTATORS[args.annotator], options, args.answers.checker)
    vllm = engine_options(policy, args.vllm, args.train.seed, args.vllm.tensor_parallel_size)
    start_ray(0 if args.annotation.urls else vllm.num_engines * vllm.gpus)
    engines = []
    try:
        engines = start_engines(vllm, args.annotation.urls, work, args.annotation.concurrency, prompt_of)
        return asyncio.run(label_all(todo, engines, args.annotation.concurrency, labels))
    finally:
        for engine in engines:
            ray.kill(engine.actor)  # before Ray itself, which would complain about each question in flight
        ray.shutdown()


class Progress:
    """What was found and what it cost, as a bar while it grows and as the summary's counts at the end."""

    def __init__(self, questions: int):
        from tqdm import tqdm

        self.start = time.perf_counter()
        self.totals = Counter()
        self.cache = (0, 0)
        self.bar = tqdm(total=questions, desc="labelling", unit="question", mininterval=1, disable=not questions)

    def add(self, found: AnnotatedQuestion) -> None:
        """Counts a finished question."""
        labels = sum(len(solution.steps) for solution in found.solutions)
        self.totals.update(found.usage)
        self.totals.update(solutions=len(found.solutions), labels=labels, dropped_questions=bool(found.dropped))
        self.bar.set_postfix_str(self._rates(), refresh=False)
        self.bar.update()

    def summary(self) -> dict:
        """The counts as they stand now."""
        names = ("solutions", "labels", "dropped_questions", "rollouts", "rollout_tokens", "solution_tokens")
        counts = {name: self.totals[name] for name in (*names, "reused_rollouts", "retried_questions")}
        seconds = time.perf_counter() - self.start if self.totals else 0.0
        rate = self.totals["labels"] / seconds if seconds else 0.0
        counts |= {"cache_hit_rate": self._hit_rate(), "seconds": round(seconds, 2), "labels_per_s": round(rate, 1)}
        return counts

    def _hit_rate(self) -> float | None:
        hits, queries = self.cache
        return round(hits / queries, 3) if queries else None

    def _rates(self) -> str:
        rate = self.totals["labels"] / (time.perf_counter() - self.start)
        per_label = self.totals["rollouts"] / max(self.totals["labels"], 1)
        hits = self._hit_rate()
        shown = "–" if hits is None else f"{hits:.0%}"
        return f"{rate:.1f} labels/s, {per_label:.2f} rollouts/label, cache hits {shown}"


async def label_all(questions: list[Question], engines: list, in_flight: int, labels: LabelFile) -> dict:
    """Labels the questions and writes each as it finishes; returns the counts. The first error ends all."""
    from openrlhf_prm.annotation.scheduler import annotate_all
    from openrlhf_prm.annotation.writer import LabelWriter

    progress = Progress(len(questions))

    async def ask_caches() -> None:
        counters = await asyncio.gather(*[engine.cache_counters() for engine in engines])
        progress.cache = tuple(map(sum, zip(*counters, strict=True)))

    async def watch_caches() -> None:
        while True:
            await asyncio.sleep(2.0)
            await ask_caches()

    watching = asyncio.ensure_future(watch_caches())
    try:
        async with LabelWriter(labels, written=progress.add) as writer:
            retried = await annotate_all(questions, engines, in_flight, writer.add)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        progress.bar.close()
    progress.totals["retried_questions"] = retried
    await ask_caches()
    return progress.summary()


if __name__ == "__main__":
    sys.exit(main())
