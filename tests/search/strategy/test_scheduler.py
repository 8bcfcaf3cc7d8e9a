"""The scheduler: rungs, which trials stop, and the recipe that always continues."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler

from search.spec.sections import rung_epochs
from search.strategy.scheduler import build_scheduler, replay
from trainable.job import TrialRequest


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


EPOCHS = 9
SCHEDULE: dict[str, Any] = {"max_epochs": EPOCHS, "grace_epochs": 2, "reduction_factor": 2}


class Stub:
    """A trial, as schedulers see it."""

    def __init__(self, name: str) -> None:
        self.trial_id = name
        self.config: dict[str, Any] = {}


def end_of(scheduler: TrialScheduler, name: str, curve: list[float]) -> int:
    """The epoch after which a trial ends, stopped or by itself."""
    trial: Any = Stub(name)
    waiting: Any = SimpleNamespace(get_live_trials=lambda: [SimpleNamespace(status="PENDING")])
    scheduler.on_trial_add(waiting, trial)
    for epoch, score in enumerate(curve, start=1):
        result = {"epoch": epoch, "score": score}
        decision = scheduler.on_trial_result(waiting, trial, result)
        assert decision in (TrialScheduler.CONTINUE, TrialScheduler.STOP)
        if decision == TrialScheduler.STOP:
            break
    scheduler.on_trial_complete(waiting, trial, result)
    return epoch


def curves(count: int, seed: int = 0) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [list(rng.random() + np.cumsum(rng.normal(0, 0.1, EPOCHS))) for _ in range(count)]


def ended_with(ends: list[int], of: list[list[float]]) -> list[FrozenTrial]:
    """Trials of a study with these curves up to these epochs."""
    study = optuna.create_study()
    for curve, end in zip(of, ends, strict=True):
        reported = dict(enumerate(curve[:end], start=1))
        study.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, intermediate_values=reported))
    return study.get_trials()


def rays(name: str, mode: str) -> TrialScheduler:
    """Ray's own, with the same settings."""
    if name == "asha":
        return ASHAScheduler(
            time_attr="epoch", metric="score", mode=mode, max_t=EPOCHS, grace_period=2, reduction_factor=2
        )
    scheduler = MedianStoppingRule(time_attr="epoch", metric="score", mode=mode, grace_period=2)
    scheduler._on_insufficient_samples = lambda *_: TrialScheduler.CONTINUE  # else it pauses the first trials
    return scheduler


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("name", ["asha", "median"])
def test_schedulers_of_ray_decide_as_they_are(name: str, mode: str) -> None:
    """They stand for what others use."""
    ours, theirs = build_scheduler(name=name, mode=mode, **SCHEDULE), rays(name, mode)
    ends = [[end_of(each, str(number), curve) for number, curve in enumerate(curves(40))] for each in (ours, theirs)]

    assert ends[0] == ends[1]
    assert {2, EPOCHS} < set(ends[0])


@pytest.mark.parametrize("name", ["halving", "asha", "median"])
def test_resumed_search_is_as_strict(name: str) -> None:
    """A scheduler that knows nothing would let the next trials run to their ends."""
    seen, new = curves(20), curves(20, seed=1)
    uninterrupted, resumed = build_scheduler(name=name, **SCHEDULE), build_scheduler(name=name, **SCHEDULE)
    ends = [end_of(uninterrupted, f"seen-{number}", curve) for number, curve in enumerate(seen)]
    replay(resumed, ended_with(ends, seen))

    assert [end_of(resumed, str(number), curve) for number, curve in enumerate(new)] == [
        end_of(uninterrupted, str(number), curve) for number, curve in enumerate(new)
    ]


def test_an_interrupted_trial_is_compared_once_at_each_rung() -> None:
    """Its scores of later epochs, after it is resumed, are none of the rungs that it has passed."""
    study = optuna.create_study()
    for state, reported in (
        (TrialState.COMPLETE, dict.fromkeys(range(1, 10), 0.4)),
        (TrialState.RUNNING, {2: 0.5, 6: 0.6}),  # passed the rung at 2
        (TrialState.RUNNING, {2: 0.1}),  # was to stop there
    ):
        value = 0.4 if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, intermediate_values=reported))
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=9, grace_epochs=2, reduction_factor=4)
    replay(scheduler, study.get_trials())

    def report(number: int, epoch: int, score: float) -> str:
        trial: Any = Stub(f"resumed-{number}")
        trial.config = TrialRequest(name="", number=number).as_plain()
        return scheduler.on_trial_result(None, trial, {"epoch": epoch, "score": score})  # type: ignore[arg-type]

    assert report(1, 6, 0.6) == TrialScheduler.CONTINUE  # a repeated epoch
    assert report(1, 7, 0.9) == TrialScheduler.CONTINUE
    assert report(2, 3, 0.95) == TrialScheduler.STOP
    assert report(3, 2, 0.55) == TrialScheduler.CONTINUE  # the best one at 2


