"""The metrics that a trial reports of a split, pooled over all its pixels.

Shapes: B images, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from data.errors import InputError
from trainable.metrics.names import DEPTH_IMAGES
from trainable.metrics.per_image import STATES, Floats, ImageFigures, metrics_of
from trainable.models.prediction import only_valid
from trainable.plugins.active import own_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainable.models.prediction import Prediction
    from trainable.plugins.parts import Metric

DELTA_BASE = 1.25
"""A pixel is within delta k if the ratio of prediction and truth is below DELTA_BASE**k."""
DELTA_RANGE = (0.1, 1.0)
"""Both are clamped to this range before the division, so that the smallest depths do not dominate."""


class MetricSums:
    """Accumulates sums for the metrics of a whole split, independent of its batches, their order and the workers.

    - mask_iou: intersection over union of probability > 0.5 and truth > 0.5, mean over images; 1 if both are empty.
    - mask_rmse, mask_mae: of the probability against the truth as 0 or 1, over pixels.
    - depth_rmse, depth_mae: of the depth as predicted against the truth in 0..1, over pixels.
    - *_delta1, 2, 3: share of pixels with max(p / t, t / p) below 1.25, 1.25^2, 1.25^3 (Eigen et al. 2014), with
      prediction and truth clamped to [0.1, 1] first; the mask's truth is 0 or 1 here too.
    - score: (mask_iou + depth_delta1) / 2.
    - metrics of plugins: the mean over images.

    The metrics of the depth are over valid pixels, so that an image without one counts for the mask only, whose metrics
    are over the pixels inside the border of padded images. Metrics of plugins get 0 as prediction and truth of others.

    A prediction that is not finite is wrong in IoU and deltas, and makes RMSE and MAE NaN. The sums are float64 on the
    device; only `compute` waits for the device.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._own = own_metrics()
        self._sums = torch.zeros(len(STATES) + len(self._own), dtype=torch.float64, device=device)

    def update(
        self,
        prediction: Prediction,
        mask: Tensor,
        depth: Tensor,
        valid: Tensor | None = None,
        inside: Tensor | None = None,
    ) -> None:
        """Add a batch of predictions of a model.

        Args:
            prediction: what a network returned, (B, 1, H, W) each.
            mask: (B, 1, H, W), uint8 as in a `Batch` or float in 0..1.
            depth: (B, 1, H, W), likewise.
            valid: (B, 1, H, W) bool, where the depth was measured; None for everywhere.
            inside: (B, 1, H, W) bool, False in the border of padded images; None if there is none.
        """
        self.update_values(finite_mask(prediction), prediction.depth, mask, depth, valid, inside)

    def update_values(
        self,
        probability: Tensor,
        depth: Tensor,
        mask_truth: Tensor,
        depth_truth: Tensor,
        valid: Tensor | None = None,
        inside: Tensor | None = None,
    ) -> None:
        """Add a batch with mask probabilities in 0..1; all tensors are (B, 1, H, W)."""
        planes = probability, depth, mask_truth, depth_truth, valid, inside
        states = image_states(*planes)
        if self._own:
            states = torch.cat([states, own_columns(self._own, *planes)], dim=1)
        self._sums += states.sum(dim=0)

    def state(self) -> Tensor:
        """A copy of the sums, (15,) float64, followed by one for each metric of plugins.

        Those of several workers can be added.
        """
        return self._sums.clone()

    def merge(self, state: Tensor) -> None:
        """Add the `state` of other sums."""
        self._sums += state.to(self._sums.device)

    def load(self, state: Tensor) -> None:
        """Replace the sums by a `state`, such as the sum over all workers."""
        self._sums.copy_(state)

    def compute(self) -> dict[str, float]:
        """Compute the metrics of all added batches, with the keys `names.METRICS` and the names of metrics of plugins.

        If the depth leaves images out, `DEPTH_IMAGES` is the number of the others.

        Raises:
            InputError: if nothing was added, or no depth was measured.
        """
        return _computed(self._sums.cpu().numpy(), tuple(self._own))


def pooled_figures(table: ImageFigures) -> dict[str, float]:
    """The metrics of `MetricSums.compute` over the images of a table.

    Raises:
        InputError: if no depth was measured.
    """
    return _computed(np.column_stack([table.states, *table.own.values()]).sum(axis=0), tuple(table.own))


def _computed(sums: Floats, own: Sequence[str]) -> dict[str, float]:
    """The metrics of sums as in `MetricSums.state`, whose last columns are those of the metrics `own`."""
    if not sums[0]:
        raise no_images_error()
    metrics = {name: float(value) for name, value in metrics_of(sums[: len(STATES)]).items()} | {
        name: float(total / sums[0]) for name, total in zip(own, sums[len(STATES) :], strict=True)
    }
    left_out = sums[STATES.index("depth_invalid_images")]
    if left_out == sums[0]:
        raise no_depth_error()
    return metrics | ({DEPTH_IMAGES: float(sums[0] - left_out)} if left_out else {})


