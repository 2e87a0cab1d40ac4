"""Labels the steps of a policy's solutions: `python -m openrlhf_prm.cli.annotate --annotator math_shepherd ...`.

Reads questions with reference answers (JSONL), samples solutions and continuations with vLLM engines placed by Ray, and
appends step labels to a JSONL file (schema: `openrlhf_prm.annotation.records`) that `openrlhf_prm.cli.train_prm` trains
on. A question is written, and on disk, the moment it is finished. Started again with the same flags after a kill or
Ctrl-C it goes on where it stopped. The last line on stdout is a JSON summary.

Exit codes: 0 done, 2 a flag or an input row is wrong (said before any engine starts), 130 interrupted.
"""

import asyncio
import dataclasses
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.accelerator import prepare_environment
from openrlhf_prm.annotation import ANNOTATORS, LabelFile, Question, read_questions
from openrlhf_prm.answers import answer_checker
from openrlhf_prm.cli.flags import FlagParser, nested
from openrlhf_prm.steps import STEP_SPLITTERS


class QuestionTooLong(ValueError):
    """A question leaves no room for a response in the policy's context."""


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
    add("--data.apply_chat_template", action="store_true", help="send the question through the chat template")
    add("--steps.splitter", default="newline", choices=list(STEP_SPLITTERS), help="where a step ends")
    add("--answers.checker", default="math", help="math, exact, or a Python file with is_correct(response, label)")
    add("--annotation.solutions_per_question", type=int, default=2, help="solutions sampled and labelled per question")
    add("--annotation.rollouts", type=int, default=8, help="continuations decoded after each step")
    add("--annotation.temperature", type=float, default=1.0, help="of solutions and rollouts")
    add("--annotation.top_p", type=float, default=1.0, help="of solutions and rollouts")
    stop = "in a wrong solution, give 0 to all steps after the first with value 0, assuming that nothing recovers"
    add("--annotation.stop_at_zero", action="store_true", default=True, help=stop)
    add("--annotation.no_stop_at_zero", dest="annotation.stop_at_zero", action="store_false", help="measure every step")
    add("--annotation.concurrency", type=int, default=64, help="questions in flight")
    add("--rollout.max_new_tokens", type=int, default=256, help="token limit of a whole response, its prefix included")
    add("--vllm.num_engines", type=int, default=1, help="engines that share the work")
    add("--vllm.gpus_per_engine", type=float, default=1.0, help="GPUs that Ray sets aside per engine")
    add("--vllm.tensor_parallel_size", type=int, default=1, help="GPUs per engine over which the model is split")
    add("--vllm.dtype", default="bfloat16", help="data type of weights and computation")
    add("--vllm.enforce_eager", action="store_true", help="no CUDA graphs, faster start")
    add("--vllm.gpu_memory_utilization", type=float, help="share of GPU memory per engine")
    add("--vllm.max_model_len", type=int, help="context length; shorter than the model's saves memory")
    add("--train.seed", type=int, default=0, help="seed of the engines")
    return parser


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
        except QuestionTooLong as error:
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
    empty = {"solutions": 0, "labels": 0, "rollouts": 0, "rollout_tokens": 0, "seconds": 0.0, "labels_per_s": 0.0}
    print(json.dumps({**counts, **empty, **summary}))
    return 0


def check(args: SimpleNamespace) -> tuple[list[Question], object]:
    """Checks the flags and the input before an engine starts; returns the questions and the annotator's options.

    Raises ValueError naming the flag, or the file and line.
    """
    at_least_one = {
        "--annotation.concurrency": args.annotation.concurrency,
        "--vllm.num_engines": args.vllm.num_engines,
        "--vllm.tensor_parallel_size": args.vllm.tensor_parallel_size,
        "--data.max_samples": args.data.max_samples,
    }
    for flag, value in at_least_one.items():
        if value is not None and value < 1:
            raise ValueError(f"{flag} must be at least 1, got {value}")
    if not Path(args.data.input).is_file():
        raise ValueError(f"--data.input: no such file: {args.data.input}")
    policy = args.actor.model_name_or_path
    if (policy.startswith((".", "/")) or Path(policy).exists()) and not (Path(policy) / "config.json").is_file():
        raise ValueError(f"--actor.model_name_or_path: no checkpoint (config.json) in {policy}")
    if "{}" not in args.data.input_template:
        raise ValueError(f"--data.input_template has no {{}} for the question: {args.data.input_template!r}")
    options_class = ANNOTATORS[args.annotator].Options
    flags = {**vars(args.annotation), "max_new_tokens": args.rollout.max_new_tokens, "splitter": args.steps.splitter}
    try:
        options = options_class(**{field.name: flags[field.name] for field in dataclasses.fields(options_class)})
    except ValueError as error:
        raise ValueError(f"{'--rollout.' if str(error).startswith('max_new') else '--annotation.'}{error}") from None
    return read_questions(args.data.input, args.data.input_key, args.data.label_key, args.data.max_samples), options


