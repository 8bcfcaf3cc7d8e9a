"""What the study remembers of a trial, as typed values; the names of its attributes are known here alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from search.study.experiment import Experiment
from trainable.metrics.names import OBJECTIVE

RECIPE = "recipe"
"""Key of a recipe's name in a trial's configuration and in the study's attributes."""
_EPOCH = "epoch:"
_LONG_REASON = re.compile(r" with the configuration \{.*\}(?=;)")
"""Earlier versions wrote the whole configuration, which the study has, into why a trial diverged."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """One report of a trial."""

    epoch: int
    metrics: Mapping[str, float]
    """On the validation split, with the training losses, learning rate and seconds."""
    checkpoint: str | None
    """Directory below the experiment; it may be gone since."""

    @property
    def score(self) -> float:
        """The objective."""
        return float(self.metrics[OBJECTIVE])


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of a search."""

    number: int
    state: TrialState
    attempt: int
    """How often it was started anew after an interruption; -1 before its first start."""
    retries: int
    """How often it was taken up again after a crash."""
    recipe: str
    """Name of the recipe that it tries; '' for what the search proposed."""
    config: Mapping[str, Any]
    """Values of its `TrialConfig`."""
    outcome: str
    """'trained', 'diverged', 'constraint', or '' before the first report."""
    reason: str
    """Why it diverged, failed or was not trained, in a sentence."""
    lr_factors: list[float]
    """The learning-rate factor that each epoch ended with."""
    epochs: list[EpochRecord]
    precision: str = ""
    """That the trial ran in, where its configuration says 'auto'; '' before the first report."""
    machine: str = ""
    """The kind of machine that it last ran on; '' before the first report."""

    @property
    def config_as_run(self) -> dict[str, Any]:
        """Its configuration with the precision that it ran in."""
        config = dict(self.config)
        if self.precision and "model" in config:
            config["model"] = {**config["model"], "precision": self.precision}
        return config

    @classmethod
    def of(cls, trial: FrozenTrial | optuna.Trial) -> TrialRecord:
        """Read a trial of the study."""
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
            epochs=[EpochRecord(epoch=number, **attributes[f"{_EPOCH}{number}"]) for number in numbers],
            precision=attributes.get("precision", ""),
            machine=attributes.get("machine", ""),
        )

    def best(self, experiment: Experiment) -> EpochRecord | None:
        """The epoch with the best score whose checkpoint is there; None if there is none."""
        kept = [
            record for record in self.epochs if record.checkpoint and (experiment.root / record.checkpoint).is_dir()
        ]
        return max(kept, key=lambda record: (record.score, -record.epoch), default=None)

    def newest(self, experiment: Experiment) -> Path | None:
        """The latest checkpoint from which the trial can go on."""
        from trainable.loop.checkpoint import STATE  # imports torch

        for record in reversed(self.epochs):
            if record.checkpoint and (experiment.root / record.checkpoint / STATE).is_file():
                return experiment.root / record.checkpoint
        return None


def trial_records(study: optuna.Study) -> list[TrialRecord]:
    """Every trial that was started, by number."""
    started = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING))
    return [TrialRecord.of(trial) for trial in started]


def note_start(trial: optuna.Trial, config: Mapping[str, Any]) -> int:
    """Remember that a trial starts; how often it was started before."""
    attempt = int(trial.user_attrs.get("attempt", -1)) + 1
    trial.set_user_attr("attempt", attempt)
    trial.set_user_attr("config", dict(config))
    return attempt


def note_epoch(trial: optuna.Trial, record: EpochRecord, outcome: Mapping[str, Any]) -> None:
    """Remember a report.

    Args:
        trial: the study's.
        record: what was reported.
        outcome: may hold outcome, reason, lr_factors, precision and machine, and 'violations': by limit of the spec,
            the excess as a share of the limit, which the searcher learns from.
    """
    kept = {"metrics": dict(record.metrics), "checkpoint": record.checkpoint}
    trial.set_user_attr(f"{_EPOCH}{record.epoch}", kept)
    for name in ("outcome", "reason", "lr_factors"):
        if name in outcome:
            trial.set_user_attr(name, outcome[name])
    for name in ("precision", "machine"):
        if name in outcome and trial.user_attrs.get(name) != outcome[name]:  # most reports have what the first one had
            trial.set_user_attr(name, outcome[name])
    for name, excess in outcome.get("violations", {}).items():
        if name not in trial.constraints:  # every report of a trial has it
            trial.set_constraint(name, excess)


def note_retry(trial: optuna.Trial) -> None:
    """Remember that a trial crashed, and is taken up again from its checkpoint."""
    trial.set_user_attr("retries", int(trial.user_attrs.get("retries", 0)) + 1)


def note_failure(trial: optuna.Trial, reason: str) -> None:
    """Remember why a trial failed."""
    trial.set_user_attr("outcome", "failed")
    trial.set_user_attr("reason", reason)


def keep_best(experiment: Experiment, trial: TrialRecord) -> None:
    """Remove a finished trial's other checkpoints, and the state that only going on would need."""
    from trainable.loop.checkpoint import STATE  # imports torch

    best = trial.best(experiment)
    if best is None or best.checkpoint is None:
        return
    kept = experiment.root / best.checkpoint
    # By what lies there, not by what was reported: a worker group may be an epoch ahead when it is stopped.
    for directory in kept.parent.glob("checkpoint_*"):
        if directory != kept and directory.is_dir():
            shutil.rmtree(directory, ignore_errors=True)
    (kept / STATE).unlink(missing_ok=True)