def own_columns(
    own: Mapping[str, Metric],
    probability: Tensor,
    depth: Tensor,
    mask_truth: Tensor,
    depth_truth: Tensor,
    valid: Tensor | None = None,
    inside: Tensor | None = None,
) -> Tensor:
    """The values of K metrics of plugins for each image, (B, K) float64; all other tensors are (B, 1, H, W).

    Raises:
        InputError: if a metric does not return a value for each image.
    """
    depths = only_valid(depth.float(), valid), only_valid(as_unit(depth_truth), valid)
    masks = only_valid(probability.float(), inside), only_valid(as_unit(mask_truth), inside)
    planes = masks[0], depths[0], masks[1], depths[1]
    found = [_values(metric, *planes) for metric in own.values()]
    return torch.stack(found, dim=1) if found else torch.zeros(len(depth), 0, dtype=torch.float64, device=depth.device)


@torch.no_grad()
def _values(metric: Metric, mask: Tensor, depth: Tensor, true_mask: Tensor, true_depth: Tensor) -> Tensor:
    """The values of a metric of a plugin, (B,) float64; all other tensors are (B, 1, H, W)."""
    values = metric.function(mask, depth, true_mask, true_depth)
    if not isinstance(values, Tensor) or values.shape != (len(mask),):
        shown = tuple(values.shape) if isinstance(values, Tensor) else values
        raise InputError(
            f"The metric '{metric.name}' of a plugin returns {shown} for {len(mask)} images, but must return a tensor "
            "with a value for each; correct it."
        )
    return values.double()


def no_images_error() -> InputError:
    """The error of metrics without images."""
    return InputError(
        "The number of images to be evaluated is 0, but must be at least 1; "
        "give the split a larger share in data.split, or the data set more samples."
    )


def no_depth_error() -> InputError:
    """The error of metrics of images without any measured depth."""
    return InputError(
        "No image to be evaluated has a pixel whose depth was measured; "
        "give the split a larger share in data.split, or the data set samples with a measured depth."
    )


def finite_mask(prediction: Prediction) -> Tensor:
    """The predicted mask, (B, 1, H, W), with NaN where the output of the head is not finite."""
    # An infinite logit has a probability of 0 or 1, which may be right by chance.
    return torch.where(prediction.mask_logits.isfinite(), prediction.mask, math.nan)


@torch.no_grad()
def image_states(
    probability: Tensor,
    depth: Tensor,
    mask_truth: Tensor,
    depth_truth: Tensor,
    valid: Tensor | None = None,
    inside: Tensor | None = None,
) -> Tensor:
    """The row of `MetricSums` for each image, (B, 15) float64 with the columns `STATES`; inputs are (B, 1, H, W)."""
    probability, is_foreground = probability.float(), as_unit(mask_truth) > 0.5
    pixels = torch.full(
        (len(probability),), math.prod(probability.shape[1:]), dtype=torch.float64, device=probability.device
    )
    if inside is not None:
        pixels = inside.flatten(1).sum(dim=1).double()
    return torch.column_stack(
        [
            torch.ones_like(pixels),
            image_ious(probability, is_foreground, above=0.5, inside=inside),
            pixels,
            image_errors(probability, is_foreground.float(), inside),
            image_errors(depth.float(), as_unit(depth_truth), valid),
            _left_out(pixels, valid),
        ]
    )


def _left_out(pixels: Tensor, valid: Tensor | None) -> Tensor:
    """Of the `pixels` (B,) of each image, those that are invalid, and 1 if all are, else 0: (B, 2) float64."""
    if valid is None:
        return torch.zeros(len(pixels), 2, dtype=torch.float64, device=pixels.device)
    invalid = pixels - valid.flatten(1).sum(dim=1).double()
    return torch.stack([invalid, (invalid == pixels).double()], dim=1)


def image_ious(prediction: Tensor, is_foreground: Tensor, *, above: float, inside: Tensor | None = None) -> Tensor:
    """Intersection over union of the pixels `above` a value and the foreground of each image, (B,) float64.

    It is 1 where both are empty. Only pixels `inside` (bool) count; all tensors have the same shape.
    """
    prediction = only_valid(prediction, inside)
    if inside is not None:
        is_foreground = is_foreground & inside
    is_finite = prediction.isfinite()
    is_predicted = (prediction > above) & is_finite
    intersection = (is_predicted & is_foreground).flatten(1).sum(dim=1)
    # Pixels that are not finite are in the union, so that they are wrong on the background as well.
    union = (is_predicted | is_foreground | ~is_finite).flatten(1).sum(dim=1)
    return torch.where(union > 0, intersection.double() / union.clamp(min=1), 1.0)


def image_errors(prediction: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Squared errors, absolute errors, and pixels within each delta, summed for each image; (B, 5) float64.

    The sums are over `valid` pixels (bool); all tensors are (B, 1, H, W).
    """
    prediction, truth = only_valid(prediction, valid), only_valid(truth, valid)
    prediction = torch.where(prediction.isfinite(), prediction, math.nan).flatten(1)
    truth = truth.flatten(1)
    error = prediction.double() - truth
    low, high = DELTA_RANGE
    predicted_in_range, truth_in_range = prediction.clamp(low, high), truth.clamp(low, high)
    ratio = torch.maximum(predicted_in_range / truth_in_range, truth_in_range / predicted_in_range)
    if valid is not None:
        ratio = ratio.masked_fill(~valid.flatten(1), math.inf)
    within = [(ratio < DELTA_BASE**k).sum(dim=1).double() for k in (1, 2, 3)]  # false where the ratio is NaN
    return torch.stack([torch.linalg.vecdot(error, error), error.abs_().sum(dim=1), *within], dim=1)


def as_unit(pixels: Tensor) -> Tensor:
    """Convert pixels to float32 in 0..1: uint8 is divided by 255, floats are unchanged."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
