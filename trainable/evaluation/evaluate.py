"""Checkpoints and baselines on one part of a data set, with the same metrics on the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.grids import save_png
from trainable.config import Augmentation, DataConfig, TrialConfig
from trainable.evaluation.grid import predict, prediction_grid
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model
from trainable.loop.loop import evaluate
from trainable.loop.precision import as_recorded
from trainable.loop.state import World
from trainable.metrics.baselines import evaluate_baselines, fit_baselines
from trainable.metrics.per_image import OWN, STATES, PictureFigures
from trainable.metrics.pooled import finite_mask
from trainable.metrics.published import OWN_METRICS, PublishedMetrics, picture_columns
from trainable.recipes import Evaluation
from trainable.trial import background_ids, evaluation_loader


def evaluate_checkpoint(
    directory: Path, data: TrialData, part: str, *, device: torch.device, pictures: Path | None = None
) -> dict[str, float]:
    """Metrics of the network in `directory` on `part`, at the image size and split that it was trained with.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.rows`.
        device: where to compute.
        pictures: a PNG file to write a grid of predictions to.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
    """
    with _network(directory, device) as (model, config):
        world = World(device=device)
        loader = evaluation_loader(config, data, part, world)
        metrics = evaluate(model, loader, config, world)
        if pictures is not None:
            save_png(prediction_grid(model, loader, config.model), pictures)
    return metrics


def evaluate_pictures(
    directory: Path, data: TrialData, part: str, *, device: torch.device, pictures: Path | None = None
) -> PictureFigures:
    """What `trainable.bootstrap` resamples: the figures of each picture of `part`, in storage order.

    The pictures are unchanged, also where the configuration has the published error of changing those that are
    evaluated on: networks are compared on the same ones.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.rows`.
        device: where to compute.
        pictures: a PNG file to write a grid of predictions to.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
    """
    with _network(directory, device) as (model, config):
        loader = replace(evaluation_loader(config, data, part, World(device=device)), augmenter=None)
        found = []
        for batch in loader.epoch(0):
            prediction = predict(model, batch, config.model)
            found.append(picture_columns(finite_mask(prediction), prediction.depth, batch.mask, batch.depth).cpu())
        if pictures is not None:
            save_png(prediction_grid(model, loader, config.model), pictures)
    columns = torch.cat(found).numpy()
    own = dict(zip(OWN, columns[:, len(STATES) :].T, strict=True))
    return PictureFigures(bg_ids=background_ids(config.data, data, part), states=columns[:, : len(STATES)], own=own)


def evaluate_published(
    directory: Path, data: TrialData, part: str, metric: str, evaluation: Evaluation, *, device: torch.device
) -> dict[str, float]:
    """A published project's own metric of the network in `directory` on `part`.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.rows`.
        metric: a key of `OWN_METRICS`; any other gives nothing.
        evaluation: what it is taken of; averaged over batches, these have the size of those for training.
        device: where to compute.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
    """
    if metric not in OWN_METRICS:
        return {}
    metrics = PublishedMetrics(on=evaluation.on, average=evaluation.average)
    with _network(directory, device) as (model, config):
        loader = evaluation_loader(config, data, part, World(device=device))
        if evaluation.average == "batches":
            loader = replace(loader, batch_size=config.data.batch_size)
        for batch in loader.epoch(0):
            metrics.update(predict(model, batch, config.model), batch.mask, batch.depth)
    computed = metrics.compute()
    return {name: computed[name] for name in OWN_METRICS[metric]}


def evaluate_baselines_on(config: DataConfig, data: TrialData, part: str) -> dict[str, dict[str, Any]]:
    """Metrics on `part` of what needs no network, fitted to the training split; on unchanged pictures.

    Returns:
        `mask_threshold` and `depth_mean`, each with the keys of the metrics that it predicts.

    Raises:
        InputError: if the training split or the part has no samples.
    """
    world = World(device=torch.device("cpu"))
    unchanged = TrialConfig(data=config.model_copy(update={"augment": Augmentation()}))
    fitted = fit_baselines(evaluation_loader(unchanged, data, "train", world).epoch(0))
    return evaluate_baselines(fitted, evaluation_loader(unchanged, data, part, world).epoch(0))


@contextmanager
def _network(directory: Path, device: torch.device) -> Iterator[tuple[nn.Module, TrialConfig]]:
    """A checkpoint's network on the device, and its configuration; a network that draws draws the same each time."""
    model, origin = load_model(directory)
    model = model.on(device)
    config = as_recorded(origin.config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        yield model, config
