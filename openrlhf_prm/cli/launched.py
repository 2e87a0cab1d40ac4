"""Errors of a command that a launcher (torchrun, deepspeed) starts once per device."""

import os
import sys
import time
from typing import NoReturn

from openrlhf_prm.cli.parser import FlagParser

PATIENCE_S = 60.0


def speaks() -> bool:
    """Whether this is the process of its node that tells the user; always so without a launcher."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class LaunchedParser(FlagParser):
    """A `FlagParser` whose errors, which all processes of a node meet, are said by the first of them.

    A launcher ends the others with the first that ends, so they wait for that; a process that nobody ends in
    `PATIENCE_S` seconds was alone with its error, and says it.
    """

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        if not speaks():
            try:
                time.sleep(PATIENCE_S)
            except KeyboardInterrupt:
                sys.exit(2)
        super().error(message)
