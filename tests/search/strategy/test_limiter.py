"""The limit on concurrent trials."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from search.strategy.limiter import REFRESH_SECONDS, SlotLimiter


class _Counting(Searcher):
    """Proposes its number of proposals."""

    def __init__(self) -> None:
        super().__init__(metric="score", mode="max")
        self.proposed = 0

    def suggest(self, trial_id: str) -> dict[str, Any]:
        self.proposed += 1
        return {"number": self.proposed, "id": trial_id}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass


def test_the_limit_follows_the_cluster() -> None:
    """New nodes get trials; when nodes leave, no new trial starts until enough have ended, and none is stopped."""
    now, slots = [0.0], [1]
    limiter = SlotLimiter(_Counting(), lambda: slots[0], clock=lambda: now[0])

    assert limiter.suggest("a") is not None
    assert limiter.suggest("b") is None

    slots[0], now[0] = 3, REFRESH_SECONDS
    assert limiter.suggest("b") is not None
    assert limiter.suggest("c") is not None
    assert limiter.suggest("d") is None

    slots[0], now[0] = 1, 2 * REFRESH_SECONDS
    limiter.on_trial_complete("a")
    assert limiter.suggest("d") is None
    limiter.on_trial_complete("b")
    limiter.on_trial_complete("c")
    assert limiter.suggest("d") is not None


def test_the_cluster_is_not_asked_at_each_proposal() -> None:
    """Tune asks for one many times a second."""
    asked = []
    limiter = SlotLimiter(_Counting(), lambda: len(asked) or asked.append(1) or 1, clock=lambda: 0.0)
    for _ in range(100):
        limiter.suggest("a") if not limiter.live_trials else limiter.suggest("b")

    assert len(asked) == 1
