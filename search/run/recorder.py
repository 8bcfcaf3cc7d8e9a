"""Callbacks that store what trials report: reports and checkpoints in the study, curves for TensorBoard."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

from data.images import decode_photo, encode_jpeg
from search.driver import DriverOnly
from search.run.failures import Failures, reason_of
from search.strategy.searcher import RungSearcher
from search.study.experiment import Experiment
from search.study.trials import EpochRecord, TrialRecord, keep_best, note_epoch, note_failure, note_retry
from trainable.loop.checkpoint import PICTURES
from trainable.metrics.names import OBJECTIVE

GROUPS = frozenset(("mask", "depth", "train", "time", "memory"))
"""Prefixes of metric names, which TensorBoard shows as groups."""
SINGLE = frozenset(
    (OBJECTIVE, "val_loss", "lr", "seconds", "samples_per_second", "micro_batches", "ms_per_picture", "threads")
)
PICTURES_SECONDS = 60.0
"""Shortest time between two image grids of a running trial; the last grid is written at its end."""


class Recorder(DriverOnly, tune.Callback):
    """Stores each report in the study, and removes checkpoints that are no longer needed.

    A running trial keeps its newest and its best checkpoint, a finished one the weights of its best epoch. Tune could
    remove checkpoints too, but would write the state of the whole search after each one.
    """

    def __init__(self, experiment: Experiment, searcher: RungSearcher, failures: Failures) -> None:
        self._experiment = experiment
        self._searcher = searcher
        self._failures = failures
        self._started: dict[str, Trial] = {}
        self._trials: dict[str, optuna.Trial] = {}
        self._checkpoints: dict[str, list[EpochRecord]] = {}
        searcher.when_failed(self._note_failure)

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Remember the trial in case it fails."""
        self._started[trial.trial_id] = trial

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Store the report."""
        self._failures.reported(trial)
        studied = self._searcher.running(trial.trial_id)
        if studied is None:
            return
        self._trials[trial.trial_id] = studied
        checkpoint = _checkpoint(self._experiment, trial, result)
        record = EpochRecord(epoch=int(result["epoch"]), metrics=own_metrics(result), checkpoint=checkpoint)
        note_epoch(studied, record, result)
        if checkpoint is not None:
            self._checkpoints.setdefault(trial.trial_id, []).append(record)

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Remove checkpoints except the best and the newest, from which Tune would resume."""
        records = self._checkpoints.get(trial.trial_id, [])
        newest = Path(checkpoint.path).name
        best = max(records, key=lambda record: (record.score, -record.epoch), default=None)
        needed = [record for record in records if record is best or Path(record.checkpoint or "").name == newest]
        self._checkpoints[trial.trial_id] = needed
        for record in records:
            if record not in needed and record.checkpoint is not None:
                shutil.rmtree(self._experiment.root / record.checkpoint, ignore_errors=True)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Store that the trial crashed and is retried, if the failure is its own."""
        studied = self._searcher.running(trial.trial_id)
        if self._failures.is_own(trial) and studied is not None:
            note_retry(studied)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Keep only the weights of the best epoch, unless the search was interrupted and the trial will resume."""
        studied = self._trials.get(trial.trial_id)
        self._drop(trial)
        if studied is not None and not self._searcher.interrupted:
            keep_best(self._experiment, TrialRecord.of(studied))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
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
        for by_id in (self._started, self._trials, self._checkpoints):
            by_id.pop(trial.trial_id, None)


class Retries(DriverOnly, tune.Callback):
    """Classifies the failures of a run that has no `Recorder`."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Note the epoch."""
        self._failures.reported(trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Classify a failure that Tune retries."""
        self._failures.is_own(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Classify the last failure."""
        self._failures.is_own(trial, ended=True)


@dataclass
class _Events:
    """A trial's event file, and the image grid to write to it next."""

    writer: EventsWriter
    shown: float = field(default_factory=time.monotonic)
    """Time at which it was opened or last got a grid."""
    waiting: tuple[int, Path] | None = None
    """Epoch and file."""

    def add(self, summary: Summary, epoch: int) -> None:
        """Write at once: tensorboardX's writer thread dies on a full disk, and waiting for it then never ends."""
        self.writer.write_event(Event(wall_time=time.time(), step=epoch, summary=summary))
        self.writer.flush()


class TensorBoard(DriverOnly, tune.Callback):
    """Writes each trial's metrics and, from time to time, the image grid of its best epoch beside its checkpoints."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._events: dict[str, _Events] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Write the scalars of an epoch."""
        if trial.trial_id not in self._events:
            directory = self._experiment.trials / str(trial.config["name"])
            directory.mkdir(parents=True, exist_ok=True)
            self._events[trial.trial_id] = _Events(EventsWriter(str(directory / "events")))
        events, epoch = self._events[trial.trial_id], int(result["epoch"])
        scalars = [
            Summary.Value(tag=_tag(name), simple_value=float(value)) for name, value in own_metrics(result).items()
        ]
        events.add(Summary(value=scalars), epoch)
        checkpoint = _checkpoint(self._experiment, trial, result)
        if checkpoint and (path := self._experiment.root / checkpoint / PICTURES).is_file():
            events.waiting = epoch, path
            if time.monotonic() - events.shown > PICTURES_SECONDS:
                _show(events)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's file."""
        if events := self._events.pop(trial.trial_id, None):
            _show(events)
            events.writer.close()

    on_trial_error = on_trial_complete

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Close the files of interrupted trials."""
        for trial in trials:
            self.on_trial_complete(0, trials, trial)


def _tag(name: str) -> str:
    group = name.split("_", maxsplit=1)[0]
    return f"{group}/{name}" if group in GROUPS else name


def _show(events: _Events) -> None:
    """Write the waiting grid, if there is one, as JPEG, which is smaller."""
    if events.waiting is None:
        return
    epoch, path = events.waiting
    with contextlib.suppress(FileNotFoundError):  # it was removed with its checkpoint
        grid = decode_photo(path.read_bytes(), str(path))
        height, width, channels = grid.shape
        image = Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encode_jpeg(grid, quality=85)
        )
        events.add(Summary(value=[Summary.Value(tag="pictures", image=image)]), epoch)
    events.waiting, events.shown = None, time.monotonic()


def own_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a trial's report, without the times, ids and settings that Tune adds."""
    return {
        name: value
        for name, value in result.items()
        if isinstance(value, int | float) and (name.partition("_")[0] in GROUPS or name in SINGLE)
    }


def _checkpoint(experiment: Experiment, trial: Trial, result: Mapping[str, Any]) -> str | None:
    """The report's checkpoint relative to the experiment; None if there is none."""
    if path := result.get("checkpoint_path"):
        return experiment.relative(path)
    if name := result.get("checkpoint_dir_name"):
        return experiment.relative(experiment.trials / str(trial.config["name"]) / name)
    return None
