"""Evaluation of checkpoints and baselines on one part of a data set, with the same metrics on the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from data.grids import save_png
from data.loader import Loader
from data.schema import Batch, Pixels
from trainable.config import Augmentation, DataConfig, ModelConfig, TrialConfig
from trainable.evaluation.grid import predict, prediction_grid, prediction_rows
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model
from trainable.loop.loaders import background_ids, evaluation_loader
from trainable.loop.loop import evaluate
from trainable.loop.memory import in_batches_that_fit
from trainable.loop.precision import as_recorded, preserving_random_state
from trainable.loop.state import DistributedContext
from trainable.metrics.baselines import Baselines, evaluate_baselines, fit_baselines
from trainable.metrics.per_image import PUBLISHED, STATES, ImageFigures
from trainable.metrics.pooled import finite_mask, own_columns
from trainable.metrics.published import PUBLISHED_METRICS, PublishedMetrics, image_columns
from trainable.plugins.active import own_metrics
from trainable.recipes import Evaluation


def evaluate_checkpoint(
    directory: Path,
    data: TrialData,
    part: str,
    *,
    device: torch.device,
    grid: Path | None = None,
    may_augment: bool = True,
) -> dict[str, float]:
    """Evaluate the network in `directory` on `part`, with the image size and split of its training.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.splits.rows`.
        device: device of the computation.
        grid: PNG file for a grid of predictions.
        may_augment: whether the images are augmented if `data.augment.in_evaluation` says so.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
    """
    with _network(directory, device) as (model, config):
        context = DistributedContext(device=device)
        loader = evaluation_loader(config, data, part, context)
        if not may_augment:
            loader = replace(loader, augmenter=None)
        metrics = evaluate(model, loader, config, context)
        if grid is not None:
            save_png(prediction_grid(model, loader, config.model), grid)
    return metrics


def evaluate_images(
    directory: Path, data: TrialData, part: str, *, device: torch.device, grid: Path | None = None
) -> ImageFigures:
    """Measure each image of `part`, in storage order, for `trainable.metrics.bootstrap`.

    The images are not augmented, even with `data.augment.in_evaluation`, so that networks are compared on equal images.
    On an out-of-memory error, the measurement starts over with half the batch size.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.splits.rows`.
        device: device of the computation.
        grid: PNG file for a grid of predictions.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
    """
    with _network(directory, device) as (model, config):
        loader = replace(evaluation_loader(config, data, part, DistributedContext(device=device)), augmenter=None)
        measured = in_batches_that_fit(loader, partial(_measured, model, config.model))
        if grid is not None:
            save_png(prediction_grid(model, loader, config.model), grid)
    return _table(measured, config.data, data, part)


def predict_images(
    directory: Path, data: TrialData, part: str, rows: Sequence[int], *, device: torch.device
) -> list[tuple[Pixels, ...]]:
    """Predict some images of `part`, given by their positions in the table of `evaluate_images`.

    Returns:
        The images of each, in the order of `trainable.evaluation.grid.COLUMNS`.

    Raises:
        InputError: as `evaluate_images`.
    """
    with _network(directory, device) as (model, config):
        loader = replace(evaluation_loader(config, data, part, DistributedContext(device=device)), augmenter=None)
        return prediction_rows(model, loader.batch(np.asarray(rows, np.int64)), config.model)


def evaluate_published(
    directory: Path, data: TrialData, part: str, metric: str, evaluation: Evaluation, *, device: torch.device
) -> dict[str, float]:
    """Evaluate the network in `directory` on `part` with the metric of a published project.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.splits.rows`.
        metric: a key of `PUBLISHED_METRICS`; the result is empty for any other.
        evaluation: how the metric is computed. An average over batches uses the batch size of the training, which is
            part of the metric; on an out-of-memory error, any other evaluation starts over with half the batch size.
        device: device of the computation.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
        torch.OutOfMemoryError: if a batch of such an average, or a single sample, does not fit.
    """
    if metric not in PUBLISHED_METRICS:
        return {}
    with _network(directory, device) as (model, config):
        loader = evaluation_loader(config, data, part, DistributedContext(device=device))
        measure = partial(_published, model, config.model, evaluation)
        if evaluation.average == "batches":
            computed = measure(replace(loader, batch_size=config.data.batch_size))
        else:
            computed = in_batches_that_fit(loader, measure)
    return {name: computed[name] for name in PUBLISHED_METRICS[metric]}


def evaluate_baselines_on(
    config: DataConfig, data: TrialData, part: str, fitted: Baselines | None = None
) -> dict[str, dict[str, float]]:
    """Evaluate the baselines on `part`, fitted to the training split, both without augmentation.

    Args:
        config: size and split of the images.
        data: the data set.
        part: as in `data.splits.splits.rows`.
        fitted: as `fit_baselines_on` returns them; fitted here if they are None.

    Returns:
        The metrics of the baselines `mask_threshold` and `depth_mean`.

    Raises:
        InputError: if the training split or the part has no samples.
    """
    return evaluate_baselines(fitted or fit_baselines_on(config, data), _unchanged(config, data, part).epoch(0))


def fit_baselines_on(config: DataConfig, data: TrialData) -> Baselines:
    """Fit the baselines to the training split; raises as `evaluate_baselines_on`."""
    return fit_baselines(_unchanged(config, data, "train").epoch(0))


def baseline_images(config: DataConfig, data: TrialData, part: str, fitted: Baselines) -> ImageFigures:
    """Measure both baselines together on each image, as `evaluate_images` does a network; raises as that."""
    measured = []
    for batch in _unchanged(config, data, part).epoch(0):
        probability, depth = fitted.predict(batch)
        measured.append(_columns(probability, depth, batch))
    return _table(measured, config, data, part)


def _unchanged(config: DataConfig, data: TrialData, part: str) -> Loader:
    """The images of a part on the CPU, without augmentation."""
    unchanged = TrialConfig(data=config.model_copy(update={"augment": Augmentation()}))
    return evaluation_loader(unchanged, data, part, DistributedContext(device=torch.device("cpu")))


def _measured(model: nn.Module, config: ModelConfig, loader: Loader) -> list[Tensor]:
    """The measurements of the images of each batch."""
    measured = []
    for batch in loader.epoch(0):
        prediction = predict(model, batch, config)
        measured.append(_columns(finite_mask(prediction), prediction.depth, batch))
    return measured


def _published(model: nn.Module, config: ModelConfig, evaluation: Evaluation, loader: Loader) -> dict[str, float]:
    metrics = PublishedMetrics(on=evaluation.on, average=evaluation.average)
    for batch in loader.epoch(0):
        prediction = predict(model, batch, config)
        metrics.update(prediction, batch.mask, batch.depth, *batch.regions())
    return metrics.compute()


def _columns(mask: Tensor, depth: Tensor, batch: Batch) -> Tensor:
    """All measurements of each image of a batch, on the CPU, with the columns of `ImageFigures`."""
    planes = mask, depth, batch.mask, batch.depth, *batch.regions()
    return torch.cat([image_columns(*planes), own_columns(own_metrics(), *planes)], dim=1).cpu()


def _table(measured: list[Tensor], config: DataConfig, data: TrialData, part: str) -> ImageFigures:
    columns = torch.cat(measured).numpy()
    by_name = dict(zip([*PUBLISHED, *own_metrics()], columns[:, len(STATES) :].T, strict=True))
    return ImageFigures(
        bg_ids=background_ids(config, data, part),
        states=columns[:, : len(STATES)],
        published={name: by_name[name] for name in PUBLISHED},
        own={name: by_name[name] for name in own_metrics()},
    )


@contextmanager
def _network(directory: Path, device: torch.device) -> Iterator[tuple[nn.Module, TrialConfig]]:
    """A checkpoint's network on the device, and its configuration. The seed is fixed, for dropout in evaluation."""
    model, origin = load_model(directory)
    model = model.on(device)
    config = as_recorded(origin.config)
    with preserving_random_state(device):
        torch.manual_seed(config.seed)
        yield model, config
