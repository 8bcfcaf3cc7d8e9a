"""Callbacks that store what trials report: in the study, as curves for TensorBoard, and in the logs of the trials."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.experiment import Trial
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from data.images import decode_photo, encode_jpeg
from search.driver import TrialCallback, last_report, request_of
from search.run.failures import Failures, error_text, reason_of
from search.strategy.searcher import RungSearcher
from search.study.experiment import Experiment
from search.study.trials import EpochRecord, TrialRecord, best_epoch, keep_best, note_epoch, note_failure, note_retry
from search.terminal import append_line
from trainable.loop.checkpoint_files import PICTURES
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.objective import SCORE, Objective
from trainable.report import GROUPS, TrialReport

PICTURES_GROWTH = 1.5
"""An image grid is written at a best epoch that is this many times as late as that of the grid before."""
LOGGED = (OBJECTIVE, "mask_iou", "depth_delta1", "train_loss", "val_loss", "lr", "seconds", "samples_per_second")
"""Metrics in a line of a trial's log."""
PICTURES_SECONDS = 60.0
"""One is also written after this time. The last one is written at the end of the trial."""


class Recorder(TrialCallback):
    """Stores each report in the study, and removes checkpoints that are no longer needed.

    A running trial keeps its newest and its best checkpoint, a finished one the weights of its best epoch. Tune could
    remove checkpoints too, but would write the state of the whole search after each one.
    """

    def __init__(
        self, experiment: Experiment, searcher: RungSearcher, failures: Failures, objective: Objective = SCORE
    ) -> None:
        self._experiment = experiment
        self._objective = objective
        self._searcher = searcher
        self._failures = failures
        self._started: dict[str, Trial] = {}
        self._trials: dict[str, optuna.Trial] = {}
        self._checkpoints: dict[str, list[EpochRecord]] = {}
        searcher.when_failed(self._note_failure)

    def started(self, trial: Trial) -> None:
        """Remember the trial in case it fails."""
        self._started[trial.trial_id] = trial

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Store the report."""
        self._failures.reported(trial, report)
        studied = self._searcher.running(trial.trial_id)
        if studied is None:
            return
        self._trials[trial.trial_id] = studied
        # Tune passes the report after which it stops a trial to the searcher only when it has stopped it.
        self._searcher.on_trial_result(trial.trial_id, report.as_plain())
        checkpoint = _checkpoint(self._experiment, trial, report)
        record = note_epoch(studied, report, checkpoint, self._objective)
        if checkpoint is not None:
            self._experiment.checkpoints.forget()
            self._checkpoints.setdefault(trial.trial_id, []).append(record)

    def saved(self, trial: Trial, checkpoint: Path) -> None:
        """Remove checkpoints except the best and the newest, from which Tune would resume."""
        records = self._checkpoints.get(trial.trial_id, [])
        best = best_epoch(records)
        needed = [
            record for record in records if record is best or Path(record.checkpoint or "").name == checkpoint.name
        ]
        self._checkpoints[trial.trial_id] = needed
        for record in records:
            if record not in needed and record.checkpoint is not None:
                self._experiment.checkpoints.remove(record.checkpoint)

    def recovered(self, trial: Trial) -> None:
        """Store that the trial crashed and is retried, if the failure is its own; it resumes from its last report."""
        _register_last_checkpoint(trial)
        studied = self._searcher.running(trial.trial_id)
        if self._failures.is_own(trial) and studied is not None:
            note_retry(studied)

    def completed(self, trial: Trial) -> None:
        """Keep only the weights of the best epoch, unless the search was interrupted and the trial will resume."""
        studied = self._trials.get(trial.trial_id)
        self._drop(trial)
        if studied is not None and not self._searcher.interrupted:
            keep_best(self._experiment, TrialRecord.of(studied, self._objective), at_once=True)

    def failed(self, trial: Trial) -> None:
        """Drop the trial; `_note_failure` has stored the reason."""
        self._drop(trial)

    def _note_failure(self, trial_id: str, studied: optuna.Trial) -> bool:
        """Store why a trial failed; return whether the failure is its own."""
        trial = self._started.get(trial_id)
        if trial is not None and not self._failures.is_own(trial, ended=True):
            return False
        if trial is not None:
            note_failure(studied, reason_of(trial))
        return True

    def _drop(self, trial: Trial) -> None:
        if self._experiment.mirror:
            self._experiment.mirror.changed.set()
        for by_id in (self._started, self._trials, self._checkpoints):
            by_id.pop(trial.trial_id, None)


def _register_last_checkpoint(trial: Trial) -> None:
    """Register the checkpoint of the last report with Tune, which does so a moment after the report.

    A process that dies in between would repeat the epoch, and the one before if that has no checkpoint.
    """
    name, known = last_report(trial).checkpoint_dir_name, trial.checkpoint
    if trial.storage is None or not name or (known is not None and Path(known.path).name == name):
        return
    path = f"{trial.storage.trial_fs_path}/{name}"
    checkpoint = tune.Checkpoint(path, trial.storage.storage_filesystem)
    trial.on_checkpoint(_TrainingResult(checkpoint, dict(trial.last_result)))


@dataclass
class _Events:
    """A trial's event file, and the image grid to write to it next."""

    writer: EventsWriter
    shown: float = field(default_factory=time.monotonic)
    """Time at which it was opened or last got a grid."""
    shown_epoch: int = 0
    """Epoch of the last grid."""
    waiting: tuple[int, str] | None = None
    """Epoch, and path of the file relative to the experiment."""
    best: float = -math.inf
    """Best value of the objective, oriented so that larger is better."""

    def add(self, summary: Summary, epoch: int) -> None:
        """Write at once: tensorboardX's writer thread dies on a full disk, and waiting for it then never ends."""
        self.writer.write_event(Event(wall_time=time.time(), step=epoch, summary=summary))
        self.writer.flush()


