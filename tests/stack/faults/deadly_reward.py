"""Outcome rewards that end the core of the rollout engine above them while the second update's responses are judged. A
file in the folder DEADLY_FOLDER says that it happened: once is enough.
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
PER_UPDATE = 32


def reward_func(queries, prompts, labels):
    done = Path(os.environ["DEADLY_FOLDER"]) / "core"
    with LOCK:
        if next(CALLS) == PER_UPDATE + 5 and not done.exists():
            done.touch()
            [core] = engine_cores(os.getpid(), 1)
            core.kill()
    return judged(queries, prompts, labels)
