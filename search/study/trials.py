"""The records of trials in the study, as typed values; only this module knows the names of their attributes."""

from __future__ import annotations

import contextlib
import math
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from data.dataset.storage import UnavailableError
from search.study.experiment import Experiment
from trainable.metrics.names import CONSTRAINT, DIVERGED, OBJECTIVE
from trainable.metrics.objective import SCORE, Objective
from trainable.report import TrialReport

RECIPE = "recipe"
"""Attribute of a trial: the name of its recipe."""
PROPOSED_BY = "proposed_by"
"""Attribute of a trial that is no recipe: see `TrialRecord.proposed_by`."""
GPU_SECONDS = "gpu_seconds"
"""Attribute of a study: GPU seconds of all trials, those of running ones up to a minute ago."""
SLOTS = "slots"
"""Attribute of a study: the number of concurrent trials, and the CPUs and GPUs of each."""
RETRAINING_SECONDS = "retraining_seconds"
"""Attribute of a study: the part of its attribute 'seconds' that retrainings took."""
RETRAINING = "retraining"
"""Attribute of a study: how far its retraining is, as `search.results.status.Retraining`; None once its result is in
the summary."""
WAITING = "waiting"
"""Attribute of a study: why the cluster has no room for its trials; '' while it has."""
FIRST_TRIALS = {
    "portfolio": "from the portfolio",
    "earlier search": "from an earlier search",
    "default": "the default configuration",
}
"""Origin, in words, of the first trials that are no recipes, by `TrialRecord.proposed_by`."""
_EPOCH = "epoch:"
_LONG_REASON = re.compile(r" with the configuration \{.*\}(?=;)")
"""Earlier versions repeated the whole configuration in the reason of a diverged trial."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One report of a trial."""

    epoch: int
    metrics: Mapping[str, float]
    """Metrics on the validation split, training losses, learning rate and seconds."""
    checkpoint: str | None
    """Directory relative to the experiment; it may have been removed."""
    objective: Objective = SCORE
    """Of the search."""
    time: float | None = field(default=None, compare=False)
    """Unix time at which the driver recorded it; None in a study of an earlier version."""

    @property
    def score(self) -> float:
        """The metric 'score'."""
        return float(self.metrics[OBJECTIVE])

    @property
    def value(self) -> float:
        """The value of the objective; NaN if it was not measured."""
        return self.objective.value(self.metrics)

    @property
    def rank(self) -> float:
        """The value oriented so that larger is better; -inf if it was not measured."""
        return self.objective.rank(self.metrics)


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of a search."""

    number: int
    state: TrialState
    attempt: int
    """Number of restarts after an interruption; -1 before the first start."""
    retries: int
    """Number of retries after a crash."""
    recipe: str
    """Name of the recipe; '' if it is none."""
    config: Mapping[str, Any]
    """Values of its `TrialConfig`."""
    outcome: str
    """'trained', 'diverged', 'constraint', 'failed', or '' before the first report."""
    reason: str
    """Why it diverged, failed or was not trained, in a sentence."""
    lr_factors: list[float]
    """Learning-rate factor at the end of each epoch."""
    epochs: list[EpochRecord]
    """Ascending."""
    proposed_by: str = ""
    """'recipe', 'portfolio', 'earlier search' or 'default' for a first trial; 'exploration' or 'model' for our method,
    else the sampler; '' in a study of an earlier version."""
    precision: str = ""
    """Precision of the run, if the configuration has 'auto'; '' before the first report."""
    machine: str = ""
    """Kind of the machine of the last run; '' before the first report."""
    host: str = ""
    """Name of the host of the last run; '' before the first report, and in a study of an earlier version."""
    started: datetime | None = None
    """Time of the first start, with its time zone; None if it is unknown."""
    ended: datetime | None = None
    """Time of the end, with its time zone; None for an unfinished trial."""

    @property
    def origin(self) -> str:
        """Where its configuration comes from, in words: 'the recipe NAME', 'proposed by the search' or another."""
        if self.recipe:
            return f"the recipe {self.recipe}"
        return FIRST_TRIALS.get(self.proposed_by, "proposed by the search")

    @property
    def seconds(self) -> float:
        """Time of all its epochs."""
        return float(sum(epoch.metrics.get("seconds", 0.0) for epoch in self.epochs))

    @property
    def config_as_run(self) -> dict[str, object]:
        """The configuration with the precision of the run."""
        model = self.config.get("model")
        changed = {"model": {**model, "precision": self.precision}} if self.precision and model else {}
        return {**self.config, **changed}

    @classmethod
    def of(cls, trial: FrozenTrial | optuna.Trial, objective: Objective = SCORE) -> TrialRecord:
        """Read a trial of the study; `objective` is what picks its best epoch."""
        attributes = trial.user_attrs
        numbers = sorted(int(name.removeprefix(_EPOCH)) for name in attributes if name.startswith(_EPOCH))
        return cls(
            number=trial.number,
            state=trial.state if isinstance(trial, FrozenTrial) else TrialState.RUNNING,
            attempt=attributes.get("attempt", -1),
            retries=attributes.get("retries", 0),
            recipe=attributes.get(RECIPE, ""),
            config=attributes.get("config", {}),
            outcome=attributes.get("outcome", ""),
            reason=_LONG_REASON.sub("", attributes.get("reason", "")),
            lr_factors=attributes.get("lr_factors", []),
            epochs=[
                EpochRecord(epoch=number, objective=objective, **attributes[f"{_EPOCH}{number}"]) for number in numbers
            ],
            proposed_by=attributes.get(PROPOSED_BY, "recipe" if RECIPE in attributes else ""),
            precision=attributes.get("precision", ""),
            machine=attributes.get("machine", ""),
            host=attributes.get("host", ""),
            started=_with_zone(trial.datetime_start),
            ended=_with_zone(trial.datetime_complete) if isinstance(trial, FrozenTrial) else None,
        )

    @property
    def last_epoch(self) -> int:
        """Number of the last reported epoch; 0 before the first report."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def best_epoch(self) -> EpochRecord | None:
        """The best epoch by the objective; None before the first report."""
        return best_epoch(self.epochs)

    def best_kept(self, experiment: Experiment) -> EpochRecord | None:
        """The best epoch among those whose checkpoint still exists; None if there is none. Raises as `kept`."""
        return best_epoch(self.kept(experiment))

    def kept(self, experiment: Experiment, *, at_once: bool = False) -> list[EpochRecord]:
        """The epochs whose checkpoint still exists; `at_once`, and what it raises, are as in `Checkpoints.kept`."""
        named = [record.checkpoint for record in self.epochs if record.checkpoint]
        found = experiment.checkpoints.kept(named, at_once=at_once)
        return [record for record in self.epochs if record.checkpoint in found]

    def newest(self, experiment: Experiment) -> Path | None:
        """The latest checkpoint from which the trial can be resumed; raises as `kept`."""
        for record in reversed(self.epochs):
            if record.checkpoint and experiment.checkpoints.is_resumable(record.checkpoint):
                return experiment.root / record.checkpoint
        return None


