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

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.cli.parser import (
    CHECKER_HELP,
    FlagParser,
    add_question_flags,
    nested,
    questions_of,
    told_of_disks,
)
from openrlhf_prm.cli.policy_command import check_urls, policy_run, prm_of, run_command
from openrlhf_prm.cluster.checks import (
    NotSeen,
    TooFewGPUs,
    require_at_least_one,
    require_checkpoint,
)
from openrlhf_prm.cluster.context_length import response_limit
from openrlhf_prm.cluster.dry_run import add_dry_run_flags
from openrlhf_prm.cluster.engine_options import EngineFlags, ServerFlags
from openrlhf_prm.data.prompts import PromptOptions, QuestionTooLong
from openrlhf_prm.generation.rejection_sampling import RankingPRM, RejectionSampling, write_sft_data
from openrlhf_prm.generation.sampler import SamplerOptions
from openrlhf_prm.generation.selection import SelectionOptions
from openrlhf_prm.generation.sft_data import sft_flags
from openrlhf_prm.options import add_flags, build, named_in
from vllm_prm.interrupts import end_as_after_ctrl_c
from vllm_prm.splitters import STEP_SPLITTERS


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="rejection_sample", description="A policy's own best right answers as data for SFT.")
    add = parser.add_argument
    add("--actor.model_name_or_path", required=True, help="checkpoint of the policy")
    add_question_flags(parser)
    add("--data.output", required=True, help="JSONL file of SFT data; samples are kept beside it")
    add_flags(parser, "data", PromptOptions)
    add_flags(parser, "rollout", SamplerOptions, leave_out=("splitter",))
    add("--rollout.concurrency", type=int, default=64, help="questions in flight on each engine")
    add("--rollout.urls", nargs="+", default=[], help="OpenAI-compatible servers of the policy, instead of engines")
    splitter = SamplerOptions().splitter
    add("--steps.splitter", default=splitter, **named_in(STEP_SPLITTERS), help="where a reasoning step ends")
    add("--answers.checker", default="math", help=f"what judges an answer: {CHECKER_HELP}")
    add("--prm.model_name_or_path", help="checkpoint of a process reward model that ranks the right responses")
    add_flags(parser, "prm", ServerFlags)
    add("--prm.family", help="PRM family or FILE.py:Class, where the checkpoint does not tell")
    add_flags(parser, "select", SelectionOptions)
    add_flags(parser, "vllm", EngineFlags)
    add_flags(parser, "prm", EngineFlags)
    add("--train.seed", type=int, default=0, help="seed of the engines")
    add_dry_run_flags(parser)
    return parser


@told_of_disks("rejection_sample")
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    end_as_after_ctrl_c()
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    return run_command(
        "rejection_sample",
        parser,
        args,
        task_of=task_of,
        opened=RejectionSampling.open_samples,
        work=write_sft_data,
        mistakes=(QuestionTooLong, TooFewGPUs, NotSeen),
        report=report,
    )


def report(args: SimpleNamespace, task: RejectionSampling, counts: dict) -> None:
    """Prints the counts as a table, and the summary."""
    print_counts(counts)
    print(json.dumps({**counts, "train_sft": sft_flags(args.data.output, task.run.prompts.apply_chat_template)}))


def task_of(args: SimpleNamespace) -> RejectionSampling:
    """What the flags ask for, with everything checked that can be before an engine starts.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(args, "rollout.concurrency", "data.max_samples")
    check_urls(args)
    prompts = build(PromptOptions, args.data, "data")
    sampling = build(SamplerOptions, args.rollout, "rollout", splitter=args.steps.splitter)
    selection = build(SelectionOptions, args.select, "select")
    policy = args.actor.model_name_or_path
    require_checkpoint("--actor.model_name_or_path", policy)
    prm = prm_of(args)
    for name in ("min_score", "aggregation"):
        if getattr(args.select, name) is not None and prm == RankingPRM():
            raise ValueError(f"--select.{name} needs step scores: --prm.model_name_or_path or --prm.url")
    output = Path(args.data.output)
    if output.is_dir():
        raise ValueError(f"--data.output: {output} is a folder, not a file")
    questions = tuple(questions_of(args))
    if prm.engines is not None:
        texts = [question.question for question in questions]
        reader = (prm.engines.model, prm.engines.max_model_len)
        limit = response_limit(args.rollout.max_new_tokens, sampling.max_new_tokens, *reader, texts)
        sampling = replace(sampling, max_new_tokens=limit)
    run = policy_run(args, questions, prompts)
    return RejectionSampling(run=run, sampling=sampling, selection=selection, prm=prm, output=output)


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
