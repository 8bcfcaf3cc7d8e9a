"""Progress of a search on the terminal."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from optuna.trial import create_trial
from ray.tune.experiment import Trial
from rich.console import Console

from data.errors import NodeDrainedError
from search.commands import JOB_VARIABLE
from search.run.progress import JobNote, MachineChange, SearchProgress
from search.study.trials import TrialRecord
from search.terminal import Screen
from trainable.metrics.objective import Objective


class _Unlooked(list[Trial]):
    """Tune's list of every trial there ever was."""

    def __iter__(self) -> Iterator[Trial]:
        raise AssertionError("a report costs more the longer the search")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def progress(notes: list[str]) -> SearchProgress:
    screen = Screen(Console(file=io.StringIO()))
    return SearchProgress(screen, lambda _, note: notes.append(note), max_epochs=3)


def _trial(number: int) -> Trial:
    stub = SimpleNamespace(trial_id=f"t{number}", config={"number": number}, last_result={}, error_file=None)
    return cast("Trial", stub)


def _result(score: float) -> dict[str, Any]:
    return {"score": score, "epoch": 1}


def test_note_shows_running_trials_and_best_score(progress: SearchProgress, notes: list[str]) -> None:
    """People judge by it whether a search is alive."""
    trials = [_trial(number) for number in range(3)]
    for trial in trials:
        progress.on_trial_start(0, trials, trial)
    progress.on_trial_result(1, trials, trials[0], _result(0.25))
    progress.on_trial_result(2, trials, trials[1], _result(0.125))
    progress.on_trial_complete(3, trials, trials[0])
    progress.on_trial_error(4, trials, trials[1])
    counts = ["3", "3", "2", "1"]
    assert notes == [f"{count} running, best score 0.2500" for count in counts]


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
    progress = SearchProgress(Screen(Console(file=said)), lambda *_: None, max_epochs=3)
    (tmp_path / "error.txt").write_text("Failure # 1\nTraceback (most recent call last):\nValueError: a bug\n")
    trial.error_file = str(tmp_path / "error.txt")  # type: ignore[misc]
    progress.on_trial_error(0, [trial], trial)

    assert said.getvalue() == "trial 3: failed: ValueError: a bug\n"


def test_a_trial_that_moves_from_a_drained_node_says_so(tmp_path: Path) -> None:
    """It is no failure, and the user sees what the notice for the node led to."""
    output = io.StringIO()
    progress = SearchProgress(Screen(Console(file=output)), lambda _count, _note: None, max_epochs=3)
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
    progress = SearchProgress(Screen(Console(file=said)), lambda *_: None, max_epochs=3, earlier=[earlier])
    progress.on_trial_start(0, [trial], trial)
    result = _result(0.5) | {"epoch": 3}
    progress.on_trial_result(0, [trial], trial, result)
    trial.last_result = result
    progress.on_trial_complete(0, [trial], trial)

    assert said.getvalue() == f"trial {earlier.number}: score 0.7500 at epoch 2\n"


def test_report_does_not_read_earlier_trials(progress: SearchProgress, notes: list[str]) -> None:
    """Or what all reports cost would grow as the square of their number."""
    trial, past = _trial(0), _Unlooked()
    progress.on_trial_start(0, past, trial)
    progress.on_trial_result(1, past, trial, _result(0.5))
    progress.on_trial_complete(2, past, trial)
    assert len(notes) == 2


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
    progress = SearchProgress(Screen(Console(file=written, width=200)), lambda *_: None, max_epochs=3)
    progress.on_trial_result(
        1, [], _trial(4), {**_result(0.5), "note": "the file 'x' is missing; the trial starts over"}
    )
    progress.on_trial_result(2, [], _trial(4), {**_result(0.5), "note": ""})

    assert written.getvalue() == "trial 4: the file 'x' is missing; the trial starts over\n"


def test_progress_and_the_note_of_the_job_follow_the_objective(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar, the line of an ended trial and the Ray dashboard name the metric that decides."""
    output, notes, noted = io.StringIO(), [], []
    monkeypatch.setenv(JOB_VARIABLE, "job")
    monkeypatch.setattr("search.run.progress.update_job", lambda _, values: noted.append(values["best"]))
    objective = Objective.of("-depth_rmse")
    screen = Screen(Console(file=output, width=200))
    callbacks = [
        SearchProgress(screen, lambda _, note: notes.append(note), max_epochs=2, objective=objective),
        JobNote(4, [], objective),
    ]
    for number, errors in enumerate([(0.3, 0.2), (0.4, math.inf), (0.25, 0.1)]):
        trial = _trial(number)
        for callback in callbacks:
            callback.on_trial_start(0, [], trial)
            for epoch, error in enumerate(errors, start=1):
                result = {"score": 0.9, "depth_rmse": error, "epoch": epoch, "outcome": "trained"}
                trial.last_result.update(result)
                callback.on_trial_result(0, [], trial, result)
            callback.on_trial_complete(0, [], trial)

    assert "trial 0: depth_rmse 0.2000 at epoch 2" in output.getvalue()
    assert "trial 1: depth_rmse 0.4000 at epoch 1" in output.getvalue()
    assert notes[-1] == "0 running, best depth_rmse 0.1000"
    assert list(dict.fromkeys(noted)) == [
        "depth_rmse 0.3000, trial 0",
        "depth_rmse 0.2000, trial 0",
        "depth_rmse 0.1000, trial 2",
    ]
