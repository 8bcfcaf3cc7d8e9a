"""The loaders of a trial: which samples of the data set it reads, at which size, and in which order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter, is_on_device
from data.augment.erase import BLACK, Colour, Erase
from data.augment.transforms import Transforms
from data.cache.cache import cache_root, decoded
from data.cache.decoded import DecodedSplit
from data.composed.device import DeviceComposer, device_composer
from data.dataset.dataset import Dataset
from data.dataset.manifest import SampleIds
from data.errors import InputError, environment
from data.loader import Loader, batch_count
from data.splits.splits import SplitKey, rows
from data.splits.subset import subset
from trainable.config import DataConfig, TrialConfig
from trainable.job import TrialData
from trainable.loop.state import DistributedContext

MID_GREY: Colour = (127.5, 127.5, 127.5)
EVALUATION_BATCH_SIZE = 64
"""Samples of an evaluation batch over all workers. Without gradients, it can be larger than a training batch."""


def training_loaders(config: TrialConfig, data: TrialData, context: DistributedContext) -> list[Loader]:
    """The training loader of each epoch, shuffled and augmented. Epochs of the same stage share a loader."""
    loaders = {stage: _training_loader(config, data, context, stage) for stage in dict.fromkeys(_stages(config))}
    return [loaders[stage] for stage in _stages(config)]


def with_scaled_batches(config: TrialConfig, factor: float) -> TrialConfig:
    """`config` with the batch size of each stage times `factor`, rounded, but at least 1."""
    if factor == 1:
        return config

    def scaled(size: int) -> int:
        return max(1, round(size * factor))

    stages = [
        stage.model_copy(update={"batch_size": scaled(stage.batch_size) if stage.batch_size else None})
        for stage in config.data.progression
    ]
    data = {"batch_size": scaled(config.data.batch_size), "progression": stages}
    return config.model_copy(update={"data": config.data.model_copy(update=data)})


def _stages(config: TrialConfig) -> list[int]:
    """The stage index of each epoch: an index into `data.progression`, or its length for the final stage.

    A stage gets its share of the epochs, rounded, but at least one, as long as one is left for the final stage.
    """
    ends: list[int] = []
    share = 0.0
    for stage in config.data.progression:
        share += stage.share
        end = max(round(share * config.epochs), (ends[-1] if ends else 0) + 1)
        ends.append(min(end, config.epochs - 1))
    return [sum(epoch >= end for end in ends) for epoch in range(config.epochs)]


def optimizer_steps(config: TrialConfig, samples: int, workers: int = 1) -> int:
    """The number of optimizer steps in all epochs of `config` on `samples` training samples."""
    sizes = (max(_stage_config(config.data, stage).batch_size, workers) for stage in _stages(config))
    return config.optimizer.steps_per_batch * sum(batch_count(samples, size, workers) for size in sizes)


def _stage_config(config: DataConfig, stage: int) -> DataConfig:
    """`config` with the image size and batch size of a stage."""
    if stage >= len(config.progression):
        return config
    early = config.progression[stage]
    size = early.image_size(config.image_size)
    return config.model_copy(update={"image_size": size, "batch_size": early.batch_size or config.batch_size})


def _training_loader(config: TrialConfig, data: TrialData, context: DistributedContext, stage: int) -> Loader:
    stage_config = _stage_config(config.data, stage)
    split, augmenter = read_part(stage_config, data, data.train), _augmenter(config, context.device)
    return Loader(
        split=split,
        batch_size=max(stage_config.batch_size, context.world_size),
        device=context.device,
        shuffle=True,
        augmenter=augmenter,
        composer=_composer(split, augmenter, context.device),
        seed=config.seed,
        rank=context.rank,
        world_size=context.world_size,
    )


def evaluation_loader(config: TrialConfig, data: TrialData, part: str, context: DistributedContext) -> Loader:
    """A loader of `part` in storage order, augmented only if `data.augment.in_evaluation` is set."""
    split = read_part(config.data, data, part)
    augmenter = _augmenter(config, context.device) if config.data.augment.in_evaluation else None
    return Loader(
        split=split,
        batch_size=max(EVALUATION_BATCH_SIZE, context.world_size),
        device=context.device,
        augmenter=augmenter,
        composer=_composer(split, augmenter, context.device),
        seed=config.seed,
        rank=context.rank,
        world_size=context.world_size,
    )


def _composer(
    split: DecodedSplit, augmenter: Augmenter | DeviceAugmenter | None, device: torch.device
) -> DeviceComposer | None:
    """What composes the batches of a recipe on a GPU; None if they are changed on the CPU, or come from there."""
    return None if isinstance(augmenter, Augmenter) else device_composer(split, device)


def _augmenter(config: TrialConfig, device: torch.device) -> Augmenter | DeviceAugmenter:
    augment = config.data.augment
    options = augment.model_dump(exclude={"erase", "in_evaluation", "transforms", "transforms_apart"})
    erasing = augment.erase
    bg_fill = fg_bg_fill = BLACK
    if erasing.fill == "mean":
        inputs = config.model.normalise
        is_normalised = inputs != type(inputs)()
        bg_fill, fg_bg_fill = (
            _colour(mean) if is_normalised else MID_GREY for mean in (inputs.bg_mean, inputs.fg_bg_mean)
        )
    erase = Erase(**erasing.model_dump(exclude={"fill"}), bg_fill=bg_fill, fg_bg_fill=fg_bg_fill)
    if augment.transforms:
        transforms = Transforms(augment.transforms, apart=augment.transforms_apart)
        return Augmenter(**options, erase=erase, transforms=transforms)
    kind = DeviceAugmenter if is_on_device(config.data.augment_on, device) else Augmenter
    return kind(**options, erase=erase)


def _colour(mean: Sequence[float]) -> Colour:
    """Scale a channel mean in 0..1 to a colour in 0..255."""
    red, green, blue = (255 * value for value in mean)
    return red, green, blue


def read_part(
    config: DataConfig, data: TrialData, part: str, on_samples: Callable[[int], None] | None = None
) -> DecodedSplit:
    """Decode `part` of the data set at the image size of `config`, or open it from the node's cache.

    Raises:
        EnvironmentFaultError: if the data set or the cache cannot be used, or the fingerprint of the data set differs
            from that in `data`.
    """
    with environment(f"The data set '{data.path}' or the cache '{cache_root()}'"):
        dataset = _open(data.path, data.fingerprint)
        return decoded(
            dataset,
            _rows(config, data, part),
            config.image_size,
            resize=config.resize,
            fit=config.fit,
            on_samples=on_samples,
        )


def background_ids(config: DataConfig, data: TrialData, part: str) -> tuple[str, ...]:
    """The background id of each sample of `part`, in the order of `read_part`."""
    ids = _ids(data.path, data.fingerprint).bg_id
    return tuple(ids[row] for entry in _rows(config, data, part) for row in entry)


def sample_ids(config: DataConfig, data: TrialData, part: str) -> tuple[str, ...]:
    """The id of each sample of `part`, in the order of `read_part`."""
    ids = _ids(data.path, data.fingerprint).sample_id
    return tuple(ids[row] for entry in _rows(config, data, part) for row in entry)


def sample_count(config: DataConfig, data: TrialData, part: str) -> int:
    """The number of samples of `part`, without decoding them."""
    return sum(len(entry) for entry in _rows(config, data, part))


def _rows(config: DataConfig, data: TrialData, part: str) -> list[NDArray[np.int64]]:
    """The rows of each part that is joined by '+'. Each is an entry of the cache."""
    return [_rows_of_part(data, name, config.split_by, config.shares) for name in part.split("+")]


@functools.lru_cache(maxsize=8)
def _rows_of_part(
    data: TrialData, part: str, split_by: SplitKey, shares: tuple[float, float, float]
) -> NDArray[np.int64]:
    """Cached per process: splitting 400,000 samples is slow, and most trials of a search read the same part."""
    ids = _ids(data.path, data.fingerprint)
    selected = rows(ids, part, split_by, shares)
    if data.samples is not None and part == "train":
        selected = subset(ids, selected, data.samples, split_by=split_by, seed=data.samples_seed)
    selected.flags.writeable = False
    return selected


def _open(path: str, fingerprint: str) -> Dataset:
    dataset = Dataset.open(path)
    if dataset.info.fingerprint != fingerprint:
        raise InputError(
            f"The data set '{path}' has the fingerprint {dataset.info.fingerprint}, but must be {fingerprint} as when "
            "the search began; put it back, or start a new search."
        )
    return dataset


@functools.lru_cache(maxsize=2)
def _ids(path: str, fingerprint: str) -> SampleIds:
    """The ids of the data set, cached per process: reading those of 400,000 samples is slow."""
    return _open(path, fingerprint).ids
