"""Baselines for a trained network: a threshold on the difference of the two images, and the mean depth.

Shapes: B images of a batch, H and W height and width in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from data.errors import InputError
from trainable.metrics.pooled import MetricSums
from trainable.models.prediction import only_valid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from data.schema import Batch

CHANNELS = 3
LEVELS = CHANNELS * 255 + 1
"""Number of possible differences of a pixel, summed over the channels: 0..765."""


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """Two predictors without a network, fitted to a training split."""

    cut: int
    """Threshold in 0..766 on the difference of a pixel, summed over the channels, from which on it is foreground."""
    depth_mean: Tensor
    """Mean depth of each pixel where it was measured, (1, H, W) float32 in 0..1."""

    @property
    def threshold(self) -> float:
        """The cut in grey levels of the mean over the channels, in 0..255 1/3."""
        return self.cut / CHANNELS

    def predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predict mask probability (0 or 1) and depth in 0..1, both (B, 1, H, W) float32."""
        probability = (_difference(batch) >= self.cut).unsqueeze(1).float()
        return probability, self.depth_mean.to(probability.device).expand_as(probability)


def fit_baselines(batches: Iterable[Batch]) -> Baselines:
    """Fit both in one pass over a training split, preferably without augmentation.

    The cut is the lowest one with the maximum mean intersection over union. The mean depth is of valid pixels.

    Raises:
        InputError: if there is no batch, or no depth was measured.
    """
    iou_sums = torch.zeros(LEVELS + 1, dtype=torch.float64)
    depth_sum: Tensor | None = None
    counts: Tensor | None = None
    for batch in batches:
        iou_sums += _ious_of_every_cut(batch).sum(dim=0).cpu()
        valid = batch.is_valid()
        # (1, H, W), exact
        batch_depth = only_valid(batch.depth, valid).sum(dim=0, dtype=torch.int64)
        count = torch.full_like(batch_depth, len(batch)) if valid is None else valid.sum(dim=0)
        depth_sum = batch_depth if depth_sum is None else depth_sum + batch_depth
        counts = count if counts is None else counts + count
    if depth_sum is None or counts is None:
        raise InputError(
            "The number of training images is 0, but must be at least 1; "
            "give 'train' a larger share in data.split, or the data set more samples."
        )
    return Baselines(cut=int(iou_sums.argmax()), depth_mean=_mean_depth(depth_sum, counts))


def _mean_depth(sums: Tensor, counts: Tensor) -> Tensor:
    """The mean depth of each pixel, in 0..1, of the sums of levels and the numbers of valid images, all (1, H, W).

    A pixel that is valid in no image gets the mean of all valid pixels.

    Raises:
        InputError: if no pixel is valid.
    """
    if not counts.any():
        raise InputError(
            "No training image has a pixel whose depth was measured; "
            "give 'train' a larger share in data.split, or the data set samples with a measured depth."
        )
    overall = sums.sum().double() / (255 * counts.sum())
    return torch.where(counts > 0, sums.double() / (255 * counts.clamp(min=1)), overall).float()


def evaluate_baselines(baselines: Baselines, batches: Iterable[Batch]) -> dict[str, dict[str, float]]:
    """Evaluate both on a split with `MetricSums`, as for a network.

    Returns:
        'mask_threshold': the metrics mask_*, and 'threshold' in grey levels; 'depth_mean': the metrics depth_*.

    Raises:
        InputError: if there is no batch.
    """
    sums = MetricSums()
    for batch in batches:
        probability, depth = baselines.predict(batch)
        sums.update_values(probability, depth, batch.mask, batch.depth, *batch.regions())
    metrics = sums.compute()
    mask = {name: value for name, value in metrics.items() if name.startswith("mask_")}
    depth_metrics = {name: value for name, value in metrics.items() if name.startswith("depth_")}
    return {"mask_threshold": {**mask, "threshold": baselines.threshold}, "depth_mean": depth_metrics}


def _difference(batch: Batch) -> Tensor:
    """Absolute difference of the two images, summed over the channels: (B, H, W) int32 in 0..765."""
    return (batch.fg_bg.int() - batch.bg.int()).abs().sum(dim=1, dtype=torch.int32)


def _ious_of_every_cut(batch: Batch) -> Tensor:
    """Intersection over union of each image at each cut, (B, 767) float64; 1 where both are empty.

    The border of padded images is left out.
    """
    images = len(batch)
    is_foreground = (batch.mask > 127).flatten(1)  # (B, H W)
    # Count the pixels of each image, class and difference in one histogram.
    row = 2 * torch.arange(images, device=is_foreground.device).unsqueeze(1) + is_foreground
    bins = row * LEVELS + _difference(batch).flatten(1)
    if (inside := batch.is_inside()) is not None:
        bins = bins[inside.flatten(1)]
    counts = torch.bincount(bins.flatten(), minlength=images * 2 * LEVELS).view(images, 2, LEVELS)
    at_least = torch.zeros(images, 2, LEVELS + 1, dtype=torch.int64, device=counts.device)
    # at_least[..., cut]: pixels whose difference is at least the cut.
    at_least[:, :, :LEVELS] = counts.flip(-1).cumsum(-1).flip(-1)
    false_positives, intersection = at_least.unbind(dim=1)
    union = intersection[:, :1] + false_positives  # at cut 0, the intersection is the whole foreground
    return torch.where(union > 0, intersection.double() / union.clamp(min=1), 1.0)
