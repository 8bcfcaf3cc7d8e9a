"""Simulated time: events at the times when the trials of asynchronous workers finish their epochs."""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

Event = TypeVar("Event")


class Clock(Generic[Event]):
    """The events ahead; of events at the same time, the one that was added first comes first."""

    def __init__(self) -> None:
        self._ahead: list[tuple[float, int, Event]] = []
        self._order = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._ahead)

    def add(self, time: float, event: Event) -> None:
        """Add an event."""
        heapq.heappush(self._ahead, (time, next(self._order), event))

    def next(self) -> tuple[float, Event]:
        """Remove the next event; its time, and the event."""
        time, _, event = heapq.heappop(self._ahead)
        return time, event
