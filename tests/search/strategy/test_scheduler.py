"""The scheduler: rungs, which trials stop, and the recipe that always continues."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.trial import TrialState, create_trial

from search.spec.sections import rung_epochs
from search.strategy.scheduler import build_scheduler, replay


@pytest.mark.parametrize(
    ("max_epochs", "grace_epochs", "factor", "rungs"),
    [
        (9, 1, 3, [1, 3, 9]),
        (81, 1, 3, [1, 3, 9, 27, 81]),
        (10, 1, 3, [1, 3, 9, 10]),
        (16, 2, 4, [2, 8, 16]),
        (1, 1, 3, [1]),
        (5, 5, 2, [5]),
        (4, 3, 2, [3, 4]),
    ],
)
def test_rungs_grow_by_the_reduction_factor(
    max_epochs: int, grace_epochs: int, factor: float, rungs: list[int]
) -> None:
    """Checkpoints are due at these epochs, and the searcher uses their scores."""
    assert rung_epochs(max_epochs=max_epochs, grace_epochs=grace_epochs, reduction_factor=factor) == rungs


@pytest.mark.parametrize(("max_epochs", "grace_epochs", "factor"), [(9, 1, 3), (16, 2, 4), (20, 1, 2.5), (30, 2, 1.5)])
def test_rungs_are_where_the_scheduler_stops(
    stopped_at: Callable[..., int], max_epochs: int, grace_epochs: int, factor: float
) -> None:
    """The searcher and the scheduler must speak of the same epochs, whatever the factor.

    Each trial of falling worth is stopped at the next rung, so that every rung of the scheduler's shows.
    """
    setting = {"max_epochs": max_epochs, "grace_epochs": grace_epochs, "reduction_factor": factor}
    stops = set()
    for last_good in range(max_epochs + 1):
        scheduler = build_scheduler(metric="score", mode="max", **setting)  # type: ignore[arg-type]
        for number in range(4):
            stopped_at(scheduler, f"good-{number}", [1.0] * max_epochs)
        stops.add(stopped_at(scheduler, "falls", [2.0] * last_good + [0.0] * (max_epochs - last_good)))

    assert rung_epochs(**setting) == sorted(stops)  # type: ignore[arg-type]


def test_bad_trials_stop_and_good_ones_continue(stopped_at: Callable[..., int]) -> None:
    """The point of ASHA: epochs go to those that are worth it."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=1, reduction_factor=3)
    ends = [stopped_at(scheduler, str(score), [score] * 9) for score in (0.9, 0.1, 0.2, 0.3, 0.95, 0.5)]

    assert ends == [9, 1, 1, 1, 9, 1]


def test_scheduler_can_minimise(stopped_at: Callable[..., int]) -> None:
    """The same with an error as the objective."""
    scheduler = build_scheduler(metric="score", mode="min", max_epochs=9, grace_epochs=1, reduction_factor=3)

    assert [stopped_at(scheduler, str(score), [score] * 9) for score in (0.1, 0.9, 0.05)] == [9, 1, 9]


def test_no_trial_is_stopped_within_its_grace(stopped_at: Callable[..., int]) -> None:
    """A slow start is not held against it."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=3, reduction_factor=3)
    stopped_at(scheduler, "good", [0.9] * 9)

    assert stopped_at(scheduler, "slow", [0.0, 0.0, 0.95, *[0.95] * 6]) == 9
    assert stopped_at(scheduler, "bad", [0.0] * 9) == 3


def test_improving_trials_keep_the_cutoff_strict(stopped_at: Callable[..., int]) -> None:
    """Of good proposals nearly all beat the old quantile: were that enough, all would run to their end."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=1, reduction_factor=3)
    for number in range(10):
        stopped_at(scheduler, f"bad-{number}", [0.1 - number / 100] * 9)
    stopped_at(scheduler, "best", [0.9] * 9)
    ends = [stopped_at(scheduler, f"good-{number}", [0.5 + number / 100] * 9) for number in range(30)]

    assert 8 <= sum(end == 1 for end in ends) <= 22
    assert stopped_at(scheduler, "better", [0.95] * 9) == 9


def test_nan_score_stops_a_trial(stopped_at: Callable[..., int]) -> None:
    """NaN compares as false with everything, so a rule that stops worse scores would let it through."""
    scheduler = build_scheduler(metric="score", mode="min", max_epochs=9, grace_epochs=1, reduction_factor=3)

    assert stopped_at(scheduler, "first", [float("nan")] * 9) == 1
    assert stopped_at(scheduler, "good", [0.5] * 9) == 9


def test_best_recipe_is_not_stopped(stopped_at: Callable[..., int]) -> None:
    """What a search found is held against the best recipe at the same budget, so one must have had all of it."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=1, reduction_factor=3)
    for number in range(6):
        stopped_at(scheduler, f"good-{number}", [0.9] * 9)

    assert stopped_at(scheduler, "a", [0.5] * 9, recipe="a") == 9
    assert stopped_at(scheduler, "b", [0.4] * 9, recipe="b") == 1  # worse than the other recipe
    assert stopped_at(scheduler, "c", [0.6, 0.6, 0.3, *[0.3] * 6], recipe="c") == 3  # until it is
    assert stopped_at(scheduler, "proposed", [0.6] * 9) == 1


def test_a_resumed_search_knows_its_recipes(stopped_at: Callable[..., int]) -> None:
    """The best recipe of all runs continues, not the best since the search was resumed."""
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=1, reduction_factor=3)
    curve = dict.fromkeys(range(1, 10), 0.5)
    replay(
        scheduler,
        [
            create_trial(state=TrialState.COMPLETE, value=0.5, intermediate_values=curve, user_attrs={"recipe": "a"}),
            *(create_trial(state=TrialState.COMPLETE, value=0.9, intermediate_values={1: 0.9}) for _ in range(6)),
        ],
    )

    assert stopped_at(scheduler, "b", [0.4] * 9, recipe="b") == 1
    assert stopped_at(scheduler, "c", [0.6] * 9, recipe="c") == 9
