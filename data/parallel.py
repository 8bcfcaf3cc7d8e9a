"""Work in parallel: a few calls ahead in threads, or a pool of processes that end with the command."""

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
        calls: safe to run at the same time in several threads.
        depth: at least 1; so many results, and the one that was yielded last, are in memory.

    Raises:
        Exception: the first one that a call raised, in place of its result.
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
        # A consumer that stops early does not wait for calls that have not started.
        pool.shutdown(wait=True, cancel_futures=True)


def open_pool(processes: int) -> ProcessPoolExecutor:
    """A pool of processes with one core each. They ignore Ctrl-C, which their parent handles, and end with it."""
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
