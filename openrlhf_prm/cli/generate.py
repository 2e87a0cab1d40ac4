"""Writes long chains of thought: `python -m openrlhf_prm.cli.generate --scheme deliberate ...`.

Several roles, played by one model or by many, plan, write step by step, criticise, take back and go on; what comes of
it is one first-person text with its detours. Who they are stands in a YAML file (`--print_roles` writes the default).

A finished question is in `OUTPUT.work.jsonl`, and on disk, at once; the same command goes on after a kill and writes
the same bytes. Other limits (`--length.*`) cost no generation. The files that come of it are described in
`openrlhf_prm.generation.chains.work_file`. The last line on stdout is a JSON summary, with the flags for `train_sft`.

Exit codes: 0 done, 2 a flag, a row or the file of roles is wrong (said before any engine starts) or a server does not
answer, 130 interrupted.
"""

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.answers.checkers import answer_checker
from openrlhf_prm.answers.final_answer import extract_answer
from openrlhf_prm.cli.parser import CHECKER_HELP, FlagParser, add_question_flags, nested, questions_of, told_of_disks
from openrlhf_prm.cli.policy_command import check_urls, policy_run, prm_of, run_command
from openrlhf_prm.cluster.checks import NotSeen, TooFewGPUs, require_at_least_one, require_checkpoint
from openrlhf_prm.cluster.dry_run import add_dry_run_flags
from openrlhf_prm.cluster.engine_options import EngineFlags, ServerFlags
from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.evaluation.step_checkers import STEP_CHECKERS
from openrlhf_prm.generation.chains import SCHEMES
from openrlhf_prm.generation.chains.asking import Unreachable
from openrlhf_prm.generation.chains.checks import LengthOptions
from openrlhf_prm.generation.chains.critics import CriticOptions
from openrlhf_prm.generation.chains.generating import generate
from openrlhf_prm.generation.chains.roles import DEFAULT_FILE, POLICY, read_roles
from openrlhf_prm.generation.chains.task import Generation, Judges, PriceOptions
from openrlhf_prm.generation.rejection_sampling import RankingPRM
from openrlhf_prm.generation.sft_data import sft_flags
from openrlhf_prm.options import Options, add_flags, build, option_fields, refuse_unread
from vllm_prm.interrupts import end_as_after_ctrl_c


class _PrintRoles(argparse.Action):
    """Prints the default roles and ends, as `--help` does: no other flag is needed."""

    def __call__(self, parser, *_):
        print(DEFAULT_FILE.read_text(encoding="utf-8"), end="")
        parser.exit()


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="generate", description="Long chains of thought, written by several roles.")
    add = parser.add_argument
    add("--scheme", default="deliberate", choices=list(SCHEMES), help="how a chain is written")
    add("--roles", help="YAML file of roles, over the default ones")
    add("--print_roles", action=_PrintRoles, nargs=0, help="print the default roles as YAML and end")
    add("--actor.model_name_or_path", required=True, help="checkpoint of the policy: writes, counts tokens, is trained")
    add_question_flags(parser)
    add("--data.output", required=True, help="JSONL file of chains; the other files are beside it")
    add_flags(parser, "data", PromptOptions)
    add("--answers.checker", default="math", help=f"what judges an answer: {CHECKER_HELP}")
    add_flags(parser, "chain", {name: scheme.Options for name, scheme in SCHEMES.items()})
    add("--chain.max_calls", type=int, default=200, help="how often roles are asked for one question, at most")
    add_flags(parser, "critic", CriticOptions)
    add("--critic.task", choices=list(STEP_CHECKERS), help="the task whose checker is the exact critic")
    add_flags(parser, "length", LengthOptions)
    add_flags(parser, "price", PriceOptions)
    add("--rollout.concurrency", type=int, default=512, help="questions in flight")
    add("--rollout.urls", nargs="+", default=[], help="OpenAI-compatible servers of the policy, instead of engines")
    add("--rollout.patience_s", type=float, default=300.0, help="seconds that servers may be away before the run ends")
    add_flags(parser, "vllm", EngineFlags)
    add("--prm.model_name_or_path", help="checkpoint of the process reward model that is the critic")
    add_flags(parser, "prm", ServerFlags)
    add("--prm.family", help="PRM family or FILE.py:Class, where the checkpoint does not tell")
    add_flags(parser, "prm", EngineFlags)
    add("--train.seed", type=int, default=0, help="seed of the engines, and of every call with its question's id")
    add_dry_run_flags(parser)
    return parser


