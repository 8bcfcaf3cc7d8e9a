"""A pool of processes that a command works with: they end with it, also when it is killed."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from signal import SIG_IGN, SIGINT, signal

import cv2


def open_pool(processes: int) -> ProcessPoolExecutor:
    """Processes of one core each; Ctrl-C is their parent's to answer."""
    # Spawned, not forked: the parent may hold threads of other libraries.
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    cv2.setNumThreads(1)
    signal(SIGINT, SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