def test_an_interrupted_trial_is_not_compared_with_later_ones_where_it_continued() -> None:
    """It passed that rung when it was the best one there; a late start of the others must not end it."""
    study = optuna.create_study()
    for state, reported in (
        (TrialState.RUNNING, {3: 0.5, 9: 0.9, 10: 0.91}),
        (TrialState.COMPLETE, {3: 0.6}),
        (TrialState.COMPLETE, {3: 0.7}),
    ):
        value = 0.6 if state == TrialState.COMPLETE else None
        study.add_trial(create_trial(state=state, value=value, intermediate_values=reported))
    scheduler = build_scheduler(metric="score", mode="max", max_epochs=27, grace_epochs=3, reduction_factor=3)
    replay(scheduler, study.get_trials())

    trial: Any = Stub("resumed")
    trial.config = TrialRequest(name="", number=0).as_plain()
    decision = scheduler.on_trial_result(None, trial, {"epoch": 11, "score": 0.92})  # type: ignore[arg-type]
    assert decision == TrialScheduler.CONTINUE


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize("name", ["halving", "asha", "median"])
def test_trials_that_are_not_trained_are_not_compared(name: str, replayed: bool) -> None:
    """With a grace of one epoch, they would be at the first rung, and any other trial better than they are."""
    settings = {**SCHEDULE, "grace_epochs": 1}
    with_them, without = build_scheduler(name=name, **settings), build_scheduler(name=name, **settings)
    excluded = {"epoch": 1, "score": 0.0, "outcome": "constraint"}
    attributes = {"outcome": "constraint"}
    study = optuna.create_study()
    for number in range(20):
        if replayed:
            values = {1: 0.0}
            past = create_trial(state=TrialState.COMPLETE, value=0.0, intermediate_values=values, user_attrs=attributes)
            study.add_trial(past)
        else:
            trial: Any = Stub(f"excluded-{number}")
            with_them.on_trial_add(None, trial)  # type: ignore[arg-type]
            assert with_them.on_trial_result(None, trial, excluded) == TrialScheduler.CONTINUE  # type: ignore[arg-type]
            with_them.on_trial_complete(None, trial, excluded)  # type: ignore[arg-type]
    replay(with_them, study.get_trials())

    both = (with_them, without)
    ends = [[end_of(each, str(number), curve) for number, curve in enumerate(curves(20))] for each in both]
    assert ends[0] == ends[1]


def test_no_trial_is_stopped_by_none() -> None:
    """Every trial is worth all of its epochs to whoever asks for this."""
    scheduler = build_scheduler(name="none", **SCHEDULE)
    replay(scheduler, ended_with([EPOCHS] * 5, curves(5)))

    assert {end_of(scheduler, str(number), curve) for number, curve in enumerate(curves(20))} == {EPOCHS}


@pytest.mark.parametrize("name", ["halving", "asha", "median", "none"])
def test_order_of_starts_is_left_to_tune(name: str) -> None:
    """A trial that the scheduler chooses would take the process of one that ended, and end its own, which starts."""
    waiting: Any = SimpleNamespace(get_trials=lambda: [SimpleNamespace(status="PENDING")])

    assert build_scheduler(name=name, **SCHEDULE).choose_trial_to_run(waiting) is None


def test_median_ignores_a_trial_that_reported_nothing() -> None:
    """Its end has no epoch, at which every later comparison would fail."""
    scheduler, silent = build_scheduler(name="median", **SCHEDULE), Stub("silent")
    scheduler.on_trial_add(None, silent)  # type: ignore[arg-type]
    scheduler.on_trial_complete(None, silent, {"done": True})  # type: ignore[arg-type]

    ends = [end_of(scheduler, str(number), [1 - number / 10] * EPOCHS) for number in range(5)]
    assert ends == [EPOCHS] * 3 + [2] * 2
