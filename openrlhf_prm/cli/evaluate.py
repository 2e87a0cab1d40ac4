"""Measures policies on questions with known answers: `python -m openrlhf_prm.cli.evaluate --actor.model_name_or_path
POLICY ...`. With `--benchmark NAME` it measures a PRM instead, see `openrlhf_prm.cli.evaluate_prm`.

Each question gets one greedy and n sampled responses from vLLM engines placed by Ray; with `--prm.model_name_or_path`
every step is scored, which gives best-of-n and the weighted vote; with `--eval.step_checker` every step is checked
exactly. Several policies may be given: they share one start of Ray and of the PRM. Written are `--eval.output` (the
numbers, see `openrlhf_prm.evaluation.summary`) and `--eval.samples` (one line a response, see
`openrlhf_prm.evaluation.responses`).

The last line on stdout is the content of `--eval.output` as one JSON object; with several policies an object of them
by output file, or by policy where no file was asked for. Exit codes: 0 done, 2 a flag or an input row is wrong (said
before any engine starts), 130 interrupted.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, add_engine_flags, engine_options, nested, questions_of
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import require_at_least_one, require_checkpoint, require_family
from openrlhf_prm.cluster.context_length import model_context, require_room
from openrlhf_prm.data.files import write_atomically
from openrlhf_prm.data.prompts import check_lengths
from openrlhf_prm.data.questions import Question
from openrlhf_prm.data.steps import STEP_SPLITTERS
from openrlhf_prm.evaluation.responses import GradedResponse, write_samples
from openrlhf_prm.evaluation.run import Judges, Sampling, collect
from openrlhf_prm.evaluation.step_checkers import STEP_CHECKERS, STEP_KINDS
from openrlhf_prm.evaluation.summary import summarize
from openrlhf_prm.evaluation.table import print_results
from openrlhf_prm.evaluation.versions import versions
from vllm_prm.aggregation import SCORE_AGGREGATIONS


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(
        prog="evaluate",
        description="Accuracy of policies, greedy, sampled and chosen by a PRM. To measure a PRM on ProcessBench, "
        "PRMBench or by best-of-N instead: evaluate --benchmark NAME; with --help it lists its own flags.",
    )
    add = parser.add_argument
    add("--actor.model_name_or_path", required=True, nargs="+", help="checkpoints of the policies to measure")
    add("--data.input", required=True, help="JSONL file of questions with reference answers")
    add("--data.input_key", default="question", help="key of the question in an input row")
    add("--data.label_key", default="label", help="key of the reference answer in an input row")
    add("--data.max_samples", type=int, help="use the first N questions only")
    add("--data.apply_chat_template", action="store_true", help="send the question through the policy's chat template")
    add(
        "--eval.n_samples_per_prompt", type=int, default=8, help="sampled responses per question, beside the greedy one"
    )
    add("--eval.temperature", type=float, default=1.0, help="of the sampled responses")
    add("--eval.top_p", type=float, default=1.0, help="of the sampled responses")
    add("--eval.step_checker", choices=list(STEP_CHECKERS), help="exact judge of steps, where the task has one")
    add(
        "--eval.vote_aggregation",
        default="min",
        choices=list(SCORE_AGGREGATIONS),
        help="score of a vote from its steps",
    )
    add("--eval.output", nargs="+", help="JSON file of the numbers, one per policy")
    add("--eval.samples", nargs="+", help="JSONL file of the graded responses, one per policy")
    add("--eval.verbose", action="store_true", help="show what the engines log")
    add("--rollout.max_new_tokens", type=int, default=1024, help="token limit of a response")
    add("--steps.splitter", default="newline", choices=list(STEP_SPLITTERS), help="where a step ends")
    add("--answers.checker", default="math", help=CHECKER_HELP)
    add("--prm.model_name_or_path", help="checkpoint of a process reward model that scores the steps")
    add("--prm.family", help="PRM family, where the checkpoint does not tell")
    add_engine_flags(parser)
    add("--train.seed", type=int, default=0, help="seed of the samples and of the bootstrap")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if any(each.split("=")[0] == "--benchmark" for each in argv):
        from openrlhf_prm.cli import evaluate_prm

        return evaluate_prm.main(argv)
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    prepare_environment()
    try:
        try:
            questions = check(args)
            is_correct = answer_checker(args.answers.checker)
            check_room(args, questions)
            start(args)
        except ValueError as error:
            parser.error(str(error))
        results = run(args, questions, is_correct)
    except KeyboardInterrupt:
        print("evaluate: interrupted; policies that were finished are written", file=sys.stderr)
        return 130
    print_results(results.values())
    print(json.dumps(next(iter(results.values())) if len(results) == 1 else results))
    return 0


def check(args: SimpleNamespace) -> list[Question]:
    """Everything that can be wrong with the flags and the input, before an engine starts; returns the questions.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(
        args,
        "eval.n_samples_per_prompt",
        "rollout.max_new_tokens",
        "vllm.num_engines",
        "prm.num_engines",
        "data.max_samples",
    )
    if args.eval.temperature < 0:
        raise ValueError(f"--eval.temperature must not be negative, got {args.eval.temperature}")
    if not 0 < args.eval.top_p <= 1:
        raise ValueError(f"--eval.top_p must be above 0 and at most 1, got {args.eval.top_p}")
    policies = args.actor.model_name_or_path
    for policy in policies:
        require_checkpoint("--actor.model_name_or_path", policy)
    if args.prm.model_name_or_path is not None:
        require_checkpoint("--prm.model_name_or_path", args.prm.model_name_or_path)
    require_family(args.prm.family, args.prm.model_name_or_path)
    written: set[str] = set()
    for flag, paths in (("--eval.output", args.eval.output), ("--eval.samples", args.eval.samples)):
        if paths is not None and len(paths) != len(policies):
            raise ValueError(f"{flag} needs one file per policy: got {len(paths)} for {len(policies)}")
        for path in paths or []:
            if Path(path).is_dir():
                raise ValueError(f"{flag}: {path} is a folder, not a file")
            if path in written:
                raise ValueError(f"{flag}: {path} is given twice")
            written.add(path)
    questions = questions_of(args)
    if args.prm.model_name_or_path is not None:
        texts = [question.question for question in questions]
        require_room(args.prm.model_name_or_path, args.prm.max_model_len, texts, args.rollout.max_new_tokens)
    if args.eval.step_checker is not None:
        for question in questions:
            try:
                STEP_CHECKERS[args.eval.step_checker](question.question, [])
            except ValueError as error:
                raise ValueError(f"--eval.step_checker {args.eval.step_checker}: {error}") from None
    return questions


