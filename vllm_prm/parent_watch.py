"""An engine ends with the process that started it.

vLLM runs an engine's core in a process of its own. Where the process above it is killed - by Ray, when memory runs out,
above all - the core lives on and keeps its memory, and what is started in its place finds none. So who starts an
engine asks for it (`end_engines_with_this_process`), and each process of that engine looks once a second whether its
parent is still there. vLLM loads `vllm_prm.register` in every one of them. An actor looks after its node's Ray in the
same way (`end_with_parent`).
"""

import os
import threading
import time

VARIABLE = "VLLM_PRM_END_WITH"
"""Environment variable: id of the process with which the engines below it end."""

INTERVAL_S = 1.0


def end_engines_with_this_process() -> None:
    """Engines that are started from here on end when this process does, however it ends."""
    os.environ[VARIABLE] = str(os.getpid())


def follow_parent() -> None:
    """In a process below one that asked for it: ends this process soon after its parent has ended. Else nothing."""
    if os.environ.get(VARIABLE) not in (None, str(os.getpid())):
        end_with_parent()


def end_with_parent() -> None:
    """This process ends soon after the one that started it, even where a thread of its own hangs, which Python waits
    for at its end.
    """
    threading.Thread(target=_follow, args=(os.getppid(),), name="follow_parent", daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent and parent != 1:
        time.sleep(INTERVAL_S)
    os._exit(1)
