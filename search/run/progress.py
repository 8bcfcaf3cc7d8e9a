"""Progress of a search or a training on the screen, as callbacks of Ray Tune."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace

import optuna
from ray.tune.experiment import Trial

from search.driver import TrialCallback, last_report, request_of
from search.live import live
from search.results.status import Retraining, SearchStatus, State
from search.results.tally import INTERRUPTED, RunPlan, Tally
from search.run.budget import Room
from search.run.failures import find_fault, is_drained, last_error, reason_of
from search.run.prepare import uses
from search.run.tuner import Stopper
from search.study.trials import RETRAINING, TrialRecord, trial_records
from search.terminal import Screen
from trainable.job import Workers
from trainable.metrics.names import CONSTRAINT, DIVERGED
from trainable.report import TrialReport

_ON_ANOTHER_MACHINE = (
    "a trial that starts there measures model.precision 'auto' there, one that continues keeps its own"
)
MOVES = "its node is drained"


@contextmanager
def show_trials(
    screen: Screen,
    study: optuna.Study,
    tally: Tally,
    workers: Workers,
    stopper: Stopper,
    seconds: Callable[[], float],
    slots: Callable[[], Mapping[str, float]],
    gpu_seconds: Callable[[], float] = lambda: 0.0,
) -> Iterator[list[TrialCallback]]:
    """Show the trials of a run in a live view within the context.

    Args:
        screen: where they are shown.
        study: of the run.
        tally: has the trials of earlier runs.
        workers: of a trial.
        stopper: of the run.
        seconds: returns those of the run.
        slots: returns the number of concurrent trials, and the CPUs and GPUs of each.
        gpu_seconds: returns those of all trials.

    Yields:
        The callbacks of Tune that update the view.
    """
    room = Room(screen, study, workers)
    if study.user_attrs.get(RETRAINING):
        study.set_user_attr(RETRAINING, None)  # of a run that was interrupted

    def status() -> SearchStatus:
        state, reason = _state(room, stopper)
        return tally.status(state=state, reason=reason, seconds=seconds(), gpu_seconds=gpu_seconds(), slots=slots())

    with live(screen, status) as changed:
        yield [SearchProgress(screen, tally, changed), room]


@contextmanager
def show_retraining(
    screen: Screen,
    study: optuna.Study,
    plan: RunPlan,
    workers: Workers,
    stopper: Stopper,
    seconds: Callable[[], float],
    *,
    done: int,
    epochs: int,
) -> Iterator[list[TrialCallback]]:
    """Show a retraining of `epochs`, of which `done` are complete, in a live view; see `show_trials`."""
    room, tally, used = (
        Room(screen, study, workers),
        Tally(plan, trial_records(study, plan.objective)),
        uses(workers),
    )
    progress = RetrainingProgress(
        screen, study, Retraining(epoch=done, epochs=epochs, cpus=used["cpus"], gpus=used["gpus"])
    )

    def status() -> SearchStatus:
        state, reason = _state(room, stopper)
        return tally.status(state=state, reason=reason, seconds=seconds(), retraining=progress.now)

    with live(screen, status) as progress.changed:
        yield [progress, room]


class SearchProgress(TrialCallback):
    """Counts what trials do, and prints a line for each trial that ended.

    Args:
        screen: where the lines are shown.
        tally: counts the trials; has those of earlier runs.
        changed: called after each change.
    """

    def __init__(self, screen: Screen, tally: Tally, changed: Callable[[], None] = lambda: None) -> None:
        self._screen = screen
        self._tally = tally
        self._changed = changed

    def started(self, trial: Trial) -> None:
        """Count the trial as running."""
        request = request_of(trial)
        self._tally.start(_number(trial), recipe=request.recipe, config=request.trial)

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Count the epoch."""
        if report.note:
            self._screen.say(f"trial {_number(trial)}: {report.note}")
        self._tally.report(_number(trial), report.epoch, report.metrics, counts=report.outcome != CONSTRAINT)
        self._changed()

    def recovered(self, trial: Trial) -> None:
        """Say that a trial moves to another node."""
        if is_drained(last_error(trial)):
            self._screen.say(f"trial {_number(trial)} moves after epoch {last_report(trial).epoch}: {MOVES}")

    def completed(self, trial: Trial) -> None:
        """Print the trial's line."""
        report, whole = last_report(trial), self._tally.plan.epochs
        if report.outcome == DIVERGED:
            self._end(trial, DIVERGED, f"diverged in epoch {report.epoch}")
        elif report.outcome == CONSTRAINT:
            self._end(trial, CONSTRAINT, f"not trained: {report.reason}")
        else:
            counted = self._tally.trial(_number(trial))
            is_whole = report.epoch >= whole
            ended = "" if is_whole else f", stopped after epoch {report.epoch}"
            score = math.nan if counted.best is None else counted.best
            line = f"{self._tally.plan.objective.key} {score:.4f} at epoch {counted.best_epoch}{ended}"
            self._end(trial, "finished" if is_whole else "stopped", line)

    def failed(self, trial: Trial) -> None:
        """Print the trial's line if the failure is its own; otherwise it is resumed later."""
        if find_fault(last_error(trial)) is None:
            self._end(trial, "failed", f"failed: {reason_of(trial)}")
        else:
            self._tally.end(_number(trial), INTERRUPTED)

    def ended(self, trials: list[Trial]) -> None:
        """Count the trials that still run as interrupted."""
        self._tally.interrupt()

    def _end(self, trial: Trial, outcome: str, line: str) -> None:
        request = request_of(trial)
        self._tally.end(_number(trial), outcome)
        self._screen.say(f"trial {request.number}{f' ({request.recipe})' if request.recipe else ''}: {line}")
        self._changed()


