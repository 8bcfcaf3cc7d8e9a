"""Preparation of a run: data checks, cluster, disk space, decoded images and the job that all trials share."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import optuna

from data.cache.budget import growth_bytes
from data.cache.cache import cache_bytes, open_cache
from data.dataset.dataset import Dataset
from data.errors import InputError
from data.fitting.sizes import Sides
from data.quantities import byte_size, counted
from data.splits.splits import PARTS, rows
from data.splits.subset import subset
from search.run.cluster import (
    cluster,
    cluster_resources,
    concurrent_trials,
    has_one_node,
    plan,
    retraining_workers,
    slots,
)
from search.spec.sections import ResourcesConfig, RetrainConfig
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.study.study import held_study, removing_if_unstarted
from search.study.trials import SLOTS
from search.terminal import Screen
from trainable.config import DataConfig, ModelConfig
from trainable.job import TrialData, TrialJob, Workers
from trainable.loop.loaders import read_part
from trainable.models import build_on_meta, parameter_count
from trainable.plugins.active import PluginRecord, sources_of

OPTIMIZER_COPIES = 3
"""A resumable checkpoint holds the weights and up to two optimizer moments of each."""
BESIDE_TRIALS = 3
"""Checkpoints of a search beside one of each trial: the exported best, that of the retraining, and its export."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """An experiment's open study and the cluster that its trials run on."""

    study: optuna.Study
    workers: Workers
    """Of each trial."""
    concurrent: int
    """Trials that fit at a time."""
    dashboard: str
    """Address of Ray's dashboard; '' without one."""


class Slots:
    """The number of trials that may run at a time, as nodes join and leave. A change is shown, and stored in the study.

    Args:
        session: of the search.
        resources: of the spec.
        screen: shows changes.
    """

    def __init__(self, session: Session, resources: ResourcesConfig, screen: Screen) -> None:
        self._session, self._resources, self._screen = session, resources, screen
        self._last = session.concurrent
        self._note()

    def __call__(self) -> int:
        """The present number, at least 1."""
        workers = self._session.workers
        number = concurrent_trials(self._resources, slots(workers, cluster_resources()))
        if number != self._last:
            self._screen.say(f"the cluster changed: {counted(number, 'trial')} at a time, {self._last} before")
            self._last = number
            self._note()
        return number

    @property
    def now(self) -> dict[str, float]:
        """The number last returned, and the CPUs and GPUs of each trial."""
        return uses(self._session.workers) | {"concurrent": self._last}

    def _note(self) -> None:
        self._session.study.set_user_attr(SLOTS, self.now)


@contextmanager
def open_session(
    experiment: Experiment, dataset: Dataset, resources: ResourcesConfig, *, verbose: bool = False
) -> Iterator[Session]:
    """Open the study of a running experiment and join or start the cluster (see `cluster`), until the context ends.

    An error removes an experiment none of whose trials started, so that its name is free again.

    Raises:
        InputError: if the study or the cluster cannot be used, the data set changed, or the cluster has no room for a
            trial.
        UnfinishedError: if the study's database is lost within the context.
    """
    with (
        held_study(experiment) as study,
        removing_if_unstarted(experiment, study),
        cluster(verbose=verbose) as dashboard,
    ):
        _check_same_data(experiment, study, dataset)
        workers, concurrent = plan(resources, cluster_resources())
        yield Session(study=study, workers=workers, concurrent=concurrent, dashboard=dashboard)


def data_config(spec: SearchSpec) -> DataConfig:
    """The data section of a spec. All trials share its image size and split, which are never searched."""
    return spec.largest_trial().data


def split_counts(dataset: Dataset, config: DataConfig, *, samples: int | None = None, seed: int = 0) -> dict[str, int]:
    """Number of samples in each part of the split; `samples` limits the training part.

    Raises:
        InputError: if a part has none.
    """
    found = {part: rows(dataset.ids, part, config.split_by, config.shares) for part in PARTS}
    if samples is not None:
        found["train"] = subset(dataset.ids, found["train"], samples, split_by=config.split_by, seed=seed)
    return {part: len(numbers) for part, numbers in found.items()}


def check_disk(
    experiment: Experiment,
    dataset: Dataset,
    image_sizes: Iterable[Sides],
    models: Iterable[ModelConfig],
    *,
    kept: int,
    concurrent: int,
    padded: bool = False,
) -> None:
    """Check that the disk has room for the checkpoints of the largest model, beside the decoded images.

    Checkpoints in a remote storage take no room here. Images, which have one more plane if they are `padded`, are
    decoded on the fly where they do not fit into the cache; checkpoints must fit.

    Raises:
        InputError: if there is no room, or the cache cannot be written.
    """
    root, cache = experiment.root, open_cache()
    if experiment.mirror:
        return
    parameters = max(parameter_count(build_on_meta(model)) for model in models)
    needed: float = checkpoint_bytes(parameters, kept, concurrent)
    if root.stat().st_dev == cache.stat().st_dev:
        cached = sum(cache_bytes(dataset, size, has_border=padded) for size in set(image_sizes))
        needed += growth_bytes(cache, dataset.info.fingerprint, cached)
    free = shutil.disk_usage(root).free
    if free < needed:
        raise InputError(
            f"Up to {byte_size(needed)} are needed at '{root}', but {byte_size(free)} are free; make room for "
            f"{byte_size(needed - free)} more, choose another --storage or $TWINHEAD_CACHE, or lower data.image_size, "
            "budget.trials or $TWINHEAD_CACHE_GB."
        )


