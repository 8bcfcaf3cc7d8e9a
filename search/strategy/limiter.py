"""A limit on concurrent trials that follows the cluster while a search runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune.search import ConcurrencyLimiter, Searcher

from search.driver import DriverOnly

REFRESH_SECONDS = 5.0
"""How often the number of slots is read; a new node gets trials within this time and the start of a process."""


class SlotLimiter(DriverOnly, ConcurrencyLimiter):
    """Proposes no trial while as many run as there are slots.

    A number that falls stops no trial: no new one starts until enough have ended.

    Args:
        searcher: proposes the trials.
        slots: callback for the number of trials that may run at a time; at least 1.
        clock: returns seconds.
    """

    def __init__(
        self, searcher: Searcher, slots: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(searcher, max_concurrent=max(1, slots()))
        self._slots = slots
        self._clock = clock
        self._read = clock()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The searcher's next proposal; None if all slots are taken."""
        if self._clock() - self._read >= REFRESH_SECONDS:
            self._read = self._clock()
            self.max_concurrent = max(1, self._slots())
        suggestion: dict[str, Any] | None = super().suggest(trial_id)
        return suggestion

    def get_state(self) -> dict[str, Any]:
        """Nothing: a resumed search reads its study."""
        return {}
