"""Progress of a search on the terminal."""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import create_trial
from ray.tune.experiment import Trial
from rich.console import Console

from data.errors import NodeDrainedError
from search.commands import JOB_VARIABLE
from search.dashboard import JobNote
from search.results.status import Retraining
from search.results.tally import RunPlan, Tally
from search.run.budget import Room
from search.run.progress import MachineChange, SearchProgress, show_retraining
from search.run.tuner import Stopper
from search.study.trials import RETRAINING, WAITING, TrialRecord
from search.terminal import Screen
from search.view import line
from trainable.job import Workers
from trainable.metrics.objective import Objective


class _Unlooked(list[Trial]):
    """Tune's list of every trial there ever was."""

    def __iter__(self) -> Iterator[Trial]:
        raise AssertionError("a report costs more the longer the search")


PLAN = RunPlan(name="s", trials=8, epochs=3, rungs=(1, 3))


@pytest.fixture
def tally() -> Tally:
    return Tally(PLAN)


@pytest.fixture
def progress(tally: Tally) -> SearchProgress:
    return SearchProgress(Screen(Console(file=io.StringIO())), tally)


def _trial(number: int) -> Trial:
    stub = SimpleNamespace(trial_id=f"t{number}", config={"number": number}, last_result={}, error_file=None)
    return cast("Trial", stub)


def _result(score: float) -> dict[str, Any]:
    return {"score": score, "epoch": 1}


def test_running_trials_and_the_best_score_are_counted(progress: SearchProgress, tally: Tally) -> None:
    """People judge by them whether a search is alive."""
    trials = [_trial(number) for number in range(3)]
    counts = []
    for trial in trials:
        progress.on_trial_start(0, trials, trial)
    for event in (
        lambda: progress.on_trial_result(1, trials, trials[0], _result(0.25)),
        lambda: progress.on_trial_result(2, trials, trials[1], _result(0.125)),
        lambda: progress.on_trial_complete(3, trials, trials[0]),
        lambda: progress.on_trial_error(4, trials, trials[1]),
    ):
        event()
        found = tally.status(seconds=0.0)
        assert found.best is not None
        counts.append((found.trials["running"], found.best.score))

    assert counts == [(3, 0.25), (3, 0.25), (2, 0.25), (1, 0.25)]
    assert found.rungs == {1: 2, 3: 0}


def test_another_kind_of_machine_is_reported_once() -> None:
    """There 'auto' may mean another precision: nobody should find that out from the figures."""
    lines = io.StringIO()
    earlier = TrialRecord.of(create_trial(value=0.5, user_attrs={"machine": "EPYC"}))
    changes = MachineChange(Screen(Console(file=lines, width=500)), [earlier], "what that means")
    for number, machine in enumerate(("EPYC", "Xeon", "Xeon", "EPYC")):
        changes.on_trial_result(0, [], _trial(number), _result(0.5) | {"machine": machine, "precision": "fp32"})

    assert lines.getvalue().count("\n") == 1
    assert "trial 1 runs on another kind of machine, Xeon, than earlier trials, EPYC" in lines.getvalue()
    assert "what that means (fp32 here)" in lines.getvalue()


def test_first_machine_is_not_reported() -> None:
    """A new search has nothing to compare with, nor has one that an earlier version began."""
    lines = io.StringIO()
    earlier = TrialRecord.of(create_trial(value=0.5))
    changes = MachineChange(Screen(Console(file=lines)), [earlier], "what that means")
    changes.on_trial_result(0, [], _trial(0), _result(0.5) | {"machine": "Xeon", "precision": "fp32"})

    assert lines.getvalue() == ""


def test_failed_trial_shows_its_reason(tmp_path: Path) -> None:
    """In a line: the traceback lies with the trial."""
    said, trial = io.StringIO(), _trial(3)
    progress = SearchProgress(Screen(Console(file=said)), Tally(PLAN))
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback (most recent call last):\nValueError: a bug\n")
    trial.error_file = str(tmp_path / "error.txt")  # type: ignore[misc]
    progress.on_trial_error(0, [trial], trial)

    assert said.getvalue() == "trial 3: failed: ValueError: a bug\n"


