"""Every Python process of a run that has this folder in PYTHONPATH kills itself as it is about to open the file DIE_AT.

Python imports this module when it starts.
"""

import os
import signal
import sys


def _look(event: str, arguments: tuple) -> None:
    if event == "open" and arguments[0] == os.environ.get("DIE_AT"):
        os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("DIE_AT"):
    sys.addaudithook(_look)
