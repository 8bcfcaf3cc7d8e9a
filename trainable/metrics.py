"""What a trial reports of a split, pooled over all its pixels; `OBJECTIVE` is named here and nowhere else.

Shapes: B pictures, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from data.errors import InputError

if TYPE_CHECKING:
    from trainable.models.prediction import Prediction

OBJECTIVE = "score"
"""Key of the metric that a search optimises: (mask_iou + depth_delta1) / 2, in 0..1."""
MODE = "max"
"""More of `OBJECTIVE` is better."""
WORST = 0.0
"""What a trial whose loss was not finite is told to have reached."""

METRICS = (
    "score",
    "mask_iou", "mask_rmse", "mask_mae", "mask_delta1", "mask_delta2", "mask_delta3",
    "depth_rmse", "depth_mae", "depth_delta1", "depth_delta2", "depth_delta3",
)  # fmt: skip
"""Keys of what `MetricSums.compute` returns."""

DELTA_BASE = 1.25
"""A pixel counts for delta k if prediction and truth differ by a factor below this to the power k."""
DELTA_RANGE = (0.1, 1.0)
"""Both are clamped to this before they are divided, so that the nearest depths do not decide alone."""

_STATE_SIZE = 13
"""Pictures, IoUs and pixels; then the mask's squares, absolutes and three deltas, and the depth's."""


class MetricSums:
    """Sums from which a whole split's metrics follow, whatever the batches, their order, and who saw which.

    - mask_iou: intersection over union of probability > 0.5 and truth > 0.5, mean over pictures; 1 if both
      are empty.
    - mask_rmse, mask_mae: of the probability against the truth made 0 or 1, over pixels.
    - depth_rmse, depth_mae: of the depth as predicted against the truth in 0..1, over pixels.
    - *_delta1, 2, 3: share of pixels with max(p / t, t / p) below 1.25, 1.25^2, 1.25^3 (Eigen et al. 2014),
      prediction and truth clamped to [0.1, 1] first; the mask's truth is 0 or 1 here too.
    - score: (mask_iou + depth_delta1) / 2.

    A prediction that is not finite counts as wrong in IoU and deltas, and makes RMSE and MAE NaN. The sums
    are kept in float64 on the device, and are read from it only by `compute`.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._sums = torch.zeros(_STATE_SIZE, dtype=torch.float64, device=device)

    def update(self, prediction: Prediction, mask: Tensor, depth: Tensor) -> None:
        """Add a batch, as a model predicted it.

        Args:
            prediction: what a network returned, (B, 1, H, W) each.
            mask: (B, 1, H, W), uint8 as in a `Batch` or float in 0..1.
            depth: (B, 1, H, W), likewise.
        """
        # An infinite logit has a probability of 0 or 1, which may be right by chance.
        probability = torch.where(prediction.mask_logits.isfinite(), prediction.mask, math.nan)
        self.update_values(probability, prediction.depth, mask, depth)

    @torch.no_grad()
    def update_values(self, probability: Tensor, depth: Tensor, mask_truth: Tensor, depth_truth: Tensor) -> None:
        """Add a batch whose mask is predicted as probabilities in 0..1; all are (B, 1, H, W)."""
        probability, is_foreground = probability.float(), _as_unit(mask_truth) > 0.5
        self._sums[0] += len(probability)
        self._sums[1] += _iou_sum(probability, is_foreground)
        self._sums[2] += probability.numel()
        self._sums[3:8] += _error_sums(probability, is_foreground.float())
        self._sums[8:13] += _error_sums(depth.float(), _as_unit(depth_truth))

    def state(self) -> Tensor:
        """Copy the sums, (13,) float64: those of several workers add up to those of the whole."""
        return self._sums.clone()

    def merge(self, state: Tensor) -> None:
        """Add sums that `state` gave."""
        self._sums += state.to(self._sums.device)

    def load(self, state: Tensor) -> None:
        """Put sums that `state` gave, such as those added up over all workers, in place of these."""
        self._sums.copy_(state)

    def compute(self) -> dict[str, float]:
        """Compute the metrics of everything that was added, under the keys of `METRICS`.

        Raises:
            InputError: if nothing was added.
        """
        pictures, ious, pixels, *errors = self._sums.tolist()
        if not pictures:
            raise InputError(
                "The number of pictures to be evaluated is 0, but must be at least 1; "
                "give the split a larger share in data.split, or the data set more samples."
            )
        metrics = {"mask_iou": ious / pictures}
        for head, (squares, absolutes, *within) in (("mask", errors[:5]), ("depth", errors[5:])):
            metrics[f"{head}_rmse"] = math.sqrt(squares / pixels)
            metrics[f"{head}_mae"] = absolutes / pixels
            metrics.update({f"{head}_delta{k}": count / pixels for k, count in enumerate(within, start=1)})
        return {"score": (metrics["mask_iou"] + metrics["depth_delta1"]) / 2} | metrics


def _as_unit(pixels: Tensor) -> Tensor:
    """Pixels as float32 in 0..1: uint8 ones are divided by 255, floats are in 0..1 already."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def _iou_sum(probability: Tensor, is_foreground: Tensor) -> Tensor:
    """Sum over pictures of the intersection over union; scalar float64."""
    is_predicted = probability > 0.5
    intersection = (is_predicted & is_foreground).sum(dim=(1, 2, 3))
    # A NaN is in no intersection; being in the union makes it wrong over background as well.
    union = (is_predicted | is_foreground | ~probability.isfinite()).sum(dim=(1, 2, 3))
    iou = torch.where(union > 0, intersection.double() / union.clamp(min=1), 1.0)
    return iou.sum()


def _error_sums(prediction: Tensor, truth: Tensor) -> Tensor:
    """Sum squared and absolute errors over all pixels, and count those within each delta; (5,) float64."""
    prediction = torch.where(prediction.isfinite(), prediction, math.nan)
    error = prediction.double() - truth.double()
    low, high = DELTA_RANGE
    predicted_in_range, truth_in_range = prediction.clamp(low, high), truth.clamp(low, high)
    ratio = torch.maximum(predicted_in_range / truth_in_range, truth_in_range / predicted_in_range)
    within = [(ratio < DELTA_BASE**k).sum().double() for k in (1, 2, 3)]  # false where the ratio is NaN
    return torch.stack([error.square().sum(), error.abs().sum(), *within])