def test_a_trial_that_moves_from_a_drained_node_says_so(tmp_path: Path) -> None:
    """It is no failure, and the user sees what the notice for the node led to."""
    output = io.StringIO()
    progress = SearchProgress(Screen(Console(file=output)), Tally(PLAN))
    trial = cast("Any", _trial(4))
    trial.error_file, trial.last_result = str(tmp_path / "error.txt"), _result(0.5)
    (tmp_path / "error.pkl").write_bytes(pickle.dumps(NodeDrainedError("the node is drained")))
    progress.on_trial_recover(1, [trial], trial)
    assert "trial 4 moves after epoch 1: its node is drained" in output.getvalue()


def test_a_resumed_trial_keeps_its_best_epoch() -> None:
    """Its best epoch may lie before the interruption, and its checkpoint is the one that is exported."""
    metrics = {"metrics": {"score": 0.75}, "checkpoint": None}
    earlier = TrialRecord.of(create_trial(value=0.75, user_attrs={"epoch:2": metrics}))
    said, trial = io.StringIO(), _trial(earlier.number)
    progress = SearchProgress(Screen(Console(file=said)), Tally(PLAN, [earlier]))
    progress.on_trial_start(0, [trial], trial)
    result = _result(0.5) | {"epoch": 3}
    progress.on_trial_result(0, [trial], trial, result)
    trial.last_result = result
    progress.on_trial_complete(0, [trial], trial)

    assert said.getvalue() == f"trial {earlier.number}: score 0.7500 at epoch 2\n"


def test_report_does_not_read_earlier_trials(progress: SearchProgress, tally: Tally) -> None:
    """Or what all reports cost would grow as the square of their number."""
    trial, past = _trial(0), _Unlooked()
    progress.on_trial_start(0, past, trial)
    progress.on_trial_result(1, past, trial, _result(0.5))
    progress.on_trial_complete(2, past, trial)
    assert tally.ended == 1


def test_an_interrupted_trial_goes_on_where_it_was(progress: SearchProgress, tally: Tally) -> None:
    """It has not ended, and its epochs before count."""
    trial = _trial(0)
    progress.on_trial_start(0, [trial], trial)
    progress.on_trial_result(1, [trial], trial, _result(0.5))
    progress.on_experiment_end([trial])
    found = tally.status(seconds=0.0)
    assert (found.trials["running"], found.trials["interrupted"], found.budget.trials) == (0, 1, 0)

    progress.on_trial_start(0, [trial], trial)
    found = tally.status(seconds=0.0)
    assert (found.trials["running"], found.trials["interrupted"], found.rungs) == (1, 0, {1: 1, 3: 0})


class _Cluster:
    """A cluster that may have no room, and a clock."""

    def __init__(self) -> None:
        self.shortage, self.now = "", 0.0


def test_a_search_without_room_says_why() -> None:
    """Nothing happens for as long as other searches use the cluster; what happens then is not a fault."""
    said, study, cluster = io.StringIO(), optuna.create_study(), _Cluster()
    screen = Screen(Console(file=said, width=200))
    room = Room(screen, study, Workers(), shortage=lambda _: cluster.shortage, clock=lambda: cluster.now)
    cluster.shortage = "it needs 1 CPU, and 0 of 2 CPU are free"
    room.on_step_begin(0, [])
    assert (room.reason, said.getvalue()) == ("", "")  # a process takes a while to start

    for cluster.now in (20.0, 40.0, 60.0):
        room.on_step_begin(1, [])
    assert study.user_attrs[WAITING] == room.reason == cluster.shortage
    assert said.getvalue() == f"waits for room on the cluster: {cluster.shortage}\n"

    room.on_trial_start(2, [], _trial(0))
    cluster.now = 100.0
    room.on_step_begin(3, [])
    assert study.user_attrs[WAITING] == room.reason == ""


