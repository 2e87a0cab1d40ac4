"""Outcome rewards that end the core of one of two rollout engines, that above them, while the second update's responses
are judged. A file in the folder DEADLY_FOLDER says that it happened: once is enough.
"""

import itertools
import os
import sys
import threading
from pathlib import Path

from openrlhf_prm.answers.outcome import reward_func as judged

sys.path.append(str(Path(__file__).parents[1]))
from engine_cores import engine_cores  # noqa: E402

CALLS, LOCK = itertools.count(1), threading.Lock()
PER_UPDATE = 16  # of an engine


def _first() -> bool:
    """Whether no other engine came here before."""
    try:
        (Path(os.environ["DEADLY_FOLDER"]) / "core").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def reward_func(queries, prompts, labels):
    with LOCK:
        if next(CALLS) == PER_UPDATE + 5 and _first():
            [core] = engine_cores(os.getpid(), 1)
            core.kill()
    return judged(queries, prompts, labels)
