"""Predictions: of a batch, as pixels, and as a grid of images that is stored with the best checkpoint of a trial."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from data.grids import depth_image, image_grid
from data.loader import Loader
from data.schema import Batch, Pixels
from trainable.config import ModelConfig, TrialConfig
from trainable.loop.precision import autocast, preserving_random_state
from trainable.models.prediction import Prediction

COLUMNS = ("background", "with foreground", "mask", "predicted mask", "depth", "predicted depth")
MIN_CELL, MAX_CELL = 64, 128
"""Bounds of the image size in pixels in the grid of an epoch."""


@torch.no_grad()
def predict(model: nn.Module, batch: Batch, config: ModelConfig) -> Prediction:
    """Predict mask and depth of a batch, (B, 1, H, W) float32 on the device of the batch."""
    model.eval()
    with autocast(config, batch.bg.device):
        prediction: Prediction = model(*batch.model_inputs())
    return prediction


def predict_photos(
    model: nn.Module, bg: Pixels, fg_bg: Pixels, config: TrialConfig, valid: Pixels | None = None
) -> Prediction:
    """Predict mask and depth, (B, 1, H, W) float32 each, of photographs of the network's size.

    Args:
        model: on its device.
        bg: (B, H, W, 3) RGB, backgrounds.
        fg_bg: (B, H, W, 3) RGB, the same with a foreground object.
        config: of the network, with its precision; the seed is for dropout in evaluation.
        valid: (B, H, W), `PADDING` in the border of padded photographs; None if there is none.
    """
    device = next(model.parameters()).device
    stacks = [torch.from_numpy(stack.copy()).permute(0, 3, 1, 2) for stack in (bg, fg_bg)]
    unused = torch.zeros(len(bg), 1, 1, 1, dtype=torch.uint8)
    border = None if valid is None else torch.from_numpy(valid.copy())[:, None]
    batch = Batch(bg=stacks[0], fg_bg=stacks[1], mask=unused, depth=unused, valid=border).to(device)
    with preserving_random_state(device):
        torch.manual_seed(config.seed)
        return predict(model, batch, config.model)


def as_pixels(prediction: Prediction) -> tuple[Pixels, Pixels]:
    """Mask probability and depth, each (B, H, W) uint8: 0..1 is scaled to 0..255 and clipped."""
    mask, depth = (
        (plane.clamp(0, 1) * 255).round().to(torch.uint8).squeeze(1).cpu().numpy()
        for plane in (prediction.mask, prediction.depth)
    )
    return mask, depth


def grid_of_epoch(model: nn.Module, loader: Loader, config: TrialConfig) -> Pixels:
    """The prediction grid of an epoch. Its images are kept small, because every best epoch writes one."""
    return prediction_grid(model, loader, config.model, cell=min(max(*config.data.sides, MIN_CELL), MAX_CELL))


def prediction_grid(
    model: nn.Module, loader: Loader, config: ModelConfig, *, images: int = 4, cell: int = 128
) -> Pixels:
    """Render a grid (H, W, 3) with the columns `COLUMNS` and a row for each of a few samples of the split.

    Each image is `cell` pixels wide.
    """
    chosen = np.unique(np.linspace(0, len(loader.split) - 1, images).round().astype(np.int64))
    return image_grid(prediction_rows(model, loader.batch(chosen), config), COLUMNS, cell=cell)


def prediction_rows(model: nn.Module, batch: Batch, config: ModelConfig) -> list[tuple[Pixels, ...]]:
    """For each sample of a batch, its images and predictions as pixels, in the order of `COLUMNS`."""
    mask, depth = as_pixels(predict(model, batch, config))
    photos = (stack.permute(0, 2, 3, 1).cpu().numpy() for stack in (batch.bg, batch.fg_bg))
    truth = (stack.squeeze(1).cpu().numpy() for stack in (batch.mask, batch.depth))
    (bg, fg_bg), (true_mask, true_depth) = photos, truth
    valid = [None] * len(batch) if batch.valid is None else batch.valid.squeeze(1).cpu().numpy()
    shown = [depth_image(*pair) for pair in zip(true_depth, valid, strict=True)]
    return list(zip(bg, fg_bg, true_mask, mask, shown, depth, strict=True))
