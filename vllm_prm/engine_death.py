"""A server whose engine died ends with an exit code that says so, for whoever would start it again.

vLLM's server ends with 0 then, as after SIGTERM. What tells the two apart is who stops the engine: a signal stops it
first, from a thread, and then the server; after a death the server ends first, and its main thread cleans up.
"""

import atexit
import functools
import os
import sys
import threading
from typing import Any

EXIT_CODE = 1


def fail_with(client: Any) -> None:
    """From now on this process exits with `EXIT_CODE` where the engine behind `client` had died before anybody stopped
    it.
    """
    stop, asked = client.shutdown, threading.Event()

    @functools.wraps(stop)
    def shutdown(*args: Any, **kwargs: Any) -> None:
        if threading.current_thread() is not threading.main_thread():
            asked.set()
        elif not asked.is_set() and client.errored:
            atexit.register(_fail)
        asked.set()
        stop(*args, **kwargs)

    client.shutdown = shutdown


def _fail() -> None:
    print("vllm-prm serve: the engine died, so the server ends", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_CODE)
