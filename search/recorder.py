"""What the driver writes down while trials run: reports and checkpoints in the study, curves for TensorBoard."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import optuna
from ray import tune
from ray.tune.experiment import Trial
from tensorboardX import SummaryWriter

from data.images import decode_photo
from search.driver import DriverOnly
from search.experiment import Experiment
from search.searcher import RungSearcher
from search.trials import EpochRecord, TrialRecord, keep_best, note_epoch, note_failure
from trainable.checkpoint import PICTURES
from trainable.metrics import OBJECTIVE

GROUPS = frozenset(("mask", "depth", "train", "time", "memory"))
"""First words of the names of metrics that belong together."""
SINGLE = frozenset((OBJECTIVE, "lr", "seconds", "samples_per_second", "micro_batches"))


class Recorder(DriverOnly, tune.Callback):
    """Keeps each report in the study, and of a finished trial the weights of its best epoch alone."""

    def __init__(self, experiment: Experiment, searcher: RungSearcher) -> None:
        self._experiment = experiment
        self._searcher = searcher
        self._trials: dict[str, optuna.Trial] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Keep what was reported."""
        studied = self._searcher.running(trial.trial_id)
        if studied is None:
            return
        self._trials[trial.trial_id] = studied
        checkpoint = _checkpoint(self._experiment, trial, result)
        record = EpochRecord(epoch=int(result["epoch"]), metrics=own_metrics(result), checkpoint=checkpoint)
        note_epoch(studied, record, result)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Keep the weights of the best epoch alone, unless the trial is to be gone on with."""
        studied = self._trials.pop(trial.trial_id, None)
        if studied is not None and not self._searcher.interrupted:
            keep_best(self._experiment, TrialRecord.of(studied))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Keep why the trial failed."""
        studied = self._trials.pop(trial.trial_id, None) or self._searcher.running(trial.trial_id)
        if studied is not None:
            note_failure(studied, _last_line(trial))


class TensorBoard(DriverOnly, tune.Callback):
    """Writes each trial's metrics, and the picture grid of its best epoch, beside its checkpoints."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._writers: dict[str, SummaryWriter] = {}
        self._pictures: dict[str, tuple[int, str]] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Write the scalars of an epoch."""
        if trial.trial_id not in self._writers:
            directory = self._experiment.trials / str(trial.config["name"])
            self._writers[trial.trial_id] = SummaryWriter(str(directory))
        epoch = int(result["epoch"])
        for name, value in own_metrics(result).items():
            group = name.split("_", maxsplit=1)[0]
            tag = f"{group}/{name}" if group in GROUPS else name
            self._writers[trial.trial_id].add_scalar(tag, value, epoch)
        if checkpoint := _checkpoint(self._experiment, trial, result):
            self._pictures[trial.trial_id] = (epoch, checkpoint)
            self._show(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Close the trial's file."""
        self._show(trial.trial_id)
        self._pictures.pop(trial.trial_id, None)
        if writer := self._writers.pop(trial.trial_id, None):
            writer.close()

    on_trial_error = on_trial_complete

    def _show(self, trial_id: str) -> None:
        """Write the grid of the newest checkpoint that has one."""
        if trial_id not in self._pictures:
            return
        epoch, checkpoint = self._pictures[trial_id]
        path = self._experiment.root / checkpoint / PICTURES
        if path.is_file():
            grid = decode_photo(path.read_bytes(), str(path))
            self._writers[trial_id].add_image("pictures", grid, epoch, dataformats="HWC")
            del self._pictures[trial_id]


def own_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a trial reported; Tune adds times, ids and settings of its own."""
    return {
        name: value
        for name, value in result.items()
        if isinstance(value, int | float) and (name.partition("_")[0] in GROUPS or name in SINGLE)
    }


def _checkpoint(experiment: Experiment, trial: Trial, result: Mapping[str, Any]) -> str | None:
    """Where the report's checkpoint lies below the experiment; None if there is none."""
    if path := result.get("checkpoint_path"):
        return experiment.relative(path)
    if name := result.get("checkpoint_dir_name"):
        return experiment.relative(experiment.trials / str(trial.config["name"]) / name)
    return None


def _last_line(trial: Trial) -> str:
    """What the trial's exception says at its end."""
    with contextlib.suppress(OSError, TypeError):
        lines = [line for line in open(trial.error_file).read().splitlines() if line.strip()]  # noqa: PTH123, SIM115
        return lines[-1].strip() if lines else ""
    return "its process ended"
