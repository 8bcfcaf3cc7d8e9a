"""What the trials of a search have in common; importing it loads neither torch nor Ray."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """Which parts of which data set a trial reads."""

    path: str
    """The data set's directory, or its address, such as s3://bucket/prefix."""
    fingerprint: str
    """What the data set at that path must be."""
    train: str = "train"
    """Part to train on, as in `data.splits.rows`."""
    val: str | None = "val"
    """Part to evaluate on after each epoch; None evaluates on nothing."""
    samples: int | None = None
    """How many samples of the training part are read, as `data.subset` takes them; all when left out."""
    samples_seed: int = 0
    """Which of them."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """How many processes share a trial, and what each may use."""

    count: int = 1
    cpus: int = 1
    """Of each worker: also its number of threads."""
    measures_threads: bool = False
    """Whether `cpus` is the largest number of threads only, and the fastest one is measured."""
    gpus: float = 0
    """Of each worker; a fraction lets several trials share a device."""

    @property
    def is_group(self) -> bool:
        """Whether a trial needs a worker group of its own."""
        return self.count > 1


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """What all trials of a search have in common."""

    data: TrialData
    workers: Workers
    checkpoint_epochs: frozenset[int]
    """Epochs after which a checkpoint is due, beside the best ones: the scheduler's rungs."""
    group_storage: str
    """Directory for the checkpoints of worker groups; trials of a single worker report theirs to Tune."""
    storage: str | None = None
    """The experiment's directory: where it is gone, nothing is written in its place."""
    replay: tuple[float, ...] | None = None
    """Learning-rate factors for a plateau policy that has no validation split to watch."""
    ms_per_picture: float | None = None
    """A trial whose network takes longer on its device is not trained; None sets no limit."""
    timed: bool = False
    """Whether trials measure and report how long their network takes, though there is no limit."""
    measurements: str | None = None
    """File for what trials measure of networks, so that all of them use the same; see `trainable.measurements`."""

    def resources(self) -> dict[str, float]:
        """What Tune sets aside for the trial's own actor; a worker group sets its share aside itself."""
        if self.workers.is_group:
            return {"CPU": 0, "memory": 1}  # a byte: the driver must hold something, and no CPU that a worker needs
        return {"CPU": self.workers.cpus, "GPU": self.workers.gpus}
