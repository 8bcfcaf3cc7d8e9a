"""Objects that exist only in the process of the driver, and the callbacks of Ray Tune among them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from trainable.job import TrialRequest
from trainable.report import TrialReport


class DriverOnly:
    """Mixin for objects that Ray Tune pickles but never needs again.

    Tune pickles its settings to be able to restore a run. A search is resumed from its study instead, so the pickle of
    such an object is empty.
    """

    def __getstate__(self) -> dict[str, object]:
        return {}


class TrialCallback(DriverOnly, tune.Callback):
    """A callback of Tune with typed methods, each of which does nothing unless it is overridden."""

    def started(self, trial: Trial) -> None:
        """A trial started, or started again after a failure."""

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """A trial reported an epoch."""

    def saved(self, trial: Trial, checkpoint: Path) -> None:
        """The checkpoint of the last report is in the trial's directory."""

    def recovered(self, trial: Trial) -> None:
        """A trial failed, and Tune starts it again."""

    def completed(self, trial: Trial) -> None:
        """A trial ended without an error, by itself or because it was stopped."""

    def failed(self, trial: Trial) -> None:
        """A trial failed, and Tune does not start it again."""

    def ended(self, trials: list[Trial]) -> None:
        """The run ended; some of its trials may be interrupted."""

    def stepped(self) -> None:
        """Tune looked for events, as it does all the time."""

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Call `stepped`."""
        self.stepped()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Call `started`."""
        self.started(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: Mapping[str, Any], **info: Any
    ) -> None:
        """Call `reported`."""
        self.reported(trial, TrialReport.from_plain(result))

    def on_checkpoint(
        self, iteration: int, trials: list[Trial], trial: Trial, checkpoint: tune.Checkpoint, **info: Any
    ) -> None:
        """Call `saved`."""
        self.saved(trial, Path(checkpoint.path))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Call `recovered`."""
        self.recovered(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Call `completed`."""
        self.completed(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Call `failed`."""
        self.failed(trial)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Call `ended`."""
        self.ended(trials)


def request_of(trial: Trial) -> TrialRequest:
    """The request that a trial was started with."""
    return TrialRequest.from_plain(trial.config)


def last_report(trial: Trial) -> TrialReport:
    """The last report of a trial; with epoch 0 and without an outcome if there is none."""
    return TrialReport.from_plain(trial.last_result or {})
