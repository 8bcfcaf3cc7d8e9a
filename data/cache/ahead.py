"""Calls made in threads before their results are needed: files are read while what came before is decoded."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")


def ahead(calls: Iterable[Callable[[], T]], depth: int) -> Iterator[T]:
    """Results of `calls` in their order, while the next `depth` ones are under way.

    Args:
        calls: safe to make at once in several threads.
        depth: at least 1; so many results, and the one that is worked on, are in memory.

    Raises:
        Exception: the first that a call raised, in place of its result.
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
        # Whoever stops early, or is interrupted, does not wait for what has not begun.
        pool.shutdown(wait=True, cancel_futures=True)
