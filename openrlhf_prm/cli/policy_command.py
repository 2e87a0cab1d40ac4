"""What the commands share that let a policy write about questions into a file that is continued after a kill."""

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from openrlhf_prm.annotation.policy_run import PolicyRun
from openrlhf_prm.annotation.url_engine import API_KEY
from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.cluster.accelerator import prepare_environment
from openrlhf_prm.cluster.checks import models_beside, require_checkpoint, require_family, require_urls
from openrlhf_prm.cluster.dry_run import asked_for
from openrlhf_prm.cluster.engine_options import SERVER_FLAGS, EngineFlags, ServerFlags
from openrlhf_prm.cluster.engine_preflight import dry_run_engines
from openrlhf_prm.cluster.remote_scorer import check_servers
from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.rejection_sampling import RankingPRM
from openrlhf_prm.options import build, refuse_unread


def run_command(
    name: str,
    parser: FlagParser,
    args: SimpleNamespace,
    *,
    task_of: Callable[[SimpleNamespace], Any],
    opened: Callable[[Any], Any],
    work: Callable[[Any, Any], dict],
    mistakes: Sequence[type[Exception]],
    report: Callable[[SimpleNamespace, Any, dict], None],
) -> int:
    """Runs the command `name`; returns its exit code. `task_of` reads the flags, `opened` gives a task's file, `work`
    the counts of what was written into it, `report` says them. `mistakes`: errors of `work` that are one line of the
    user's.
    """
    prepare_environment(args.dry_run.on)
    try:
        task = task_of(args)
        if asked_for(args):
            dry_run_engines(args, task.own_engines)
            return 0
    except ValueError as error:
        parser.error(str(error))
    try:
        file = opened(task)
    except ValueError as error:
        parser.error(f"--data.output: {error}")
    with file:
        try:
            counts = work(task, file)
        except tuple(mistakes) as error:
            parser.error(str(error))
        except KeyboardInterrupt:
            kept = f"{len(file.finished)} finished questions are in {file.path}"
            print(f"{name}: interrupted; {kept}; run the same command again to go on", file=sys.stderr)
            return 130
    report(args, task, counts)
    return 0


def check_urls(args: SimpleNamespace) -> None:
    """Raises ValueError where `--rollout.urls` are none, or replace the engines of other flags."""
    require_urls("--rollout.urls", args.rollout.urls, API_KEY)
    if args.rollout.urls:
        refuse_unread(args.vllm, "vllm", {"max_model_len"}, "is of our own engines, which --rollout.urls replace")


def policy_run(args: SimpleNamespace, questions: Sequence[Question], prompts: PromptOptions) -> PolicyRun:
    """The policy of `--actor.*`, `--vllm.*` and `--rollout.urls` at its questions."""
    return PolicyRun(
        questions=tuple(questions),
        prompts=prompts,
        answer_checker=args.answers.checker,
        engines=build(EngineFlags, args.vllm, "vllm").engines(args.actor.model_name_or_path, args.train.seed),
        urls=tuple(args.rollout.urls),
        in_flight=args.rollout.concurrency,
    )


def prm_of(args: SimpleNamespace) -> RankingPRM:
    """The PRM that `--prm.*` names. Raises ValueError naming the flag."""
    model, servers = args.prm.model_name_or_path, build(ServerFlags, args.prm, "prm")
    check_servers(servers, model)
    if model is None:
        refuse_unread(args.prm, "prm", SERVER_FLAGS, "needs --prm.model_name_or_path")
        return RankingPRM(servers=servers)
    require_checkpoint("--prm.model_name_or_path", model)
    require_family(args.prm.family, model)
    beside = models_beside(model, args.prm.family)
    engines = build(EngineFlags, args.prm, "prm").engines(model, args.train.seed, beside=beside)
    return RankingPRM(engines=engines, family=args.prm.family)