class MachineChange(TrialCallback):
    """Warns when a trial runs on another kind of machine than earlier trials.

    Args:
        screen: where the warning is shown.
        earlier: the earlier trials.
        consequence: for the trials' precision, as a clause.
    """

    def __init__(self, screen: Screen, earlier: Iterable[TrialRecord], consequence: str = _ON_ANOTHER_MACHINE) -> None:
        self._screen = screen
        self._known = {trial.machine for trial in earlier if trial.machine}
        self._consequence = consequence

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Compare the machine of a report with earlier ones."""
        if not report.machine or report.machine in self._known:
            return
        if self._known:
            number = request_of(trial).number
            name = "the retraining" if number is None else f"trial {number}"
            self._screen.warn(
                f"{name} runs on another kind of machine, {report.machine}, than earlier trials, "
                f"{' and '.join(sorted(self._known))}: {self._consequence} ({report.precision} here)"
            )
        self._known.add(report.machine)


class RetrainingProgress(TrialCallback):
    """Counts the epochs of a retraining, and keeps the count in the study.

    Args:
        screen: where lines are shown.
        study: of the search.
        start: the retraining before its first epoch.
    """

    def __init__(self, screen: Screen, study: optuna.Study, start: Retraining) -> None:
        self._screen, self._study = screen, study
        self.changed: Callable[[], None] = lambda: None
        """Called after each epoch."""
        self.now = start
        """How far it is."""
        study.set_user_attr(RETRAINING, asdict(start))

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Count the epoch."""
        if report.note:
            self._screen.say(report.note)
        loss = float(report.metrics.get("train_loss", math.nan))
        self.now = replace(
            self.now,
            epoch=report.epoch,
            seconds=float(report.metrics.get("seconds", 0.0)),
            samples_per_second=float(report.metrics.get("samples_per_second", 0.0)),
            losses=(*self.now.losses, *([loss] if math.isfinite(loss) else [])),
        )
        self._study.set_user_attr(RETRAINING, asdict(self.now))
        self.changed()

    def recovered(self, trial: Trial) -> None:
        """Say that the training moves to another node."""
        if is_drained(last_error(trial)):
            self._screen.say(f"the training moves after epoch {last_report(trial).epoch}: {MOVES}")


def _state(room: Room, stopper: Stopper) -> tuple[State, str]:
    """The state of a run, with a clause on what holds it up or ends it."""
    if stopper.interrupted:
        return "running", "it stops after Ctrl-C, and writes its checkpoints"
    return ("waiting", room.reason) if room.reason else ("running", "")


def _number(trial: Trial) -> int:
    """The number of a trial in the study."""
    number = request_of(trial).number
    return -1 if number is None else number