def check_room(args: SimpleNamespace, questions: list[Question]) -> None:
    """Raises ValueError where a question leaves a policy's context no room for a response."""
    from transformers import AutoTokenizer

    for policy in args.actor.model_name_or_path:
        context = model_context(policy, args.vllm.max_model_len)
        if context is not None:
            tokenizer = AutoTokenizer.from_pretrained(policy)
            check_lengths(questions, prompt_maker(args, tokenizer), tokenizer, context)


def prompt_maker(args: SimpleNamespace, tokenizer):
    """The function from a question to the text that a policy reads."""

    def prompt_of(question: str) -> str:
        if not args.data.apply_chat_template:
            return question
        messages = [{"role": "user", "content": question}]
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    return prompt_of


def start(args: SimpleNamespace) -> None:
    """Starts Ray. Raises ValueError where it has too few GPUs for the engines that the flags ask for."""
    from openrlhf_prm.cluster.session import start_ray

    needed = args.vllm.num_engines * args.vllm.gpus_per_engine
    if args.prm.model_name_or_path is not None:
        needed += args.prm.num_engines * args.prm.gpus_per_engine
    start_ray(needed, args.eval.verbose)


def run(args: SimpleNamespace, questions: list[Question], is_correct) -> dict[str, dict]:
    """Starts the engines and measures each policy; writes its files as it is done. Errors of an engine are raised."""
    import ray
    from transformers import AutoTokenizer

    from openrlhf_prm.cluster.session import generation_pool, silent_stderr
    from openrlhf_prm.cluster.workers import ScoringPool

    policies = args.actor.model_name_or_path
    tokenizers = [AutoTokenizer.from_pretrained(policy) for policy in policies]
    started = time.perf_counter()
    results: dict[str, dict] = {}
    try:
        prm = None
        if args.prm.model_name_or_path is not None:
            options = engine_options(args.prm.model_name_or_path, args.prm, args.train.seed)
            prm = ScoringPool.start(options, args.prm.family)
        for number, (policy, tokenizer) in enumerate(zip(policies, tokenizers, strict=True)):
            with generation_pool(engine_options(policy, args.vllm, args.train.seed)) as pool:
                ready = time.perf_counter()
                responses = asyncio.run(_collect(args, questions, is_correct, pool, prm, tokenizer))
                done = time.perf_counter()
            numbers = summarize(
                responses,
                vote_aggregation=args.eval.vote_aggregation,
                step_kind=STEP_KINDS.get(args.eval.step_checker),
                seed=args.train.seed,
            )
            seconds = {"seconds": round(done - ready, 2), "startup_seconds": round(ready - started, 2)}
            result = {**numbers, **seconds, "seed": args.train.seed, "versions": versions(), "policy": policy}
            result = {**result, "prm": args.prm.model_name_or_path, "data": args.data.input}
            if args.eval.samples is not None:
                write_samples(Path(args.eval.samples[number]), responses)
            if args.eval.output is not None:
                write_atomically(Path(args.eval.output[number]), json.dumps(result, indent=2) + "\n")
            results[args.eval.output[number] if args.eval.output is not None else policy] = result
            started = time.perf_counter()
    except KeyboardInterrupt:
        with silent_stderr():
            ray.shutdown()
        raise
    finally:
        ray.shutdown()
    return results


async def _collect(args, questions, is_correct, pool, prm, tokenizer) -> list[GradedResponse]:
    from tqdm import tqdm

    sampling = Sampling(
        n=args.eval.n_samples_per_prompt,
        temperature=args.eval.temperature,
        top_p=args.eval.top_p,
        max_new_tokens=args.rollout.max_new_tokens,
        seed=args.train.seed,
        in_flight=512 * args.vllm.num_engines,
    )
    checker = STEP_CHECKERS.get(args.eval.step_checker)
    judges = Judges(is_correct=is_correct, splitter=args.steps.splitter, prm=prm, step_checker=checker)
    prompt_of = prompt_maker(args, tokenizer)
    total = len(questions) * (sampling.n + 1)
    with tqdm(total=total, desc="evaluating", unit="response", mininterval=1) as progress:
        return await collect(questions, pool, tokenizer, sampling, judges, prompt_of, progress.update)


if __name__ == "__main__":
    sys.exit(main())