def _with_zone(moment: datetime | None) -> datetime | None:
    """Optuna's times are local times of the process that reads them."""
    return moment.astimezone() if moment is not None else None


def best_epoch(records: Iterable[EpochRecord]) -> EpochRecord | None:
    """The epoch with the best value of the objective, the earliest of equal ones; None if there are no records."""
    return max(records, key=lambda record: (record.rank, -record.epoch), default=None)


def trial_records(study: optuna.Study, objective: Objective = SCORE) -> list[TrialRecord]:
    """All started trials, by number; `objective` is what picks their best epochs."""
    started = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING))
    return [TrialRecord.of(trial, objective) for trial in started]


def is_diverged(trial: FrozenTrial | optuna.Trial) -> bool:
    """Whether a trial ended because its loss was not finite."""
    return bool(trial.user_attrs.get("outcome") == DIVERGED)


def is_untrained(values: Mapping[str, Any]) -> bool:
    """Whether a trial is outside the limits, or cannot be built, by its report or its attributes.

    It is not trained, and its value is no measurement.
    """
    return bool(values.get("outcome") == CONSTRAINT)


def by_end(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials in the order in which they ended; those that have not ended come last."""
    return sorted(records, key=lambda record: record.ended.timestamp() if record.ended else math.inf)


def note_objective(study: optuna.Study, objective: Objective) -> None:
    """Name the values of a new study, as `optuna-dashboard` shows them, if they are not the default objective."""
    if objective != SCORE:
        with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
            study.set_metric_names([objective.name])


def attempt_directory(number: int, attempt: int) -> str:
    """Name of the directory of an attempt at a trial; 0 is the first."""
    return f"{number:05d}" + (f"-{attempt}" if attempt else "")


def note_start(trial: optuna.Trial, config: Mapping[str, Any]) -> int:
    """Record the start of a trial; returns the number of earlier starts."""
    attempt = int(trial.user_attrs.get("attempt", -1)) + 1
    trial.set_user_attr("attempt", attempt)
    trial.set_user_attr("config", dict(config))
    return attempt


def note_epoch(
    trial: optuna.Trial, report: TrialReport, checkpoint: str | None = None, objective: Objective = SCORE
) -> EpochRecord:
    """Record a report.

    Args:
        trial: a running trial of the study.
        report: what it reported. Its violations are the searcher's constraints.
        checkpoint: directory of its checkpoint, relative to the experiment.
        objective: of the search.
    """
    now = round(time.time(), 3)
    metrics = dict(report.metrics)
    record = EpochRecord(epoch=report.epoch, metrics=metrics, checkpoint=checkpoint, objective=objective, time=now)
    attribute = {"metrics": record.metrics, "checkpoint": checkpoint, "time": now}
    trial.set_user_attr(f"{_EPOCH}{report.epoch}", attribute)
    attributes = {"outcome": report.outcome, "reason": report.reason, "lr_factors": list(report.lr_factors)}
    # The others repeat those of the first report.
    once = {"precision": report.precision, "machine": report.machine, "host": report.host}
    attributes |= {name: value for name, value in once.items() if trial.user_attrs.get(name) != value}
    for name, value in attributes.items():
        if value:
            trial.set_user_attr(name, value)
    for name, excess in report.violations.items():
        if name not in trial.constraints:  # every report repeats it
            trial.set_constraint(name, excess)
    return record


def note_retry(trial: optuna.Trial) -> None:
    """Record a retry from the last checkpoint after a crash."""
    trial.set_user_attr("retries", int(trial.user_attrs.get("retries", 0)) + 1)


def note_failure(trial: optuna.Trial, reason: str) -> None:
    """Record why a trial failed."""
    trial.set_user_attr("outcome", "failed")
    trial.set_user_attr("reason", reason)


def keep_best_of_finished(
    experiment: Experiment, study: optuna.Study, objective: Objective = SCORE
) -> list[TrialRecord]:
    """Call `keep_best` for all finished trials after a run, whose processes may have written after the ends of trials.

    Returns:
        All started trials.
    """
    records = trial_records(study, objective)
    experiment.checkpoints.forget()  # what was listed while trials ran may miss their last checkpoints
    for record in records:
        if record.state.is_finished():
            keep_best(experiment, record)
    return records


def keep_best(experiment: Experiment, trial: TrialRecord, *, at_once: bool = False) -> None:
    """Remove a finished trial's checkpoints except the best one, and the state for resuming from that one.

    Args:
        experiment: of the trial.
        trial: the finished trial.
        at_once: as in `Checkpoints.kept`.
    """
    with contextlib.suppress(UnavailableError):  # done again at the end of the run
        kept = trial.kept(experiment, at_once=at_once)
        best = best_epoch(kept)
        if best is None or best.checkpoint is None:
            return
        # Reports do not name all: the last ones of a killed driver are lost, and a later attempt repeats their epochs.
        above = PurePosixPath(best.checkpoint).parent.parent
        directories = [above / attempt_directory(trial.number, attempt) for attempt in range(trial.attempt + 1)]
        experiment.checkpoints.keep_only(best.checkpoint, directories, at_once=at_once)
