"""What has to be in order before trials start: the data, its split, room on the disks, decoded pictures, the job."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import optuna
import torch

from data.byte_size import byte_size
from data.cache.budget import growth_bytes
from data.cache.cache import decoded_bytes, open_cache
from data.dataset.dataset import Dataset
from data.errors import InputError
from data.splits.splits import rows
from data.splits.subset import subset
from search.run.cluster import has_one_node
from search.study.experiment import Experiment
from search.terminal import Screen
from trainable.config import DataConfig, ModelConfig
from trainable.job import TrialData, TrialJob, Workers
from trainable.loop.loaders import read_part
from trainable.models import build_model, parameter_count

PARTS = ("train", "val", "test")
OPTIMIZER_COPIES = 3
"""A checkpoint that can be gone on with holds the weights and up to two moments of each."""


def open_data(path: str, screen: Screen) -> Dataset:
    """A data set whose every part was compared with its checksum.

    Args:
        path: a directory, or an address such as s3://bucket/prefix.
        screen: shows how far it is.

    Raises:
        InputError: if it is missing, of a newer schema, truncated or altered.
    """
    size = sum(part.bytes for part in Dataset.open(path).info.parts)
    with screen.bar("checking the data", -(-size // 2**20), "MiB") as move:
        done = 0

        def show(checked: int) -> None:
            nonlocal done
            move(-(-checked // 2**20) - done, "")
            done = -(-checked // 2**20)

        return Dataset.open(path, verify=True, on_bytes=show)


def check_same_data(experiment: Experiment, study: optuna.Study, dataset: Dataset) -> None:
    """Scores on different data cannot be compared: an experiment goes on with what it began with.

    Raises:
        InputError: if the data set is another one.
    """
    fingerprint = study.user_attrs.get("data_fingerprint")
    if fingerprint is None:
        study.set_user_attr("data_fingerprint", dataset.info.fingerprint)
    elif fingerprint != dataset.info.fingerprint:
        raise InputError(
            f"The data set '{dataset.path}' changed since '{experiment.name}' began (fingerprint "
            f"{dataset.info.fingerprint[:12]}, then {fingerprint[:12]}); bring the old one back, or start anew."
        )


def split_counts(dataset: Dataset, config: DataConfig, *, samples: int | None = None, seed: int = 0) -> dict[str, int]:
    """Samples of each part; of the training part those that are read where `samples` are asked for.

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
    image_sizes: Iterable[int],
    models: Iterable[ModelConfig],
    checkpoints: int,
) -> None:
    """See to it that the disk has room for so many checkpoints of the largest model, beside decoded pictures.

    Of those, what does not fit is decoded on the fly; checkpoints have to fit.

    Raises:
        InputError: if it has not, or the cache cannot be written.
    """
    place, cache = experiment.root, open_cache()
    needed: float = 4 * _largest(models) * checkpoints
    if place.stat().st_dev == cache.stat().st_dev:
        counts = dataset.info.counts
        decoded = sum(decoded_bytes(counts.samples, counts.backgrounds, size) for size in set(image_sizes))
        needed += growth_bytes(cache, dataset.info.fingerprint, decoded)
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"Up to {byte_size(needed)} are needed at '{place}', but {byte_size(free)} are free; make room for "
            f"{byte_size(needed - free)} more, choose another --storage or $TWINHEAD_CACHE, or lower data.image_size, "
            "budget.trials or $TWINHEAD_CACHE_GB."
        )


def make_job(
    experiment: Experiment,
    dataset: Dataset,
    workers: Workers,
    checkpoint_epochs: Iterable[int],
    *,
    samples: int | None = None,
    seed: int = 0,
    ms_per_picture: float | None = None,
    timed: bool = False,
) -> TrialJob:
    """What an experiment's trials have in common.

    Args:
        experiment: where they lie.
        dataset: what they read.
        workers: what each uses.
        checkpoint_epochs: epochs after which a checkpoint is due, beside the best ones.
        samples: how many training samples they read; all when left out.
        seed: which samples.
        ms_per_picture: how long a network may take; without a limit when left out.
        timed: whether they measure how long theirs takes all the same.
    """
    path, fingerprint = str(dataset.path.absolute()), dataset.info.fingerprint
    return TrialJob(
        data=TrialData(path=path, fingerprint=fingerprint, samples=samples, samples_seed=seed),
        workers=workers,
        checkpoint_epochs=frozenset(checkpoint_epochs),
        group_storage=str(experiment.groups),
        storage=str(experiment.root),
        ms_per_picture=ms_per_picture,
        timed=timed,
        measurements=str(experiment.measurements),
    )


def on_everything(job: TrialJob) -> TrialJob:
    """The job without what was left out for the search's sake: all samples, and no limit that was kept to already."""
    return replace(job, data=replace(job.data, samples=None), ms_per_picture=None, timed=False)


def alone(job: TrialJob, concurrent: int, cpus: int | Literal["auto"] = "auto") -> TrialJob:
    """The job of a trial that has this machine to itself.

    Args:
        job: a trial's.
        concurrent: trials whose cores it may have, of which it uses as many as are measured to be fastest.
        cpus: how many it uses otherwise, of each worker.
    """
    workers = job.workers
    if cpus != "auto":
        return replace(job, workers=replace(workers, cpus=cpus))
    if workers.is_group or workers.gpus or not has_one_node():
        return job
    return replace(job, workers=replace(workers, cpus=workers.cpus * concurrent, measures_threads=True))


def decode(configs: Sequence[DataConfig], job: TrialJob, dataset: Dataset, screen: Screen) -> None:
    """Decode every part on this node; on a cluster of several, each node's first trial decodes its own.

    Where another process decodes the same, the bar shows how far that one is. What does not fit is said once.
    """
    if not has_one_node():
        return
    splits = []  # all are held until the end: one that made room for the next would be decoded again
    with (
        screen.warnings(),
        screen.bar("decoding", len(configs) * dataset.info.counts.samples, "samples") as move,
    ):
        for config in configs:
            for part in PARTS:
                splits.append(read_part(config, job.data, part, lambda count: move(count, "")))  # noqa: PERF401


def each_uses(workers: Workers) -> str:
    """What a trial uses, in words."""
    gpus = f" and {workers.count * workers.gpus:g} GPU" if workers.gpus else ""
    limit = "up to " if workers.measures_threads and workers.cpus > 1 else ""
    return f"{limit}{workers.count * workers.cpus} CPU{gpus}"


def announce_dashboard(screen: Screen, dashboard: str) -> None:
    """Say where the cluster can be watched, if it can."""
    if dashboard:
        screen.say(f"dashboard: {dashboard} (its token: ray get-auth-token)")


def _largest(models: Iterable[ModelConfig]) -> int:
    """Parameters of the largest network."""
    with torch.device("meta"):
        return max(parameter_count(build_model(config)) for config in models)
