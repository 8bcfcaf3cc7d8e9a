"""What has to be in order before trials start: the data, its split, room on the disks, decoded pictures, the job."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import torch

from data.cache import cache_root, decoded_bytes
from data.errors import InputError
from data.shards import Dataset
from data.splits import rows
from search.cluster import has_one_node
from search.experiment import Experiment
from search.progress import Screen
from trainable.config import DataConfig, ModelConfig
from trainable.models import build_model, parameter_count
from trainable.trainer import TrialJob, Workers
from trainable.trial import TrialData, read_part

PARTS = ("train", "val", "test")
OPTIMIZER_COPIES = 3
"""A checkpoint that can be gone on with holds the weights and up to two moments of each."""


def open_data(path: str, screen: Screen) -> Dataset:
    """A data set whose every part was compared with its checksum.

    Raises:
        InputError: if it is missing, of a newer schema, truncated or altered.
    """
    size = sum(part.bytes for part in Dataset.open(Path(path)).info.parts)
    with screen.bar("checking the data", -(-size // 2**20), "MiB") as move:
        done = 0

        def show(checked: int) -> None:
            nonlocal done
            move(-(-checked // 2**20) - done, "")
            done = -(-checked // 2**20)

        return Dataset.open(Path(path), verify=True, on_bytes=show)


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


def split_counts(dataset: Dataset, config: DataConfig) -> dict[str, int]:
    """Samples of each part.

    Raises:
        InputError: if a part has none.
    """
    return {part: len(rows(dataset.ids, part, config.split_by, config.shares)) for part in PARTS}


def check_disk(
    experiment: Experiment,
    dataset: Dataset,
    image_sizes: Iterable[int],
    models: Iterable[ModelConfig],
    checkpoints: int,
) -> None:
    """See to it that the disks have room for so many checkpoints of the largest model, and for decoded pictures.

    Raises:
        InputError: if one has not.
    """
    counts = dataset.info.counts
    needs = {
        experiment.root: 4 * _largest(models) * checkpoints,
        cache_root(): sum(decoded_bytes(counts.samples, counts.backgrounds, size) for size in set(image_sizes)),
    }
    for place, needed in needs.items():
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        if free < needed:
            raise InputError(
                f"Up to {needed / 1e9:.1f} GB are needed at '{place}', but {free / 1e9:.1f} GB are free; make "
                "room, choose another --storage or $TWINHEAD_CACHE, or lower data.image_size or budget.trials."
            )


def make_job(experiment: Experiment, dataset: Dataset, workers: Workers, checkpoint_epochs: Iterable[int]) -> TrialJob:
    """What an experiment's trials have in common."""
    return TrialJob(
        data=TrialData(path=str(dataset.path.absolute()), fingerprint=dataset.info.fingerprint),
        workers=workers,
        checkpoint_epochs=frozenset(checkpoint_epochs),
        group_storage=str(experiment.groups),
    )


def alone(job: TrialJob, concurrent: int) -> TrialJob:
    """The job with the cores of so many trials: for one that has this machine to itself."""
    workers = job.workers
    if workers.is_group or workers.gpus or not has_one_node():
        return job
    return replace(job, workers=replace(workers, cpus=workers.cpus * concurrent))


def decode(configs: Sequence[DataConfig], job: TrialJob, dataset: Dataset, screen: Screen) -> None:
    """Decode every part on this node; on a cluster of several, each node's first trial decodes its own."""
    if not has_one_node():
        return
    with screen.bar("decoding", len(configs) * dataset.info.counts.samples, "samples") as move:
        for config in configs:
            for part in PARTS:
                read_part(config, job.data, part, lambda count: move(count, ""))


def each_uses(workers: Workers) -> str:
    """What a trial holds, in words."""
    gpus = f" and {workers.count * workers.gpus:g} GPU" if workers.gpus else ""
    return f"{workers.count * workers.cpus} CPU{gpus}"


def announce_dashboard(screen: Screen, dashboard: str) -> None:
    """Say where the cluster can be watched, if it can."""
    if dashboard:
        screen.say(f"dashboard: {dashboard} (its token: ray get-auth-token)")


def _largest(models: Iterable[ModelConfig]) -> int:
    """Parameters of the largest network."""
    with torch.device("meta"):
        return max(parameter_count(build_model(config)) for config in models)
