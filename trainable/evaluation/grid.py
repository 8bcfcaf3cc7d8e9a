"""Predictions: of a batch, as pixels, and as a grid of images that is stored with the best checkpoint of a trial."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from data.grids import image_grid
from data.loader import Loader
from data.schema import Batch, Pixels
from trainable.config import ModelConfig, TrialConfig
from trainable.loop.precision import autocast
from trainable.models.prediction import Prediction

COLUMNS = ("background", "with foreground", "mask", "predicted mask", "depth", "predicted depth")
MIN_CELL, MAX_CELL = 64, 128
"""Bounds of the image size in pixels in the grid of an epoch."""


@torch.no_grad()
def predict(model: nn.Module, batch: Batch, config: ModelConfig) -> Prediction:
    """Predict mask and depth of a batch, (B, 1, H, W) float32 on the device of the batch."""
    model.eval()
    with autocast(config, batch.bg.device):
        prediction: Prediction = model(*batch.inputs())
    return prediction


def as_pixels(prediction: Prediction) -> tuple[Pixels, Pixels]:
    """Mask probability and depth, each (B, H, W) uint8: 0..1 is scaled to 0..255 and clipped."""
    mask, depth = (
        (plane.clamp(0, 1) * 255).round().to(torch.uint8).squeeze(1).cpu().numpy()
        for plane in (prediction.mask, prediction.depth)
    )
    return mask, depth


def grid_of_epoch(model: nn.Module, loader: Loader, config: TrialConfig) -> Pixels:
    """The prediction grid of an epoch. Its images are kept small, because every best epoch writes one."""
    return prediction_grid(model, loader, config.model, cell=min(max(config.data.image_size, MIN_CELL), MAX_CELL))


def prediction_grid(
    model: nn.Module, loader: Loader, config: ModelConfig, *, images: int = 4, cell: int = 128
) -> Pixels:
    """Render a grid (H, W, 3) with the columns `COLUMNS` and a row for each of a few samples of the split.

    Each image is `cell` pixels wide.
    """
    chosen = np.unique(np.linspace(0, len(loader.split) - 1, images).round().astype(np.int64))
    return grid_of(model, loader, config, chosen, cell=cell)


def grid_of(
    model: nn.Module,
    loader: Loader,
    config: ModelConfig,
    chosen: NDArray[np.int64],
    *,
    row_titles: Sequence[str] | None = None,
    cell: int = 128,
) -> Pixels:
    """Render a grid (H, W, 3) with the columns `COLUMNS` and a row for each chosen sample.

    Args:
        model: the network.
        loader: of a split.
        config: of the network.
        chosen: positions in the split, in any order.
        row_titles: one for each, left of the row.
        cell: width of each image in pixels.
    """
    rows = prediction_rows(model, loader.batch(chosen), config)
    return image_grid(rows, COLUMNS, row_titles=row_titles, cell=cell)


def prediction_rows(model: nn.Module, batch: Batch, config: ModelConfig) -> list[tuple[Pixels, ...]]:
    """For each sample of a batch, its images and predictions as pixels, in the order of `COLUMNS`."""
    mask, depth = as_pixels(predict(model, batch, config))
    photos = (stack.permute(0, 2, 3, 1).cpu().numpy() for stack in (batch.bg, batch.fg_bg))
    truth = (stack.squeeze(1).cpu().numpy() for stack in (batch.mask, batch.depth))
    (bg, fg_bg), (true_mask, true_depth) = photos, truth
    return list(zip(bg, fg_bg, true_mask, mask, true_depth, depth, strict=True))
