"""Checkpoints and baselines on one part of a data set, with the same metrics on the same pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from data.pictures import save_png
from trainable.baselines import evaluate_baselines, fit_baselines
from trainable.checkpoint import load_model
from trainable.config import DataConfig
from trainable.loop import World, evaluate
from trainable.pictures import prediction_grid
from trainable.precision import resolve
from trainable.trial import TrialData, evaluation_loader


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
    model, origin = load_model(directory)
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = resolve(origin.config, device)
    world = World(device=device)
    loader = evaluation_loader(config.data, data, part, world)
    metrics = evaluate(model, loader, config, world)
    if pictures is not None:
        save_png(prediction_grid(model, loader, config.model), pictures)
    return metrics


def evaluate_baselines_on(config: DataConfig, data: TrialData, part: str) -> dict[str, dict[str, Any]]:
    """Metrics on `part` of what needs no network, fitted to the training split.

    Returns:
        `mask_threshold` and `depth_mean`, each with the keys of the metrics that it predicts.

    Raises:
        InputError: if the training split or the part has no samples.
    """
    world = World(device=torch.device("cpu"))
    fitted = fit_baselines(evaluation_loader(config, data, "train", world).epoch(0))
    return evaluate_baselines(fitted, evaluation_loader(config, data, part, world).epoch(0))
