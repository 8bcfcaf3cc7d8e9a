"""Parallel work: calls ahead of their consumer in threads, or a pool of processes that ends with the command."""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import connection, get_context, parent_process
from signal import SIG_IGN, SIGINT, signal
from typing import TYPE_CHECKING, TypeVar

import cv2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], depth: int) -> Iterator[T]:
    """Yield the results of `calls` in order, while threads run the next `depth` calls.

    Args:
        calls: must be safe to run concurrently.
        depth: >= 1; at most this many results are in memory, besides the last one yielded.

    Raises:
        Exception: the error of a call, when its result is reached.
    """
    pool = ThreadPoolExecutor(depth, thread_name_prefix="ahead")
    pending: deque[Future[T]] = deque()
    try:
        for call in calls:
            pending.append(pool.submit(call))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # If the consumer stops early, calls that have not started are cancelled.
        pool.shutdown(wait=True, cancel_futures=True)


def open_pool(processes: int) -> ProcessPoolExecutor:
    """A pool of single-threaded processes. They ignore Ctrl-C, which the parent handles, and exit with the parent."""
    # Spawned, not forked: the parent may have threads of other libraries.
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_worker)


def _start_worker() -> None:
    cv2.setNumThreads(1)
    signal(SIGINT, SIG_IGN)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with_parent, args=(parent.sentinel,), daemon=True).start()


def _exit_with_parent(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
