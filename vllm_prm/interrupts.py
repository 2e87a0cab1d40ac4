"""A program that is asked to end, or loses its terminal, ends as after Ctrl-C: with what it has, and its children."""

import signal
import threading


def end_as_after_ctrl_c() -> None:
    """From now on SIGTERM and SIGHUP do what SIGINT does in this process. SIGHUP stays ignored where it is (nohup).

    To be called again after `ray.init`, which takes SIGTERM for itself. Only the main thread can; elsewhere nothing
    happens.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(*_) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a script starts in the background
        raise KeyboardInterrupt
    signal.raise_signal(signal.SIGINT)  # asyncio has a handler of its own
