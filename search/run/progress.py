"""Progress of a search or a training on the screen, as callbacks of Ray Tune."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence

from ray.tune.experiment import Trial

from search.commands import JOB_VARIABLE
from search.dashboard import update_job
from search.driver import TrialCallback, last_report, request_of
from search.results.summary import best_score
from search.run.failures import error_text, find_fault, is_drained, last_error, reason_of
from search.study.experiment import Experiment
from search.study.trials import TrialRecord
from search.terminal import Screen, append_line
from trainable.metrics.names import CONSTRAINT, DIVERGED, OBJECTIVE
from trainable.report import TrialReport

_ON_ANOTHER_MACHINE = (
    "a trial that starts there measures model.precision 'auto' there, one that continues keeps its own"
)
LOGGED = (OBJECTIVE, "mask_iou", "depth_delta1", "train_loss", "val_loss", "lr", "seconds", "samples_per_second")
"""Metrics in a line of a trial's log."""

MOVES = "its node is drained"


class SearchProgress(TrialCallback):
    """A progress bar over the trials or over all epochs, and a line for each trial that ended.

    Args:
        screen: where they are shown.
        move: advances the bar.
        max_epochs: of a trial.
        earlier: trials of earlier runs; interrupted ones among them may be resumed.
        by_epoch: whether the bar counts epochs, not trials.
    """

    def __init__(
        self,
        screen: Screen,
        move: Callable[[int, str], None],
        *,
        max_epochs: int,
        earlier: Sequence[TrialRecord] = (),
        by_epoch: bool = False,
    ) -> None:
        self._screen = screen
        self._move = move
        self._max_epochs = max_epochs
        self._by_epoch = by_epoch
        self._best = best_score(earlier)
        self._earlier = {trial.number: best for trial in earlier if (best := trial.best_epoch) is not None}
        self._best_of: dict[str, tuple[float, int]] = {}
        self._running: set[str] = set()

    def started(self, trial: Trial) -> None:
        """Count the trial as running, with the epochs that it ran before an interruption."""
        self._running.add(trial.trial_id)
        number = request_of(trial).number
        if number is not None and (before := self._earlier.get(number)) is not None:
            self._best_of.setdefault(trial.trial_id, (before.score, before.epoch))

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Update the best scores, and show the best."""
        if report.note:
            self._screen.say(f"trial {request_of(trial).number}: {report.note}")
        if report.score > self._best_of.get(trial.trial_id, (-1.0, 0))[0]:
            self._best_of[trial.trial_id] = (report.score, report.epoch)
        if report.outcome != CONSTRAINT and (self._best is None or report.score > self._best):
            self._best = report.score
        self._move(int(self._by_epoch), self._note())

    def recovered(self, trial: Trial) -> None:
        """Say that a trial moves to another node."""
        if is_drained(last_error(trial)):
            self._screen.say(f"trial {request_of(trial).number} moves after epoch {last_report(trial).epoch}: {MOVES}")

    def completed(self, trial: Trial) -> None:
        """Print the trial's line."""
        report = last_report(trial)
        if report.outcome == DIVERGED:
            line = f"diverged in epoch {report.epoch}"
        elif report.outcome == CONSTRAINT:
            line = f"not trained: {report.reason}"
        else:
            score, best_epoch = self._best_of.get(trial.trial_id, (float("nan"), 0))
            ended = "" if report.epoch >= self._max_epochs else f", stopped after epoch {report.epoch}"
            line = f"score {score:.4f} at epoch {best_epoch}{ended}"
        self._end(trial, line)

    def failed(self, trial: Trial) -> None:
        """Print the trial's line if the failure is its own."""
        if find_fault(last_error(trial)) is None:
            self._end(trial, f"failed: {reason_of(trial)}")

    def ended(self, trials: list[Trial]) -> None:
        """Drop interrupted trials."""
        self._running.clear()

    def _end(self, trial: Trial, line: str) -> None:
        self._running.discard(trial.trial_id)
        request = request_of(trial)
        self._screen.say(f"trial {request.number}{f' ({request.recipe})' if request.recipe else ''}: {line}")
        self._move(int(not self._by_epoch), self._note())

    def _note(self) -> str:
        best = best_note(self._best)
        return f"{len(self._running)} running{f', {best}' if best else ''}"


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


class EpochProgress(TrialCallback):
    """A progress bar over the epochs of a single trial."""

    def __init__(self, screen: Screen, move: Callable[[int, str], None]) -> None:
        self._screen = screen
        self._move = move

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Advance by one epoch."""
        if report.note:
            self._screen.say(report.note)
        self._move(1, f"training loss {report.metrics.get('train_loss', float('nan')):.4f}")

    def recovered(self, trial: Trial) -> None:
        """Say that the training moves to another node."""
        if is_drained(last_error(trial)):
            self._screen.say(f"the training moves after epoch {last_report(trial).epoch}: {MOVES}")


class TrialLogs(TrialCallback):
    """Writes what each trial reports, and its errors with their tracebacks, to a file of its own."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        experiment.logs.mkdir(exist_ok=True)

    def started(self, trial: Trial) -> None:
        """Write where the trial starts."""
        self._append(trial, f"starts as {request_of(trial).name}")

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Write a line for the epoch."""
        for sentence in (report.note, report.reason):
            if sentence:
                self._append(trial, sentence)
        figures = (f"{name} {report.metrics[name]:.4g}" for name in LOGGED if name in report.metrics)
        self._append(trial, f"epoch {report.epoch}: {', '.join(figures)}; on {report.host or 'its node'}")

    def recovered(self, trial: Trial) -> None:
        """Write the error after which the trial is retried."""
        self._append(trial, f"is retried after:\n{error_text(trial)}")

    def completed(self, trial: Trial) -> None:
        """Write that the trial ended."""
        self._append(trial, "ended")

    def failed(self, trial: Trial) -> None:
        """Write the error."""
        self._append(trial, f"failed:\n{error_text(trial)}")

    def _append(self, trial: Trial, line: str) -> None:
        number = request_of(trial).number
        if number is not None:
            append_line(self._experiment.trial_log(number), line)


class JobNote(TrialCallback):
    """Keeps the best score and the number of ended trials in the metadata of the job, for the Ray dashboard.

    Args:
        total: trials in the budget.
        earlier: trials of earlier runs.
    """

    def __init__(self, total: int, earlier: Sequence[TrialRecord]) -> None:
        self._job = os.environ.get(JOB_VARIABLE, "")
        self._total = total
        self._ended = sum(trial.state.is_finished() for trial in earlier)
        self._best = best_score(earlier)
        best = (trial.number for trial in earlier if trial.best_epoch and trial.best_epoch.score == self._best)
        self._of = next(best, None)

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Note a better score."""
        if report.outcome != CONSTRAINT and (self._best is None or report.score > self._best):
            self._best, self._of = report.score, request_of(trial).number
            self._update()

    def completed(self, trial: Trial) -> None:
        """Count the trial."""
        self._ended += 1
        self._update()

    failed = completed

    def _update(self) -> None:
        if not self._job:
            return
        best = "none yet" if self._best is None else f"{self._best:.4f}, trial {self._of}"
        with contextlib.suppress(Exception):  # the dashboard's record is a convenience; the study has the results
            update_job(self._job, {"best": best, "trials": f"{self._ended} of {self._total}"})


def best_note(score: float | None) -> str:
    """The best score so far, as a note beside a bar; '' if there is none."""
    return f"best score {score:.4f}" if score is not None else ""
