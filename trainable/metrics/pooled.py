"""What a trial reports of a split, pooled over all its pixels.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from data.errors import InputError
from trainable.metrics.names import METRICS, MODE, OBJECTIVE, WORST
from trainable.metrics.per_image import STATES, metrics_of

if TYPE_CHECKING:
    from trainable.models.prediction import Prediction

__all__ = ["METRICS", "MODE", "OBJECTIVE", "WORST", "MetricSums"]

DELTA_BASE = 1.25
"""A pixel counts for delta k if prediction and truth differ by a factor below this to the power k."""
DELTA_RANGE = (0.1, 1.0)
"""Both are clamped to this before they are divided, so that the nearest depths do not decide alone."""


class MetricSums:
    """Sums from which a whole split's metrics follow, whatever the batches, their order, and who saw which.

    - mask_iou: intersection over union of probability > 0.5 and truth > 0.5, mean over images; 1 if both
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
        self._sums = torch.zeros(len(STATES), dtype=torch.float64, device=device)

    def update(self, prediction: Prediction, mask: Tensor, depth: Tensor) -> None:
        """Add a batch, as a model predicted it.

        Args:
            prediction: what a network returned, (B, 1, H, W) each.
            mask: (B, 1, H, W), uint8 as in a `Batch` or float in 0..1.
            depth: (B, 1, H, W), likewise.
        """
        self.update_values(finite_mask(prediction), prediction.depth, mask, depth)

    def update_values(self, probability: Tensor, depth: Tensor, mask_truth: Tensor, depth_truth: Tensor) -> None:
        """Add a batch whose mask is predicted as probabilities in 0..1; all are (B, 1, H, W)."""
        self._sums += image_states(probability, depth, mask_truth, depth_truth).sum(dim=0)

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
        sums = self._sums.cpu().numpy()
        if not sums[0]:
            raise InputError(
                "The number of images to be evaluated is 0, but must be at least 1; "
                "give the split a larger share in data.split, or the data set more samples."
            )
        return {name: float(value) for name, value in metrics_of(sums).items()}


def finite_mask(prediction: Prediction) -> Tensor:
    """The predicted mask, (B, 1, H, W), NaN where the head's output is not finite."""
    # An infinite logit has a probability of 0 or 1, which may be right by chance.
    return torch.where(prediction.mask_logits.isfinite(), prediction.mask, math.nan)


@torch.no_grad()
def image_states(probability: Tensor, depth: Tensor, mask_truth: Tensor, depth_truth: Tensor) -> Tensor:
    """What `MetricSums` adds up of each image, (B, 13) float64 as `STATES` names it; all are (B, 1, H, W)."""
    probability, is_foreground = probability.float(), as_unit(mask_truth) > 0.5
    pixels = torch.full(
        (len(probability),), math.prod(probability.shape[1:]), dtype=torch.float64, device=probability.device
    )
    return torch.column_stack(
        [
            torch.ones_like(pixels),
            image_ious(probability, is_foreground, above=0.5),
            pixels,
            image_errors(probability, is_foreground.float()),
            image_errors(depth.float(), as_unit(depth_truth)),
        ]
    )


def image_ious(prediction: Tensor, is_foreground: Tensor, *, above: float) -> Tensor:
    """Intersection over union of each image's pixels `above` a value and its foreground; (B,) float64.

    It is 1 where both are empty.
    """
    is_finite = prediction.isfinite()
    is_predicted = (prediction > above) & is_finite
    intersection = (is_predicted & is_foreground).flatten(1).sum(dim=1)
    # What is not finite is in no intersection; being in the union makes it wrong over background as well.
    union = (is_predicted | is_foreground | ~is_finite).flatten(1).sum(dim=1)
    return torch.where(union > 0, intersection.double() / union.clamp(min=1), 1.0)


def image_errors(prediction: Tensor, truth: Tensor) -> Tensor:
    """Sum each image's squared and absolute errors, and count its pixels within each delta; (B, 5) float64."""
    prediction = torch.where(prediction.isfinite(), prediction, math.nan).flatten(1)
    truth = truth.flatten(1)
    error = prediction.double() - truth
    low, high = DELTA_RANGE
    predicted_in_range, truth_in_range = prediction.clamp(low, high), truth.clamp(low, high)
    ratio = torch.maximum(predicted_in_range / truth_in_range, truth_in_range / predicted_in_range)
    within = [(ratio < DELTA_BASE**k).sum(dim=1).double() for k in (1, 2, 3)]  # false where the ratio is NaN
    return torch.stack([torch.linalg.vecdot(error, error), error.abs_().sum(dim=1), *within], dim=1)


def as_unit(pixels: Tensor) -> Tensor:
    """Pixels as float32 in 0..1: uint8 ones are divided by 255, floats are in 0..1 already."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
