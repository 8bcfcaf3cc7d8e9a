"""The state of a search, counted from its study and from what its trials report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import optuna
import pytest

from search.results.tally import RunPlan, Tally
from search.study.trials import note_epoch, note_failure, note_start, trial_records
from tests.search.conftest import CONFIGURATION
from trainable.metrics.names import CONSTRAINT, TRAINED
from trainable.report import TrialReport

PLAN = RunPlan(name="s", trials=6, epochs=3, rungs=(1, 3), hours=1.0)
SLOTS = {"concurrent": 2, "cpus": 2, "gpus": 0.5}


def metrics(score: float) -> dict[str, float]:
    return {"score": score, "seconds": 10.0, "samples_per_second": 50.0}


def add(study: optuna.Study, scores: Sequence[float], *, ends: bool = True, outcome: str = TRAINED) -> optuna.Trial:
    """A trial of a study with these scores by epoch."""
    trial = study.ask()
    note_start(trial, CONFIGURATION.model_dump())
    for epoch, score in enumerate(scores, start=1):
        note_epoch(trial, TrialReport(epoch=epoch, metrics=metrics(score), outcome=outcome))
    if ends:
        study.tell(trial, max(scores, default=0.0))
    return trial


@pytest.fixture
def study() -> optuna.Study:
    """Trials that ended in another order than they started, one that failed, and one that runs."""
    study = optuna.create_study(direction="maximize")
    slow = add(study, [0.1, 0.3, 0.6], ends=False)
    add(study, [0.2])
    add(study, [0.9], outcome=CONSTRAINT)
    study.tell(slow, 0.6)
    failed = add(study, [], ends=False)
    note_failure(failed, "a bug")
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    add(study, [0.5, 0.4], ends=False)
    return study


def test_the_study_and_the_reports_give_the_same_state(study: optuna.Study) -> None:
    """What the running command shows is what another terminal shows."""
    told = Tally(PLAN)
    told.start(0, config=CONFIGURATION.model_dump())
    told.start(1)
    told.report(1, 1, metrics(0.2))
    told.end(1, "stopped")
    told.start(2)
    told.report(2, 1, metrics(0.9), counts=False)
    told.end(2, "constraint")
    for epoch, score in enumerate((0.1, 0.3, 0.6), start=1):
        told.report(0, epoch, metrics(score))
    told.report(0, 3, metrics(0.6))  # repeated after a crash
    told.end(0, "finished")
    told.start(3)
    told.end(3, "failed")
    told.start(4)
    told.report(4, 1, metrics(0.5))
    told.report(4, 2, metrics(0.4))
    read = Tally(PLAN, trial_records(study))
    read.start(4)

    assert told.status(seconds=60.0, slots=SLOTS) == read.status(seconds=60.0, slots=SLOTS)


def test_what_a_state_tells(study: optuna.Study) -> None:
    """A score outside the limits is not the best; the scores are in the order in which trials ended."""
    tally = Tally(PLAN, trial_records(study))
    tally.start(4)
    found = tally.status(seconds=1800.0, slots=SLOTS)

    assert found.trials == {
        "running": 1,
        "finished": 1,
        "stopped": 1,
        "diverged": 0,
        "constraint": 1,
        "failed": 1,
        "interrupted": 0,
    }
    assert (found.budget.trials, found.budget.max_trials, found.budget.hours) == (4, 6, 0.5)
    assert found.best is not None
    assert (found.best.trial, found.best.epoch, found.best.score) == (0, 3, 0.6)
    assert "debug of width 2" in found.best.settings
    assert found.scores == (0.2, 0.2, 0.6, 0.6, 0.6)
    assert found.rungs == {1: 4, 3: 1}
    assert (found.cpus_busy, found.gpus_busy, found.samples_per_second) == (2, 0.5, 50.0)
    # Trials took 30, 10, 10 and 0 s. One waits; the running one took 20 s, more than their mean, for two epochs.
    assert found.seconds_left == pytest.approx((12.5 + 10) / 2, abs=0.1)


def test_the_time_left_ends_with_the_hours() -> None:
    """Whichever is spent first ends the search."""
    tally = Tally(PLAN)
    tally.start(0)
    tally.report(0, 1, metrics(0.5))
    tally.end(0, "stopped")

    assert tally.status(seconds=3599.0, slots=SLOTS).seconds_left == pytest.approx(1.0, abs=0.2)
    assert tally.status(seconds=0.0, slots=SLOTS, state="waiting").seconds_left is None


def test_a_training_is_counted_by_epochs() -> None:
    """Nothing stops it early, so that its end is known after the first epoch."""
    tally = Tally(RunPlan(name="t", kind="train", trials=1, epochs=4, max_epochs=4))
    tally.start(0)
    assert tally.status(seconds=0.0, slots={"concurrent": 2}).seconds_left is None

    for epoch, score in enumerate((0.2, 0.4, 0.3), start=1):
        tally.report(0, epoch, metrics(score))
    found = tally.status(seconds=30.0, slots={"concurrent": 2})
    assert (found.epochs, found.max_epochs, found.seconds_left) == (3, 4, 10.0)
    assert found.scores == (0.2, 0.4, 0.3)


def test_the_time_left_counts_until_the_next_rung() -> None:
    """Trials that were stopped early say little about one that is not."""
    tally = Tally(replace(PLAN, rungs=(1, 3, 9), trials=2))
    for number, epochs in ((0, 1), (1, 3)):
        tally.start(number)
        for epoch in range(1, epochs + 1):
            tally.report(number, epoch, metrics(0.5))
    tally.end(0, "stopped")

    assert tally.status(seconds=40.0, slots=SLOTS).seconds_left == pytest.approx(6 * 10.0)
