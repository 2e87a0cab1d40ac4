"""Measures policies on questions with known answers: `python -m openrlhf_prm.cli.evaluate --actor.model_name_or_path
POLICY ...`. With `--benchmark NAME` it measures a PRM instead, see `openrlhf_prm.cli.evaluate_prm`.

Each question gets one greedy and n sampled responses from vLLM engines placed by Ray; with `--prm.model_name_or_path`
every step is scored, which gives best-of-n and the weighted vote; with `--eval.step_checker` every step is checked
exactly; with `--eval.agent_func_path` a response has several turns. Several policies may be given: they share one start
of Ray and of the PRM. Written are `--eval.output` (the numbers, see `openrlhf_prm.evaluation.summary`) and
`--eval.samples` (one line a response, see `openrlhf_prm.evaluation.responses`).

The last line on stdout is the content of `--eval.output` as one JSON object; with several policies an object of them
by output file, or by policy where no file was asked for. Exit codes: 0 done, 2 a flag or an input row is wrong (said
before any engine starts), 130 interrupted.
"""

import json
import sys
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, nested, questions_of, told_of_disks
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import models_beside, require_at_least_one, require_checkpoint, require_family
from openrlhf_prm.cluster.context_length import response_limit
from openrlhf_prm.cluster.dry_run import add_dry_run_flags, asked_for
from openrlhf_prm.cluster.engine_options import SERVER_FLAGS, EngineFlags, EngineOptions, ServerFlags
from openrlhf_prm.cluster.engine_preflight import dry_run_engines
from openrlhf_prm.cluster.remote_scorer import check_servers
from openrlhf_prm.data.attempts import AttemptOptions
from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.evaluation.agents import FLAG, load_agent
from openrlhf_prm.evaluation.budgets import BudgetOptions, budget_plot
from openrlhf_prm.evaluation.collecting import Sampling
from openrlhf_prm.evaluation.further_attempts import FurtherAttempts
from openrlhf_prm.evaluation.policies import (
    MeasuredPolicy,
    PolicyEvaluation,
    SummaryOptions,
    load_tokenizers,
    measure_policies,
)
from openrlhf_prm.evaluation.table import print_results, results_table
from openrlhf_prm.options import add_flags, build, named_in, refuse_unread
from vllm_prm.durable_file import write_atomically
from vllm_prm.interrupts import end_as_after_ctrl_c
from vllm_prm.splitters import STEP_SPLITTERS


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
    add_flags(parser, "data", PromptOptions)
    add_flags(parser, "eval", Sampling)
    add_flags(parser, "eval", SummaryOptions)
    add_flags(parser, "eval", BudgetOptions)
    add_flags(parser, "self_correction", AttemptOptions)
    add("--eval.agent_func_path", help="the agent's file of --train.agent_func_path, whose turns and verdicts count")
    add("--eval.output", nargs="+", help="JSON file of the numbers, one per policy")
    add("--eval.samples", nargs="+", help="JSONL file of the graded responses, one per policy")
    add("--eval.report", help="HTML page of the numbers, with the curve of --eval.budgets")
    add("--eval.verbose", action="store_true", help="show what the engines log")
    limit = f"token limit of a response; default: {Sampling.max_new_tokens}, less where the PRM's context is too short"
    add("--rollout.max_new_tokens", type=int, help=limit)
    add("--steps.splitter", default="auto", **named_in(STEP_SPLITTERS), help="where a reasoning step ends")
    add("--answers.checker", default="math", help=f"what judges an answer: {CHECKER_HELP}")
    add("--prm.model_name_or_path", help="checkpoint of a process reward model that scores the steps")
    add("--prm.family", help="PRM family or FILE.py:Class, where the checkpoint does not tell")
    add_flags(parser, "prm", ServerFlags)
    add_flags(parser, "vllm", EngineFlags)
    add_flags(parser, "prm", EngineFlags)
    add("--train.seed", type=int, default=0, help="seed of the samples and of the bootstrap")
    add_dry_run_flags(parser)
    return parser


@told_of_disks("evaluate")
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if any(argument.split("=")[0] == "--benchmark" for argument in argv):
        from openrlhf_prm.cli import evaluate_prm

        return evaluate_prm.main(argv)
    end_as_after_ctrl_c()
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    prepare_environment(args.dry_run.on)
    try:
        try:
            evaluation = evaluation_of(args)
            tokenizers = load_tokenizers(evaluation)
            if asked_for(args):
                for engines in evaluation.own_engines_by_policy:
                    dry_run_engines(args, engines)
                return 0
            start_ray_for(evaluation, args.eval.verbose)
        except ValueError as error:
            parser.error(str(error))
        results = measure_policies(evaluation, tokenizers)
    except KeyboardInterrupt:
        print("evaluate: interrupted; policies that were finished are written", file=sys.stderr)
        return 130
    print_results(results.values())
    if args.eval.report:
        write_report(Path(args.eval.report), results)
    print(json.dumps(next(iter(results.values())) if len(results) == 1 else results))
    return 0


