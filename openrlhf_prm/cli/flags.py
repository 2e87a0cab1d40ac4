"""Dotted flags in OpenRLHF's style, with errors of one line."""

import argparse
import sys
from types import SimpleNamespace
from typing import NoReturn


class FlagParser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are one line on stderr; exit code 2. Flags cannot be abbreviated."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, formatter_class=argparse.ArgumentDefaultsHelpFormatter, **options)

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
