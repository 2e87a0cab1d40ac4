"""Labels the steps of a policy's solutions: `python -m openrlhf_prm.cli.annotate --annotator adaptive ...`.

Reads questions with reference answers (JSONL), samples solutions and continuations with vLLM engines placed by Ray, or
with servers at `--annotation.urls`, and appends step labels to a JSONL file (schema: `openrlhf_prm.annotation.records`)
that `openrlhf_prm.cli.train_prm` trains on. A question is written, and on disk, the moment it is finished; the
questions of an engine that dies are tried again. Started again with the same flags after a kill or Ctrl-C it goes on
where it stopped. The last line on stdout is a JSON summary.

Exit codes: 0 done, 2 a flag or an input row is wrong (said before any engine starts), 130 interrupted.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.annotation import ANNOTATORS
from openrlhf_prm.annotation.labelling import Labelling, label_questions
from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.annotation.rollouts import NoTokenLimit, SamplingOptions
from openrlhf_prm.annotation.url_engine import API_KEY
from openrlhf_prm.cli.parser import (
    CHECKER_HELP,
    FlagParser,
    add_question_flags,
    nested,
    questions_of,
    told_of_disks,
)
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import NotSeen, TooFewGPUs, require_at_least_one, require_checkpoint, require_urls
from openrlhf_prm.cluster.dry_run import add_dry_run_flags, asked_for
from openrlhf_prm.cluster.engine_options import EngineFlags
from openrlhf_prm.cluster.engine_preflight import dry_run_engines
from openrlhf_prm.data.prompts import PromptOptions, QuestionTooLong
from openrlhf_prm.options import add_flags, build, named_in, option_fields, refuse_unread
from vllm_prm.interrupts import end_as_after_ctrl_c
from vllm_prm.splitters import STEP_SPLITTERS

NOT_OF_THE_ANNOTATOR = {"max_new_tokens": "rollout", "splitter": "steps"}
"""Options of an annotator that are flags of another group."""


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="annotate", description="Label the steps of a policy's solutions by Monte Carlo rollouts.")
    add, sampling = parser.add_argument, SamplingOptions()
    add("--annotator", default="math_shepherd", choices=list(ANNOTATORS), help="how steps are labelled")
    add("--actor.model_name_or_path", required=True, help="checkpoint of the policy that writes solutions and rollouts")
    add_question_flags(parser)
    add("--data.output", required=True, help="JSONL file of labelled solutions; an unfinished one is continued")
    add_flags(parser, "data", PromptOptions)
    add("--steps.splitter", default=sampling.splitter, **named_in(STEP_SPLITTERS), help="where a reasoning step ends")
    add("--answers.checker", default="math", help=f"what judges an answer: {CHECKER_HELP}")
    annotators = {name: annotator.Options for name, annotator in ANNOTATORS.items()}
    add_flags(parser, "annotation", annotators, leave_out=NOT_OF_THE_ANNOTATOR)
    add("--annotation.concurrency", type=int, default=64, help="questions in flight on each engine")
    add("--annotation.urls", nargs="+", default=[], help="OpenAI-compatible servers of the policy, instead of engines")
    limit = "token limit of a whole response, its prefix included; without it, what the policy's context leaves"
    add("--rollout.max_new_tokens", type=int, help=limit)
    add_flags(parser, "vllm", EngineFlags)
    add("--train.seed", type=int, default=0, help="seed of the engines")
    add_dry_run_flags(parser)
    return parser


@told_of_disks("annotate")
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    end_as_after_ctrl_c()
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    try:
        labelling = labelling_of(args)
        if asked_for(args):
            dry_run_engines(args, labelling.run.own_engines)
            return 0
    except ValueError as error:
        parser.error(str(error))
    try:
        labels = labelling.open_labels()
    except ValueError as error:
        parser.error(f"--data.output: {error}")
    prepare_environment()
    with labels:
        before = len(labels.finished)
        try:
            summary = label_questions(labelling, labels)
        except (QuestionTooLong, TooFewGPUs, NotSeen, NoTokenLimit) as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            print(
                f"annotate: interrupted, {len(labels.finished) - before} questions finished in this run are in "
                f"{labelling.output}; run the same command again to go on",
                file=sys.stderr,
            )
            return 130
    print(json.dumps(summary))
    return 0


def labelling_of(args: SimpleNamespace) -> Labelling:
    """What the flags ask for, with everything checked that can be before an engine starts.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(
        args,
        *("annotation.concurrency", "rollout.max_new_tokens", "data.max_samples"),
    )
    require_urls("--annotation.urls", args.annotation.urls, API_KEY)
    if args.annotation.urls:
        refuse_unread(args.vllm, "vllm", {"max_model_len"}, "is of our own engines, which --annotation.urls replace")
    prompts = build(PromptOptions, args.data, "data")
    annotator = ANNOTATORS[args.annotator].Options
    read = {*(field.name for field in option_fields(annotator)), "concurrency", "urls"}
    refuse_unread(args.annotation, "annotation", read, f"is no option of --annotator {args.annotator}")
    elsewhere = {name: getattr(getattr(args, group), name) for name, group in NOT_OF_THE_ANNOTATOR.items()}
    options = build(annotator, args.annotation, "annotation", **elsewhere)
    policy = args.actor.model_name_or_path
    require_checkpoint("--actor.model_name_or_path", policy)
    flags = build(EngineFlags, args.vllm, "vllm")
    engines = flags.engines(policy, args.train.seed)
    run = PolicyRun(
        questions=tuple(questions_of(args)),
        prompts=prompts,
        answer_checker=args.answers.checker,
        engines=engines,
        urls=tuple(args.annotation.urls),
        in_flight=args.annotation.concurrency,
    )
    return Labelling(run=run, annotator=args.annotator, options=options, output=Path(args.data.output))


if __name__ == "__main__":
    sys.exit(main())
