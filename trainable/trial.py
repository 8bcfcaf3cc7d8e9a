"""One trial from a configuration and a data set: everything around the loop but Ray.

python -m trainable.trial DATA OUT epochs=2 optimizer.lr=0.01     # in this process, for a debugger
"""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter, is_on_device
from data.augment.erase import BLACK, Colour, Erase
from data.cache.cache import DecodedSplit, cache_root, decoded
from data.dataset.dataset import Dataset
from data.dataset.manifest import SampleIds
from data.errors import EnvironmentFaultError, InputError, environment
from data.loader import Loader, batch_count
from data.splits.splits import SplitKey, rows
from data.splits.subset import subset
from trainable.config import DataConfig, TrialConfig, build
from trainable.job import TrialData
from trainable.loop import loop
from trainable.loop.checkpoint import DamagedCheckpointError
from trainable.loop.loop import EpochEnd, Report
from trainable.loop.precision import settle
from trainable.loop.state import Training, World, start

SIDE_STEP = 16
"""Sides of pictures are multiples of it, so that every family can halve them."""
MID_GREY: Colour = (127.5, 127.5, 127.5)
EVALUATION_BATCH = 64
"""Pictures of an evaluation batch over all workers: without gradients, it can be larger than a training batch."""


def run(
    config: TrialConfig,
    data: TrialData,
    *,
    world: World,
    report: Callable[[EpochEnd, Training, Loader | None], None],
    checkpoint_epochs: frozenset[int] = frozenset(),
    resume_from: Sequence[Path] = (),
    replay: Sequence[float] | None = None,
    spread: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Training:
    """Train `config` on `data` from its first epoch, or from a checkpoint, to its last.

    Args:
        config: what to train.
        data: what to train on.
        world: where this process stands among its workers.
        report: called after each epoch, with the training and the loader it was evaluated on.
        checkpoint_epochs: epochs after which a checkpoint is due, beside the best ones.
        resume_from: checkpoints with state, the newest first. The training goes on from the first that is whole, and
            notes which are damaged; it starts over where all are.
        replay: see `trainable.training.start`.
        spread: see `trainable.training.start`.

    Raises:
        EnvironmentFaultError: if the data set or the cache cannot be used, the data set is not what `data` says, or a
            checkpoint is gone.
        InputError: if a checkpoint is of another network.
        NonFiniteLossError: at the first loss that is not finite.
    """
    config = settle(config, world, resume_from=resume_from)
    with environment(f"The data set '{data.path}' or the cache '{cache_root()}'"):
        train = training_loaders(config, data, world)
        val = evaluation_loader(config, data, data.val, world) if data.val else None
    training = start(
        config,
        steps_of_epochs=[len(loader) for loader in train],
        world=world,
        data_fingerprint=data.fingerprint,
        replay=list(replay) if replay is not None else None,
        spread=spread,
    )
    _resume(training, resume_from, world)
    # No closure: the frame of one, which an error keeps, keeps the training.
    listener: Report = functools.partial(_tell, report, training, val)
    loop.fit(training, train, val, world=world, report=listener, checkpoint_epochs=checkpoint_epochs)
    return training


def _tell(
    report: Callable[[EpochEnd, Training, Loader | None], None], training: Training, val: Loader | None, end: EpochEnd
) -> None:
    report(end, training, val)


def _resume(training: Training, checkpoints: Sequence[Path], world: World) -> None:
    """Go on from the first of `checkpoints` that is whole, on all workers from the same."""
    problems: list[str] = []
    for directory in checkpoints:
        if not directory.is_dir():
            raise EnvironmentFaultError(f"The checkpoint '{directory}' is gone; bring the storage back.")
        own: DamagedCheckpointError | None = None
        try:
            training.resume(directory)
        except DamagedCheckpointError as error:
            own = error
        problem = world.first(f"the file '{own.file}' {own.problem}" if own else "")
        if bool(problem) != bool(own):
            raise own or InputError(f"Workers read different bytes in '{directory}' ({problem}); start the trial anew.")
        if not problem:
            break
        problems.append(problem)
    if problems:
        how = f"the trial goes on after epoch {training.epoch}" if training.epoch else "the trial starts over"
        training.note = f"{'; '.join(problems)}; {how}"


@contextlib.contextmanager
def giving_memory_back(device: torch.device) -> Iterator[None]:
    """Within it a trial runs; afterwards its device has its memory back, for the process may have further trials.

    So it has when the trial was stopped: an error keeps what the functions that it left were working on.
    """
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()


def training_loaders(config: TrialConfig, data: TrialData, world: World) -> list[Loader]:
    """For each epoch, shuffled and augmented batches of `data.train`; epochs of one stage share a loader."""
    loaders = {stage: _training_loader(config, data, world, stage) for stage in dict.fromkeys(_stages(config))}
    return [loaders[stage] for stage in _stages(config)]


def _stages(config: TrialConfig) -> list[int]:
    """For each epoch, the number of its stage in `data.progression`; the last stage has the number after.

    A stage has its share of the epochs, rounded, but at least one, as long as one is left for the last stage.
    """
    ends: list[int] = []
    share = 0.0
    for stage in config.data.progression:
        share += stage.share
        wanted = max(round(share * config.epochs), (ends[-1] if ends else 0) + 1)
        ends.append(min(wanted, config.epochs - 1))
    return [sum(epoch >= end for end in ends) for epoch in range(config.epochs)]


def optimizer_steps(config: TrialConfig, samples: int, workers: int = 1) -> int:
    """Optimizer steps of all epochs of `config` on so many training samples."""
    sizes = (max(_of_stage(config.data, stage).batch_size, workers) for stage in _stages(config))
    return config.optimizer.steps_per_batch * sum(batch_count(samples, size, workers) for size in sizes)


def _of_stage(config: DataConfig, stage: int) -> DataConfig:
    """What the epochs of a stage read."""
    if stage >= len(config.progression):
        return config
    early = config.progression[stage]
    side = max(1, round(early.scale * config.image_size / SIDE_STEP)) * SIDE_STEP
    return config.model_copy(update={"image_size": side, "batch_size": early.batch_size or config.batch_size})


def _training_loader(config: TrialConfig, data: TrialData, world: World, stage: int) -> Loader:
    seen = _of_stage(config.data, stage)
    return Loader(
        split=read_part(seen, data, data.train),
        batch_size=max(seen.batch_size, world.size),
        device=world.device,
        shuffle=True,
        augmenter=_augmenter(config, world.device),
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
    )


def evaluation_loader(config: TrialConfig, data: TrialData, part: str, world: World) -> Loader:
    """Batches of `part` in storage order, unchanged unless a published error is asked for."""
    return Loader(
        split=read_part(config.data, data, part),
        batch_size=max(EVALUATION_BATCH, world.size),
        device=world.device,
        augmenter=_augmenter(config, world.device) if config.data.augment.in_evaluation else None,
        seed=config.seed,
        rank=world.rank,
        world_size=world.size,
    )


def _augmenter(config: TrialConfig, device: torch.device) -> Augmenter | DeviceAugmenter:
    given = config.data.augment.model_dump(exclude={"erase", "in_evaluation"})
    erasing = config.data.augment.erase
    bg_fill = fg_bg_fill = BLACK
    if erasing.fill == "mean":
        means = config.model.normalise
        normalises = means != type(means)()
        bg_fill, fg_bg_fill = (_colour(mean) if normalises else MID_GREY for mean in (means.bg_mean, means.fg_bg_mean))
    erase = Erase(**erasing.model_dump(exclude={"fill"}), bg_fill=bg_fill, fg_bg_fill=fg_bg_fill)
    kind = DeviceAugmenter if is_on_device(config.data.augment_on, device) else Augmenter
    return kind(**given, erase=erase)


def _colour(mean: Sequence[float]) -> Colour:
    """In 0..255."""
    red, green, blue = (255 * value for value in mean)
    return red, green, blue


def read_part(
    config: DataConfig, data: TrialData, part: str, on_samples: Callable[[int], None] | None = None
) -> DecodedSplit:
    """`part` of the data set, decoded at the configuration's image size or found in the node's cache.

    Raises:
        EnvironmentFaultError: if the data set or the cache cannot be used, or the data set is not what `data` says.
    """
    with environment(f"The data set '{data.path}' or the cache '{cache_root()}'"):
        dataset = _open(data.path, data.fingerprint)
        entries = _rows(config, data, part)
        return decoded(dataset, entries, config.image_size, resize=config.resize, on_samples=on_samples)


def background_ids(config: DataConfig, data: TrialData, part: str) -> tuple[str, ...]:
    """The background of each sample of `part`, in the order in which `read_part` has them."""
    of_sample = _ids(data.path, data.fingerprint).bg_id
    return tuple(of_sample[row] for rows_of_entry in _rows(config, data, part) for row in rows_of_entry)


def sample_count(config: DataConfig, data: TrialData, part: str) -> int:
    """Samples of `part`, of which nothing is decoded."""
    return sum(len(entry) for entry in _rows(config, data, part))


def _rows(config: DataConfig, data: TrialData, part: str) -> list[NDArray[np.int64]]:
    """Rows of each part that '+' joins: entries of the cache, read one after the other."""
    return [_rows_of_one(data, name, config.split_by, config.shares) for name in part.split("+")]


@functools.lru_cache(maxsize=8)
def _rows_of_one(
    data: TrialData, part: str, split_by: SplitKey, shares: tuple[float, float, float]
) -> NDArray[np.int64]:
    """Found once a process: the ids of 400,000 samples take their time, and most trials of a search read the same."""
    ids = _ids(data.path, data.fingerprint)
    found = rows(ids, part, split_by, shares)
    if data.samples is not None and part == "train":
        found = subset(ids, found, data.samples, split_by=split_by, seed=data.samples_seed)
    found.flags.writeable = False
    return found


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
    """The ids of the data set, read once a process: they take a moment at 400,000 samples."""
    return _open(path, fingerprint).ids


def main(data_path: str, out: str, *settings: str) -> None:
    """Train in this process, and keep the best checkpoint in `out`.

    Args:
        data_path: a data set's directory or address.
        out: the checkpoint's directory.
        settings: changes of the default configuration, such as 'epochs=2' or 'optimizer.lr=0.01'.

    Raises:
        InputError: if the data set or a setting cannot be used.
    """
    config = build(TrialConfig, _nested(settings), source="the command line")
    dataset = Dataset.open(data_path)
    data = TrialData(path=data_path, fingerprint=dataset.info.fingerprint)

    def report(end: EpochEnd, training: Training, _: Loader | None) -> None:
        sys.stdout.write(f"epoch {end.epoch}: {end.metrics}\n")
        if training.best_epoch == end.epoch:
            training.save(Path(out), end.metrics)

    run(config, data, world=World(device=torch.device("cpu")), report=report)


def _nested(settings: Sequence[str]) -> dict[str, Any]:
    """{'optimizer': {'lr': 0.01}} of 'optimizer.lr=0.01'; a value that is no JSON is a string."""
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        *sections, name = key.split(".")
        section = values
        for part in sections:
            section = section.setdefault(part, {})
        try:
            section[name] = json.loads(text)
        except ValueError:
            section[name] = text
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