class TensorBoard(TrialCallback):
    """Writes each trial's metrics and, from time to time, the image grid of its best epoch beside its checkpoints."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._objective = experiment.objective
        self._events: dict[str, _Events] = {}

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Write the scalars of an epoch."""
        if trial.trial_id not in self._events:
            directory = self._experiment.trials / request_of(trial).name
            directory.mkdir(parents=True, exist_ok=True)
            self._events[trial.trial_id] = _Events(EventsWriter(str(directory / "events")))
        events = self._events[trial.trial_id]
        scalars = [Summary.Value(tag=_tag(name), simple_value=float(value)) for name, value in report.metrics.items()]
        events.add(Summary(value=scalars), report.epoch)
        checkpoint = _checkpoint(self._experiment, trial, report)
        rank = self._objective.rank(report.metrics)
        if checkpoint and self._may_have_pictures(events, checkpoint, rank):
            events.waiting = report.epoch, f"{checkpoint}/{PICTURES}"
            is_late = report.epoch >= PICTURES_GROWTH * events.shown_epoch
            if is_late or time.monotonic() - events.shown > PICTURES_SECONDS:
                self._show(events)

    def completed(self, trial: Trial) -> None:
        """Close the trial's file."""
        if events := self._events.pop(trial.trial_id, None):
            self._show(events)
            events.writer.close()

    failed = completed

    def ended(self, trials: list[Trial]) -> None:
        """Close the files of interrupted trials."""
        for trial in trials:
            self.completed(trial)

    def _may_have_pictures(self, events: _Events, checkpoint: str, rank: float) -> bool:
        """Whether a checkpoint has a grid: those of the best epochs do. That of a remote storage is not looked at."""
        is_best, events.best = rank >= events.best, max(rank, events.best)
        return is_best and (
            self._experiment.mirror is not None or (self._experiment.root / checkpoint / PICTURES).is_file()
        )

    def _show(self, events: _Events) -> None:
        """Write the waiting grid, if there is one, as JPEG, which is smaller."""
        if events.waiting is None:
            return
        epoch, path = events.waiting
        content = self._experiment.checkpoints.read(path)
        if content is not None:  # else it was removed with its checkpoint
            grid = decode_photo(content, path)
            height, width, channels = grid.shape
            image = Summary.Image(
                height=height, width=width, colorspace=channels, encoded_image_string=encode_jpeg(grid, quality=85)
            )
            events.add(Summary(value=[Summary.Value(tag="pictures", image=image)]), epoch)
        events.waiting, events.shown, events.shown_epoch = None, time.monotonic(), epoch


class TrialLogs(TrialCallback):
    """Writes what each trial reports, and its errors with their tracebacks, to a file of its own."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._logged = dict.fromkeys([experiment.objective.key, *LOGGED])
        experiment.logs.mkdir(exist_ok=True)

    def started(self, trial: Trial) -> None:
        """Write where the trial starts."""
        self._append(trial, f"starts as {request_of(trial).name}")

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Write a line for the epoch."""
        for sentence in (report.note, report.reason):
            if sentence:
                self._append(trial, sentence)
        figures = (f"{name} {report.metrics[name]:.4g}" for name in self._logged if name in report.metrics)
        host = (trial.last_result or {}).get("hostname", "its node")
        self._append(trial, f"epoch {report.epoch}: {', '.join(figures)}; on {host}")

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


def _tag(name: str) -> str:
    group = name.split("_", maxsplit=1)[0]
    return f"{group}/{name}" if group in GROUPS else name


def _checkpoint(experiment: Experiment, trial: Trial, report: TrialReport) -> str | None:
    """The report's checkpoint relative to the experiment; None if there is none."""
    checkpoint = report.checkpoint(experiment.trials / request_of(trial).name)
    return experiment.relative(checkpoint) if checkpoint else None
