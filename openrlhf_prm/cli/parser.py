"""Dotted flags in OpenRLHF's style, with errors of one line."""

import argparse
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

from openrlhf_prm.answers.checkers import ANSWER_CHECKERS, answer_checker
from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.engine_options import EngineOptions
from openrlhf_prm.data.questions import Question, read_questions

CHECKER_HELP = f"{', '.join(ANSWER_CHECKERS)}, a Python file with is_correct(response, label), or FILE.py:NAME"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds defaults to the help; None and False say nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        silent = action.default is None or action.default is False
        return action.help if silent else super()._get_help_string(action)


def program_name(module: str) -> str:
    """How a command of `openrlhf_prm.cli` was called: `openrlhf-prm annotate`, which `openrlhf_prm.cli.main` leaves in
    `sys.argv[0]`, else `python -m openrlhf_prm.cli.annotate`.
    """
    called = os.path.basename(sys.argv[0])
    return called if called.startswith("openrlhf-prm ") else f"python -m openrlhf_prm.cli.{module}"


class FlagParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line on stderr; exit code 2. Flags cannot be abbreviated.

    `prog` is the command's module in `openrlhf_prm.cli`; help and errors name the command as it was called.
    """

    def __init__(self, *, prog: str, **options):
        super().__init__(prog=program_name(prog), allow_abbrev=False, formatter_class=_Formatter, **options)

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        print(f"{self.prog}: error: {message} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


def nested(args: argparse.Namespace) -> SimpleNamespace:
    """`{"adam.lr": 1}` as `args.adam.lr`, the form in which OpenRLHF's classes read their flags."""
    root = SimpleNamespace()
    for name, value in vars(args).items():
        *path, last = name.split(".")
        node = root
        for part in path:
            node = vars(node).setdefault(part, SimpleNamespace())
        setattr(node, last, value)
    return root


def questions_of(args: SimpleNamespace) -> list[Question]:
    """The questions of `--data.input`, with labels that `--answers.checker` can use. Raises ValueError."""
    if not Path(args.data.input).is_file():
        raise ValueError(f"--data.input: no such file: {args.data.input}")
    try:
        is_correct = answer_checker(args.answers.checker)
    except ValueError as error:
        raise ValueError(f"--answers.checker: {error}") from None
    return read_questions(args.data.input, args.data.input_key, args.data.label_key, args.data.max_samples, is_correct)


def add_question_flags(parser: argparse.ArgumentParser) -> None:
    """`--data.*`: the file of questions, and which of its keys and rows are used."""
    add = parser.add_argument
    add("--data.input", required=True, help="JSONL file of questions with reference answers")
    add("--data.input_key", default="question", help="key of the question in an input row")
    add("--data.label_key", default="label", help="key of the reference answer in an input row")
    add("--data.max_samples", type=int, help="use the first N questions only")


ENGINE_GROUPS = {"vllm": "the policy", "prm": "the PRM"}


def add_engine_flags(parser: argparse.ArgumentParser, *groups: str) -> None:
    """`--vllm.*` for the policy's engines and `--prm.*` for the PRM's; both, or those of `groups`."""
    add = parser.add_argument
    for prefix in groups or ENGINE_GROUPS:
        whose = ENGINE_GROUPS[prefix]
        add(f"--{prefix}.num_engines", type=int, default=1, help=f"engines for {whose}")
        add(f"--{prefix}.gpus_per_engine", type=float, default=1.0, help="GPUs that Ray sets aside per engine")
        add(f"--{prefix}.dtype", default="auto", help="data type of weights and computation")
        add(f"--{prefix}.enforce_eager", action="store_true", help="no CUDA graphs, faster start; always so on CPU")
        add(f"--{prefix}.gpu_memory_utilization", type=float, help="share of GPU memory per engine")
        add(f"--{prefix}.max_model_len", type=int, help="context length; shorter than the model's saves memory")


def engine_options(
    model: str, flags: SimpleNamespace, seed: int, tensor_parallel_size: int | None = None
) -> EngineOptions:
    """`EngineOptions` from the flags of a group such as `args.vllm` or `args.prm`; without `tensor_parallel_size` an
    engine takes all of its whole GPUs, with it at least so many.
    """
    if tensor_parallel_size is None:
        tensor_parallel_size = 1 if on_cpu() else max(1, int(flags.gpus_per_engine))
    return EngineOptions(
        model=model,
        num_engines=flags.num_engines,
        gpus=flags.gpus_per_engine if on_cpu() else max(flags.gpus_per_engine, tensor_parallel_size),
        dtype=flags.dtype,
        seed=seed,
        max_model_len=flags.max_model_len,
        enforce_eager=flags.enforce_eager,
        gpu_memory_utilization=flags.gpu_memory_utilization,
        tensor_parallel_size=tensor_parallel_size,
    )
