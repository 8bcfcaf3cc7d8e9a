"""Signals that end a command: those of a service manager and of a lost terminal have the effect of Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class InterruptedSearchError(RuntimeError):
    """The user pressed Ctrl-C; all results so far are stored."""


def end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP do what Ctrl-C does, so that a search stores its trials and says how to resume it.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. Processes forked from this one have the signals' default
    effect: they end at once. What is written to the terminal after SIGHUP is dropped: it is lost, and writing to it is
    an error.
    """
    terminals = [file for file in range(3) if os.isatty(file)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP and terminals:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for file in terminals:
                os.dup2(nowhere, file)
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):  # as a shell sets it for a command in the background
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)
            # A handler in Python would wait for the end of a system call that the signal came just before.
            os.register_at_fork(after_in_child=partial(signal.signal, number, signal.SIG_DFL))


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore the handlers of SIGINT, SIGTERM and SIGHUP at the end of the context; Ray replaces that of SIGTERM.

    Does nothing outside the main thread, where no handler can be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
