"""What a trial reports after each epoch. Importing this module loads neither torch nor Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainable.metrics.names import OBJECTIVE, TIME_ATTR
from trainable.metrics.objective import SCORE, WEIGHTED, Objective

GROUPS = frozenset(("mask", "depth", "train", "time", "memory"))
"""Prefixes of metric names."""
SINGLE = frozenset(
    (
        *(OBJECTIVE, WEIGHTED, "val_loss", "lr", "seconds", "samples_per_second"),
        *("micro_batches", "ms_per_picture", "threads", "workers"),
    )
)
"""Names of the other metrics."""
_OF_RAY = frozenset(("time_this_iter_s", "time_total_s", "time_since_restore"))
"""Names with a prefix of `GROUPS` that Ray adds."""


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """A trial's report on an epoch. Ray carries it as a flat dict, to which it adds the checkpoint and its own keys."""

    epoch: int
    """Counted from 1; 0 if unknown."""
    metrics: Mapping[str, float]
    """Those of `trainable.loop.loop.EpochEnd`, and the latency if it was measured."""
    outcome: str = ""
    """'trained', 'diverged' or 'constraint'; '' if unknown."""
    reason: str = ""
    """Why it diverged or was not trained, in a sentence."""
    note: str = ""
    """Which checkpoints are damaged, and where the trial resumed instead."""
    precision: str = ""
    """Precision of the run."""
    machine: str = ""
    """Kind of the machine, as in `trainable.measurements.machine_kind`."""
    host: str = ""
    """Name of the host, added by Ray Tune; '' if unknown."""
    lr_factors: Sequence[float] = ()
    """Learning-rate factor at the end of each epoch so far."""
    violations: Mapping[str, float] = field(default_factory=dict)
    """For each limit that was measured, the excess as a share of the limit."""
    checkpoint_path: str = ""
    """Directory of the checkpoint, added by Ray Train for a worker group; '' without a checkpoint."""
    checkpoint_dir_name: str = ""
    """The same for a single worker, added by Ray Tune: the name in the trial's directory."""

    @classmethod
    def worst(
        cls,
        epoch: int,
        outcome: str,
        reason: str,
        violations: Mapping[str, float] | None = None,
        objective: Objective = SCORE,
    ) -> TrialReport:
        """The report of a trial that diverged or is not trained."""
        metrics = objective.worst_metrics()
        return cls(epoch=epoch, metrics=metrics, outcome=outcome, reason=reason, violations=violations or {})

    def checkpoint(self, trial_directory: Path) -> Path | None:
        """Directory of the checkpoint of a trial with this directory; None without a checkpoint."""
        if self.checkpoint_path:
            return Path(self.checkpoint_path)
        return trial_directory / self.checkpoint_dir_name if self.checkpoint_dir_name else None

    def as_plain(self) -> dict[str, object]:
        """The report for Ray, without what Ray adds."""
        return {
            **self.metrics,
            TIME_ATTR: self.epoch,
            "outcome": self.outcome,
            "reason": self.reason,
            "note": self.note,
            "precision": self.precision,
            "machine": self.machine,
            "lr_factors": list(self.lr_factors),
            "violations": dict(self.violations),
        }

    @classmethod
    def from_plain(cls, result: Mapping[str, Any]) -> TrialReport:
        """The report in a result of Ray; missing keys have their defaults."""
        return cls(
            epoch=int(result.get(TIME_ATTR, 0)),
            metrics=metrics_of(result),
            outcome=result.get("outcome", ""),
            reason=result.get("reason", ""),
            note=result.get("note", ""),
            precision=result.get("precision", ""),
            machine=result.get("machine", ""),
            host=result.get("hostname", ""),
            lr_factors=result.get("lr_factors", ()),
            violations=result.get("violations", {}),
            checkpoint_path=result.get("checkpoint_path") or "",
            checkpoint_dir_name=result.get("checkpoint_dir_name") or "",
        )


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The metrics in a result of Ray, without the times, ids and settings that Ray adds.

    Infinite ones are left out: the worst value of an objective without a bound, which Tune needs, is no measurement.
    """
    return {
        name: value
        for name, value in result.items()
        if isinstance(value, int | float) and not math.isinf(value) and _is_metric(name)
    }


def _is_metric(name: str) -> bool:
    return (name.partition("_")[0] in GROUPS or name in SINGLE) and name not in _OF_RAY
