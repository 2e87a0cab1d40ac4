"""Dotted flags in OpenRLHF's style, with errors of one line."""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

from openrlhf_prm.answers.checkers import ANSWER_CHECKERS, answer_checker
from openrlhf_prm.data.questions import Question, read_questions
from vllm_prm.disk import ONCE_MORE, disk_fault

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


def told_of_disks(module: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Decorates `main` of a command that writes files: a full disk is one line, exit code 1."""

    def decorate(main: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(main)
        def told(argv: list[str] | None = None) -> int:
            try:
                return main(argv)
            except Exception as error:
                fault = disk_fault(error)
                if fault is None:
                    raise
                print(f"{program_name(module)}: error: {fault}; {ONCE_MORE}", file=sys.stderr)
                return 1

        return told

    return decorate


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