def settings_of(args: SimpleNamespace, options) -> dict:
    """What the labels depend on; the output file may only be continued with the same."""
    return {
        "--annotator": args.annotator,
        "--actor.model_name_or_path": args.actor.model_name_or_path,
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

    from openrlhf_prm.placement import EngineOptions, GenerationPool

    tokenizer = AutoTokenizer.from_pretrained(args.actor.model_name_or_path)
    prompt = prompt_of(args, tokenizer)
    config = AutoConfig.from_pretrained(args.actor.model_name_or_path).get_text_config()
    context = args.vllm.max_model_len or getattr(config, "max_position_embeddings", None)  # some models have no limit
    if context is not None:
        check_lengths(todo, prompt, tokenizer, context)
    ray.init(include_dashboard=False, log_to_driver=False, logging_level="warning")
    pool = None
    try:
        pool = GenerationPool(
            EngineOptions(
                model=args.actor.model_name_or_path,
                num_engines=args.vllm.num_engines,
                gpus=args.vllm.gpus_per_engine,
                dtype=args.vllm.dtype,
                seed=args.train.seed,
                max_model_len=args.vllm.max_model_len,
                enforce_eager=args.vllm.enforce_eager,
                gpu_memory_utilization=args.vllm.gpu_memory_utilization,
                tensor_parallel_size=args.vllm.tensor_parallel_size,
            )
        )
        annotator = ANNOTATORS[args.annotator](pool, tokenizer, is_correct, options)
        start = time.perf_counter()
        counts = asyncio.run(annotate_all(annotator, todo, labels, args.annotation.concurrency, prompt))
        seconds = time.perf_counter() - start
    finally:
        for worker in pool.workers if pool else ():
            ray.kill(worker)  # before Ray itself, which would complain about each rollout in flight
        ray.shutdown()
    rate = round(counts["labels"] / seconds, 1)
    return {**counts, **annotator.usage, "seconds": round(seconds, 2), "labels_per_s": rate}


def check_lengths(questions: list[Question], prompt, tokenizer, context: int) -> None:
    """Raises QuestionTooLong naming the first question without room for a response in `context` tokens."""
    for question in questions:
        length = len(tokenizer(prompt(question.question), add_special_tokens=False)["input_ids"])
        if length >= context:
            raise QuestionTooLong(
                f"--data.input: question {question.id} ({question.question[:40]!r}...) has {length} tokens, "
                f"the policy's context is {context}"
            )


def prompt_of(args: SimpleNamespace, tokenizer):
    """The function from a question to the text that the policy reads."""

    def plain(question: str) -> str:
        return args.data.input_template.replace("{}", question)

    def chat(question: str) -> str:
        messages = [{"role": "user", "content": plain(question)}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    return chat if args.data.apply_chat_template else plain


async def annotate_all(annotator, questions: list[Question], labels: LabelFile, concurrency: int, prompt) -> dict:
    """Labels the questions, `concurrency` at a time, and writes each as it finishes. The first error ends all."""
    from tqdm import tqdm

    counts = {"solutions": 0, "labels": 0}
    waiting = iter(questions)
    start = time.perf_counter()
    with tqdm(total=len(questions), desc="labelling", unit="question", mininterval=1) as progress:

        async def work() -> None:
            for question in waiting:  # shared by all workers: each takes the next question
                solutions = await annotator.annotate(prompt(question.question), question.label)
                labels.append(question, solutions)
                counts["solutions"] += len(solutions)
                counts["labels"] += sum(len(solution.steps) for solution in solutions)
                rate = counts["labels"] / (time.perf_counter() - start)
                per_label = annotator.usage["rollouts"] / max(counts["labels"], 1)
                progress.set_postfix_str(f"{rate:.1f} labels/s, {per_label:.1f} rollouts/label", refresh=False)
                progress.update()

        workers = [asyncio.ensure_future(work()) for _ in range(min(concurrency, len(questions)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
    return counts


if __name__ == "__main__":
    sys.exit(main())