def evaluation_of(args: SimpleNamespace) -> PolicyEvaluation:
    """What the flags ask for, with everything checked that can be before an engine starts.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(args, "rollout.max_new_tokens", "data.max_samples")
    engines = build(EngineFlags, args.vllm, "vllm")
    sampling = build(
        Sampling,
        args.eval,
        "eval",
        max_new_tokens=args.rollout.max_new_tokens or Sampling.max_new_tokens,
        seed=args.train.seed,
        in_flight=512 * engines.num_engines,
    )
    summary = build(SummaryOptions, args.eval, "eval")
    prompts = build(PromptOptions, args.data, "data")
    budgets = build(BudgetOptions, args.eval, "eval")
    for name, needed in budgets.unread("eval").items():
        if getattr(args.eval, name) is not None:
            raise ValueError(f"--eval.{name} needs {needed}")
    further = further_attempts(args, prompts)
    if further is not None and further.attempt_tokens is not None:
        refuse = "limits every attempt, the first one too: leave out --rollout.max_new_tokens"
        if args.rollout.max_new_tokens is not None:
            raise ValueError(f"--self_correction.attempt_tokens {refuse}")
        sampling = replace(sampling, max_new_tokens=further.attempt_tokens)
    policies = policies_of(args)
    prm = args.prm.model_name_or_path
    servers = prm_servers(args)
    questions = tuple(questions_of(args))
    if prm is not None:
        texts = [question.question for question in questions]
        reader = (prm, args.prm.max_model_len)
        limit = response_limit(args.rollout.max_new_tokens, sampling.max_new_tokens, *reader, texts)
        sampling = replace(sampling, max_new_tokens=limit)
    summary.check(questions)
    agent = args.eval.agent_func_path
    if agent is not None and args.rollout.max_new_tokens is not None:
        raise ValueError(
            f"--rollout.max_new_tokens is not read with {FLAG}: --vllm.max_model_len limits a conversation"
        )
    if agent is not None and (further is not None or budgets.budgets):
        raise ValueError(f"{FLAG} leads its own turns: leave out --self_correction.attempts and --eval.budgets")
    return PolicyEvaluation(
        policies=policies,
        questions=questions,
        data=args.data.input,
        prompts=prompts,
        sampling=sampling,
        summary=summary,
        is_correct=answer_checker(args.answers.checker),
        splitter=args.steps.splitter,
        engines=engines.engines(policies[0].model, sampling.seed),
        prm=None if prm is None else prm_engines(args, prm),
        prm_family=args.prm.family,
        servers=servers,
        further=further,
        budgets=budgets,
        agent=None if agent is None else load_agent(agent),
    )


def further_attempts(args: SimpleNamespace, prompts: PromptOptions) -> FurtherAttempts | None:
    """Attempts behind each response, where they are asked for. Raises ValueError naming the flag."""
    asked = build(FurtherAttempts, args.self_correction, "self_correction", prompts=prompts)
    if (args.self_correction.attempts or 1) < 2:
        refuse_unread(
            args.self_correction, "self_correction", ("attempts",), "needs --self_correction.attempts above 1"
        )
        return None
    return asked


def policies_of(args: SimpleNamespace) -> tuple[MeasuredPolicy, ...]:
    """The policies with their files. Raises ValueError naming the flag."""
    models = args.actor.model_name_or_path
    for model in models:
        require_checkpoint("--actor.model_name_or_path", model)
    if args.eval.report and Path(args.eval.report).is_dir():
        raise ValueError(f"--eval.report: {args.eval.report} is a folder, not a file")
    taken: set[str] = set()
    for flag, paths in (("--eval.output", args.eval.output), ("--eval.samples", args.eval.samples)):
        if paths is not None and len(paths) != len(models):
            raise ValueError(f"{flag} needs one file per policy: got {len(paths)} for {len(models)}")
        for path in paths or []:
            if Path(path).is_dir():
                raise ValueError(f"{flag}: {path} is a folder, not a file")
            if path in taken:
                raise ValueError(f"{flag}: {path} is given twice")
            taken.add(path)
    outputs = map(Path, args.eval.output) if args.eval.output else repeat(None)
    samples = map(Path, args.eval.samples) if args.eval.samples else repeat(None)
    return tuple(
        MeasuredPolicy(model=model, output=output, samples=file)
        for model, output, file in zip(models, outputs, samples, strict=False)
    )


def prm_engines(args: SimpleNamespace, prm: str) -> EngineOptions:
    """Those of the PRM's checkpoint."""
    beside = models_beside(prm, args.prm.family)
    return build(EngineFlags, args.prm, "prm").engines(prm, args.train.seed, beside=beside)


def prm_servers(args: SimpleNamespace) -> ServerFlags:
    """The servers of a PRM, as far as there are any. Raises ValueError where the PRM is none, and where a flag is given
    that only a PRM would read.
    """
    prm, servers = args.prm.model_name_or_path, build(ServerFlags, args.prm, "prm")
    check_servers(servers, prm)
    if prm is not None:
        require_checkpoint("--prm.model_name_or_path", prm)
    require_family(args.prm.family, prm)
    if prm is None:
        refuse_unread(args.prm, "prm", SERVER_FLAGS, "needs --prm.model_name_or_path")
        if args.eval.vote_aggregation is not None and not servers.url:
            raise ValueError("--eval.vote_aggregation needs --prm.model_name_or_path or --prm.url")
    return servers


def write_report(path: Path, results: dict[str, dict]) -> None:
    """A page of all policies' numbers."""
    from openrlhf_prm.report.benchmark_page import render_benchmark

    first = next(iter(results.values()))
    budgets = {name: result["budgets"] for name, result in results.items() if "budgets" in result}
    plots = [budget_plot(budgets)] if budgets else []
    title = "Policies measured" if len(results) > 1 else f"{Path(first['policy']).name} measured"
    write_atomically(path, render_benchmark(title, first, [results_table(results.values())], plots, of="policies"))


def start_ray_for(evaluation: PolicyEvaluation, show_logs: bool) -> None:
    """Starts Ray. Raises ValueError where it has no room for the engines, or a node lacks a checkpoint."""
    from openrlhf_prm.cluster.session import start_ray

    for engines in evaluation.own_engines_by_policy:
        start_ray(engines, show_logs, evaluation.paths)


if __name__ == "__main__":
    sys.exit(main())