def test_a_lost_driver_leaves_no_reason_to_wait() -> None:
    """The next one looks for itself."""
    study = optuna.create_study()
    study.set_user_attr(WAITING, "it needs 1 CPU")
    Room(Screen(Console(file=io.StringIO())), study, Workers())

    assert study.user_attrs[WAITING] == ""


def test_a_retraining_says_how_far_it_is() -> None:
    """Also to other terminals, which read the study."""
    study, now = optuna.create_study(), time.monotonic()
    seconds = {"train_loss": 0.5, "seconds": 2.0, "samples_per_second": 100.0}
    written = io.StringIO()
    shown = show_retraining(
        Screen(Console(file=written, width=200)),
        study,
        PLAN,
        Workers(cpus=2),
        Stopper(),
        lambda: time.monotonic() - now,
        done=0,
        epochs=4,
    )
    with shown as [progress, _room]:
        progress.on_trial_result(0, [], _trial(0), {"epoch": 1, **seconds})

    assert "retraining: epoch 1 of 4, training loss 0.5000, 100 samples/s" in written.getvalue()
    assert "about 6 s left" in written.getvalue()
    found = Retraining(**study.user_attrs[RETRAINING])
    assert (found.epoch, found.epochs, found.cpus, found.seconds_left) == (1, 4, 2, 6.0)


def test_progress_bar_continues_after_resume(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts what was done before; the time that is left is of what was done since."""
    now = [100.0]
    monkeypatch.setattr("search.terminal.time.monotonic", lambda: now[0])
    written = io.StringIO()
    screen = Screen(Console(file=written, width=200))
    with screen.bar("searching", 12, "trials", done=8, note="best score 0.5000") as move:
        now[0] = 130.0
        move(1, "1 running, best score 0.5000")

    assert written.getvalue() == (
        "searching: 9/12 trials, 30 s so far, about 1 min 30 s left; 1 running, best score 0.5000\n"
    )


def test_damaged_newest_checkpoint_is_reported() -> None:
    """Otherwise its curve would silently start again."""
    written = io.StringIO()
    progress = SearchProgress(Screen(Console(file=written, width=200)), Tally(PLAN))
    progress.on_trial_result(
        1, [], _trial(4), {**_result(0.5), "note": "the file 'x' is missing; the trial starts over"}
    )
    progress.on_trial_result(2, [], _trial(4), {**_result(0.5), "note": ""})

    assert written.getvalue() == "trial 4: the file 'x' is missing; the trial starts over\n"


def test_progress_and_the_note_of_the_job_follow_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar, the line of an ended trial and the Ray dashboard name the metric that decides."""
    output, noted = io.StringIO(), []
    monkeypatch.setenv(JOB_VARIABLE, "job")
    monkeypatch.setattr("search.dashboard.update_job", lambda _, values: noted.append(values["best"]))
    objective = Objective.of("-depth_rmse")
    screen = Screen(Console(file=output, width=200))
    tally = Tally(RunPlan(name="first", trials=4, epochs=2, objective=objective))
    callbacks = [SearchProgress(screen, tally), JobNote(tally)]
    for number, errors in enumerate([(0.3, 0.2), (0.4, math.inf), (0.25, 0.1)]):
        trial = _trial(number)
        for callback in callbacks:
            callback.on_trial_start(0, [], trial)
        for epoch, error in enumerate(errors, start=1):
            result = {"score": 0.9, "depth_rmse": error, "epoch": epoch, "outcome": "trained"}
            trial.last_result.update(result)
            for callback in callbacks:
                callback.on_trial_result(0, [], trial, result)
        for callback in callbacks:
            callback.on_trial_complete(0, [], trial)

    assert "trial 0: depth_rmse 0.2000 at epoch 2" in output.getvalue()
    assert "trial 1: depth_rmse 0.4000 at epoch 1" in output.getvalue()
    assert line(tally.status(seconds=1.0)).startswith(
        "searching: 3 of 4 trials ended, best depth_rmse 0.1000 of trial 2"
    )
    assert list(dict.fromkeys(noted)) == [
        "depth_rmse 0.3000, trial 0",
        "depth_rmse 0.2000, trial 0",
        "depth_rmse 0.1000, trial 2",
    ]
