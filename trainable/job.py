"""What a trial gets: its own request, and the job that it shares with all trials. Loads neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainable.plugins.active import PluginSource

from trainable.metrics.objective import SCORE, Objective


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """A trial to train. Ray Tune carries it as the trial's configuration, which must be a dict."""

    name: str
    """Name of its directory."""
    trial: Mapping[str, Any] = field(default_factory=dict)
    """Values of its `TrialConfig`."""
    number: int | None = None
    """Number in the study; None for a retraining."""
    recipe: str = ""
    """Name of the recipe; '' for a proposal of the searcher."""
    resume_from: str | None = None
    """Directory or address of a checkpoint of an earlier run."""
    refused: str = ""
    """Reason why it is not trained; '' if it is."""

    def as_plain(self) -> dict[str, object]:
        """The configuration for Tune."""
        return dict(vars(self))

    @classmethod
    def from_plain(cls, config: Mapping[str, Any]) -> TrialRequest:
        """The inverse of `as_plain`; missing keys have their defaults."""
        number = config.get("number")
        return cls(
            name=str(config.get("name", "")),
            trial=config.get("trial", {}),
            number=None if number is None else int(number),
            recipe=config.get("recipe") or "",
            resume_from=config.get("resume_from"),
            refused=config.get("refused") or "",
        )


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """The data set of a trial and the parts that it reads."""

    path: str
    """Directory of the data set, or its address, such as s3://bucket/prefix."""
    fingerprint: str
    """Expected fingerprint of the data set."""
    train: str = "train"
    """Part to train on, as in `data.splits.splits.rows`."""
    val: str | None = "val"
    """Part to evaluate on after each epoch; None for no evaluation."""
    samples: int | None = None
    """Number of training samples, selected by `data.splits.subset`; None for all."""
    samples_seed: int = 0
    """Random seed of that selection."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The number of worker processes of a trial, and the resources of each."""

    count: int = 1
    """Of an elastic group, the largest number."""
    min_count: int | None = None
    """The smallest number of an elastic group, whose size follows the nodes of the cluster; None for a fixed number."""
    cpus: int = 1
    """CPUs of each worker, and its number of threads."""
    measures_threads: bool = False
    """Whether to measure the fastest number of threads, with `cpus` as the limit."""
    gpus: float = 0
    """GPUs of each worker; with a fraction, several trials share a device."""

    def as_group(self, count: int, min_count: int | None = None) -> Workers:
        """Another number of these workers. Several workers have whole GPUs."""
        gpus = max(self.gpus, 1) if self.gpus and count > 1 else self.gpus
        return replace(self, count=count, min_count=min_count, gpus=gpus)

    @property
    def is_group(self) -> bool:
        """Whether a trial runs in a group of several workers."""
        return self.count > 1


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """Settings shared by all trials of a search."""

    data: TrialData
    workers: Workers
    checkpoint_epochs: frozenset[int]
    """Epochs after which a checkpoint is due even if checkpoints are slow: the rungs of the scheduler."""
    group_storage: str
    """Directory or address for the checkpoints of worker groups. Trials with a single worker report theirs to Tune."""
    search: str = ""
    """Name of the search, for the titles of processes."""
    storage: str | None = None
    """Directory or address of the experiment. A directory must exist; it is not created again."""
    replay: tuple[float, ...] | None = None
    """Learning-rate factors to replay for a plateau policy without a validation split."""
    ms_per_picture: float | None = None
    """Latency limit: a trial whose network is slower on its device is not trained; None for no limit."""
    timed: bool = False
    """Whether trials measure and report the latency of their network even without a limit."""
    scale_from: int | None = None
    """Number of workers that the batch size and the learning rate of the configuration are for: both are scaled with
    the actual number. None to use them as they are."""
    objective: Objective = SCORE
    """What picks the best epoch of a trial, and what a plateau policy watches as 'score'."""
    measurements: str | None = None
    """File, or its address, of the measurements that all trials share; see `trainable.measurements`."""
    plugins: tuple[PluginSource, ...] = ()
    """The plugins of the search."""

    def batch_scale(self, workers: int) -> float:
        """Factor of batch size and learning rate for a number of workers."""
        return workers / self.scale_from if self.scale_from else 1.0

    def resources(self) -> dict[str, float]:
        """Resources that Tune reserves for the actor of the trial. A worker group reserves its own."""
        if self.workers.is_group:
            return {"CPU": 0, "memory": 1}  # one byte: Tune requires a resource, and workers would miss a CPU
        return {"CPU": self.workers.cpus, "GPU": self.workers.gpus}


def trial_title(search: str, number: int | None) -> str:
    """The title of a trial's processes, such as 'twinhead: first trial 12'."""
    return f"twinhead: {search} {'retraining' if number is None else f'trial {number}'}"