@told_of_disks("generate")
def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    end_as_after_ctrl_c()
    parser = build_parser()
    args = nested(parser.parse_args(argv))
    return run_command(
        "generate",
        parser,
        args,
        task_of=task_of,
        opened=Generation.open_work,
        work=generate,
        mistakes=(TooFewGPUs, NotSeen, Unreachable),
        report=report,
    )


def report(args: SimpleNamespace, task: Generation, counts: dict) -> None:
    """Prints the summary."""
    flags = sft_flags(f"{args.data.output}.sft.jsonl", task.run.prompts.apply_chat_template)
    print(json.dumps({**counts, "train_sft": flags}))


def task_of(args: SimpleNamespace) -> Generation:
    """What the flags ask for, with everything checked that can be before an engine starts.

    Raises ValueError naming the flag, or the file and line.
    """
    require_at_least_one(args, "rollout.concurrency", "data.max_samples", "chain.max_calls")
    if not 0 <= args.rollout.patience_s < float("inf"):
        raise ValueError(f"--rollout.patience_s must be at least 0 and finite, got {args.rollout.patience_s}")
    check_urls(args)
    prompts = build(PromptOptions, args.data, "data")
    scheme = SCHEMES[args.scheme].Options
    read = {*(field.name for field in option_fields(scheme)), "max_calls"}
    refuse_unread(args.chain, "chain", read, f"is no option of --scheme {args.scheme}")
    options = read_options(scheme, args.chain, "chain")
    args.critic.kind = critic_kind(args)
    critic = read_options(CriticOptions, args.critic, "critic")
    try:
        book = read_roles(args.roles)
    except ValueError as error:
        raise ValueError(f"--roles: {error}") from None
    policy, output = args.actor.model_name_or_path, Path(args.data.output)
    require_checkpoint("--actor.model_name_or_path", policy)
    prm = prm_of(args)
    if (prm != RankingPRM()) != (critic.kind == "prm"):
        needs = "needs --prm.model_name_or_path or --prm.url" if critic.kind == "prm" else "reads no --prm.* flag"
        raise ValueError(f"--critic.kind {critic.kind} {needs}")
    if output.is_dir():
        raise ValueError(f"--data.output: {output} is a folder, not a file")
    if not getattr(options, "check_answer", True):
        args.data.label_key = None
    run = policy_run(args, questions_of(args), prompts)
    task = Generation(
        run=run,
        book=book,
        scheme=args.scheme,
        options=options,
        critic=critic,
        prm=prm,
        judges=judges_of(args, critic, run),
        length=build(LengthOptions, args.length, "length"),
        price=build(PriceOptions, args.price, "price"),
        max_calls=args.chain.max_calls,
        patience_s=args.rollout.patience_s,
        output=output,
    )
    for options in task.further_engines().values():
        require_checkpoint("--roles: checkpoint", options.model)
    if POLICY not in task.models and args.rollout.urls:
        raise ValueError(f"--rollout.urls: no role speaks through the model {POLICY}")
    return task


def critic_kind(args: SimpleNamespace) -> str:
    """What the flag says, or the scheme's own. Raises ValueError where the scheme has no use for it."""
    kinds = SCHEMES[args.scheme].critics
    if args.critic.kind not in (None, *kinds):
        raise ValueError(f"--critic.kind {args.critic.kind}: --scheme {args.scheme} takes {', '.join(kinds)}")
    return args.critic.kind or kinds[0]


def read_options(options: type, namespace: SimpleNamespace, prefix: str) -> Options:
    """`build`, where an option that the others switch off is an error."""
    built = build(options, namespace, prefix)
    for name, needed in built.unread(prefix).items():
        if getattr(namespace, name) is not None:
            raise ValueError(f"--{prefix}.{name} needs {needed}")
    return built


def judges_of(args: SimpleNamespace, critic: CriticOptions, run: PolicyRun) -> Judges:
    """Who judges without being a model. Raises ValueError naming the flag, or the question that is none of the task."""
    if (critic.kind == "exact") != (args.critic.task is not None):
        raise ValueError("--critic.kind exact and --critic.task go together")
    check = STEP_CHECKERS.get(args.critic.task)
    for question in run.questions if check is not None else ():
        try:
            check(question.question, [])
        except ValueError as error:
            raise ValueError(f"--critic.task {args.critic.task}: question {question.id}: {error}") from None
    is_correct = answer_checker(args.answers.checker)
    return Judges(is_correct=is_correct, final_answer=extract_answer, check_steps=check, task=args.critic.task)


if __name__ == "__main__":
    sys.exit(main())