def checkpoint_bytes(parameters: int, kept: int, concurrent: int) -> int:
    """Bytes of the checkpoints of a network.

    Args:
        parameters: of the network.
        kept: number of checkpoints with weights alone.
        concurrent: trials at a time, each of which has two checkpoints to resume from.
    """
    return 4 * parameters * (kept + concurrent * 2 * OPTIMIZER_COPIES)


def make_job(
    experiment: Experiment,
    dataset: Dataset,
    workers: Workers,
    checkpoint_epochs: Iterable[int],
    plugins: Iterable[PluginRecord] = (),
) -> TrialJob:
    """The job that an experiment's trials share, on all samples and without a limit of the latency.

    Args:
        experiment: owns the directories that they write to.
        dataset: what they read.
        workers: resources of each trial.
        checkpoint_epochs: epochs after which a checkpoint is saved, in addition to the best ones.
        plugins: that they use; each is a plugin of this process.
    """
    return TrialJob(
        data=TrialData(path=str(dataset.path.absolute().explicit()), fingerprint=dataset.info.fingerprint),
        workers=workers,
        checkpoint_epochs=frozenset(checkpoint_epochs),
        group_storage=str(experiment.in_storage(experiment.groups).explicit()),
        search=experiment.name,
        storage=str(experiment.location.explicit()),
        measurements=str(experiment.in_storage(experiment.measurements).explicit()),
        plugins=sources_of(plugins),
    )


def alone(job: TrialJob, concurrent: int, cpus: int | Literal["auto"] = "auto") -> TrialJob:
    """The job of a trial that runs alone on this machine.

    Args:
        job: of one of several concurrent trials.
        concurrent: number of trials whose cores it may use; it uses as many as are measured to be fastest.
        cpus: CPUs of each worker instead; 'auto' measures.
    """
    workers = job.workers
    if cpus != "auto":
        return replace(job, workers=replace(workers, cpus=cpus))
    if workers.is_group or workers.gpus or not has_one_node():
        return job
    return replace(job, workers=replace(workers, cpus=workers.cpus * concurrent, measures_threads=True))


def job_on_cluster(job: TrialJob, concurrent: int, config: RetrainConfig, batch_size: int) -> TrialJob:
    """The job of a retraining, which has the cluster for itself.

    Args:
        job: of one of several concurrent trials.
        concurrent: number of trials whose cores it may use.
        config: the spec's `retrain`.
        batch_size: of the configuration.
    """
    workers = retraining_workers(config, job.workers, cluster_resources(), batch_size)
    scale_from = job.workers.count if config.scale == "linear" else None
    return alone(replace(job, workers=workers, scale_from=scale_from), concurrent, config.cpus)


def decode(configs: Sequence[DataConfig], job: TrialJob, dataset: Dataset, screen: Screen) -> None:
    """Decode every part into the cache; on a cluster of several nodes, the first trial on each node does it.

    If another process decodes the same images, the bar shows its progress. A warning names what does not fit.
    """
    if not has_one_node():
        return
    splits = []  # all stay open: the cache could evict a closed one to make room for the next
    with (
        screen.warnings(),
        screen.bar("decoding", len(configs) * dataset.info.counts.samples, "samples") as move,
    ):
        for config in configs:
            for part in PARTS:
                splits.append(read_part(config, job.data, part, lambda count: move(count, "")))  # noqa: PERF401


def uses(workers: Workers) -> dict[str, float]:
    """The CPUs and GPUs of a trial."""
    return {"cpus": workers.count * workers.cpus, "gpus": workers.count * workers.gpus}


def each_uses(workers: Workers) -> str:
    """The resources of a trial as text."""
    gpus = f" and {workers.count * workers.gpus:g} GPU" if workers.gpus else ""
    is_elastic = workers.min_count is not None
    limit = "up to " if (workers.measures_threads and workers.cpus > 1) or is_elastic else ""
    split = f" in {workers.min_count} to {workers.count} workers" if is_elastic else ""
    return f"{limit}{workers.count * workers.cpus} CPU{gpus}{split}"


def announce_dashboard(screen: Screen, dashboard: str) -> None:
    """Print the dashboard's address, if there is one."""
    if dashboard:
        screen.say(f"dashboard: {dashboard} (its token: ray get-auth-token)")


def _check_same_data(experiment: Experiment, study: optuna.Study, dataset: Dataset) -> None:
    """Refuse to resume an experiment on another data set: the scores would not be comparable."""
    fingerprint = study.user_attrs.get("data_fingerprint")
    if fingerprint is None:
        study.set_user_attr("data_fingerprint", dataset.info.fingerprint)
    elif fingerprint != dataset.info.fingerprint:
        raise InputError(
            f"The data set '{dataset.path}' changed since '{experiment.name}' began (fingerprint "
            f"{dataset.info.fingerprint[:12]}, then {fingerprint[:12]}); restore it, or start a new search."
        )
