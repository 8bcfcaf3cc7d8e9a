"""The state of a search, a comparison or a training, as the running command and `twinhead status` show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainable.metrics.names import OBJECTIVE

State = Literal["new", "queued", "waiting", "running", "stopped", "failed", "lost", "finished", "damaged"]
"""'new': created, and never run; 'queued': its job waits or starts; 'waiting': it runs, but the cluster has no room for
a trial; 'damaged': its files cannot be read."""
ACTIVE: tuple[State, ...] = ("waiting", "running")
"""States in which a driver runs."""
LIVE: tuple[State, ...] = ("queued", *ACTIVE)
Kind = Literal["search", "compare", "train"]


@dataclass(frozen=True, kw_only=True)
class BestTrial:
    """The best trial so far."""

    trial: int
    epoch: int
    score: float
    """The metric of this name, whatever the objective is."""
    objective: str
    """Key of the objective."""
    value: float
    """Of the objective."""
    settings: str
    """Its main settings in one line."""
    recipe: str = ""
    """Name of its recipe; '' if it is none."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a search has used, and what it may use; None where there is no limit."""

    trials: int = 0
    """Trials that ended."""
    max_trials: int = 0
    hours: float = 0
    max_hours: float | None = None
    gpu_hours: float = 0
    max_gpu_hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How far a retraining is."""

    epoch: int
    """Epochs that are complete."""
    epochs: int
    """Of the whole retraining."""
    cpus: float
    gpus: float
    seconds: float = 0.0
    """Of its last epoch."""
    samples_per_second: float = 0.0
    losses: Sequence[float] = ()
    """Training loss of each epoch since the last start."""

    @property
    def seconds_left(self) -> float | None:
        """Estimate, without the measurement on test; None before the first epoch."""
        return (self.epochs - self.epoch) * self.seconds if self.seconds else None


@dataclass(frozen=True, kw_only=True)
class SearchStatus:
    """The state of a search, a comparison or a training; the defaults are those of one of which nothing is known."""

    name: str
    kind: Kind = "search"
    state: State
    reason: str = ""
    """Why it failed, waits or is damaged, in a sentence; '' otherwise."""
    trials: Mapping[str, int] = field(default_factory=dict)
    """Number of trials by outcome; unfinished ones are 'running', 'waiting' or, while no driver runs, 'interrupted'."""
    recoveries: int = 0
    """Restarts of trials: retries after a crash, and resumptions after any interruption, such as a stop."""
    best: BestTrial | None = None
    rungs: Mapping[int, int] = field(default_factory=dict)
    """Number of trials that reached each rung, by its epoch."""
    budget: Budget = field(default_factory=Budget)
    seconds_left: float | None = None
    """Estimate, from the mean time of the trials so far; None before the first one ended, or if nothing runs."""
    concurrent: int | None = None
    """Trials that may run at a time; None before the first run."""
    cpus_busy: float = 0
    gpus_busy: float = 0
    started: float | None = None
    """Unix time of the first trial's start; None before it."""
    reported: float | None = None
    """Unix time at which the driver last wrote; None before the first run."""
    job: str = ""
    """Submission ID of its last job; '' if it ran outside of a job."""
    host: str = ""
    """Of its driver; '' before the first run."""
    command: str = ""
    """What to do next: how to follow, resume or use it; '' for a comparison or training that is complete."""
    objective: str = OBJECTIVE
    """Key of the objective."""
    epochs: int = 0
    """That all trials completed."""
    max_epochs: int | None = None
    """Of all trials together; None for a search, which stops trials early."""
    scores: Sequence[float] = ()
    """Best value of the objective after each trial that ended, in that order, and now; of a single training, the value
    after each epoch."""
    samples_per_second: float = 0.0
    """Training samples of all running trials, or of the retraining."""
    retraining: Retraining | None = None
    """None while no driver retrains."""

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)
