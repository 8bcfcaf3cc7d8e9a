"""The metrics of the published projects, corrected or as published. Two projects (raguram, divyansh) published none.

Shapes: B images of a batch, H and W height and width in pixels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trainable.metrics.per_image import PUBLISHED, STATES, metrics_of
from trainable.metrics.pooled import (
    as_unit,
    finite_mask,
    image_errors,
    image_ious,
    image_states,
    no_depth_error,
    no_images_error,
)
from trainable.models.prediction import only_valid

if TYPE_CHECKING:
    from trainable.models.prediction import Prediction

On = Literal["probability", "logits"]
Average = Literal["pictures", "batches"]

PUBLISHED_METRICS: dict[str, tuple[str, ...]] = {
    "ssim-accuracy": ("ssim90_mask", "ssim50_depth"),
    "delta-rms": (
        "soft_mask_rmse", "soft_mask_delta1", "soft_mask_delta2", "soft_mask_delta3",
        "depth_rmse", "depth_delta1", "depth_delta2", "depth_delta3",
    ),
    "iou-75": ("iou75_mask",),
}  # fmt: skip
"""Keys of the metrics of a project, by name of the metric in a recipe."""

SIMILAR_MASK, SIMILAR_DEPTH = 0.9, 0.5
"""Minimum structural similarity of an image that counts as similar."""
IOU_ABOVE = 0.75
"""Threshold in 0..1 of foreground pixels in mask and truth."""
WINDOW = 7
"""Side in pixels of the window of the structural similarity."""
STABILISERS = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""The constants C1 and C2 of the structural similarity of grey levels."""


class PublishedMetrics:
    """Accumulates the metrics of the published projects over a part.

    - ssim90_mask, ssim50_depth: share of images whose structural similarity to the truth is above 0.9 (mask) or 0.5
      (depth); project birender.
    - soft_mask_rmse, soft_mask_delta1, 2, 3 and the same of the depth: as in `MetricSums`, but the truth of the mask is
      in 0..1, not 0 or 1; project ramana.
    - iou75_mask: intersection over union of prediction > 0.75 and truth > 0.75, mean over images, 1 if both are
      empty; project monimoyd.

    A prediction that is not finite is wrong, and makes RMSE NaN. By default the metrics are corrected.

    The metrics of the depth are over valid pixels, those of the mask over pixels inside the border of padded images.
    The similarity is over windows without another pixel; images, and with 'batches' batches, whose depth has none are
    left out.

    Args:
        on: whether to use outputs after their activations ('probability') or, as published, before ('logits').
        average: 'pictures' averages over the images and pixels of the part. 'batches', as published, averages over
            batches with equal weight, and computes the IoU over the pixels of a batch as if it were one image.
    """

    def __init__(self, *, on: On = "probability", average: Average = "pictures") -> None:
        self._on, self._average = on, average
        self._batches: list[Tensor] = []  # (23,) each, on the device

    @torch.no_grad()
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
        if self._on == "logits":
            predicted_mask, predicted_depth = prediction.mask_logits, prediction.depth_logits
        else:
            predicted_mask, predicted_depth = finite_mask(prediction), prediction.depth
        sums = image_columns(predicted_mask, predicted_depth, mask, depth, valid, inside).sum(dim=0)
        if self._average == "batches":
            in_one = None if inside is None else inside.reshape(1, -1)
            of_batch = _ious75(predicted_mask.reshape(1, -1), mask.reshape(1, -1), in_one)
            sums[len(STATES) + PUBLISHED.index("iou75_mask")] = len(mask) * of_batch[0]
        self._batches.append(sums)

    def compute(self) -> dict[str, float]:
        """Compute the metrics of all added batches, with the keys in `PUBLISHED_METRICS`.

        Raises:
            InputError: if nothing was added, or no depth was measured.
        """
        if not self._batches:
            raise no_images_error()
        sums = torch.stack(self._batches).cpu().numpy()
        if self._average != "batches":
            sums = sums.sum(axis=0, keepdims=True)
        by_name = dict(zip(STATES + PUBLISHED, sums.T, strict=True))
        has_depth = by_name["pixels"] > by_name["depth_invalid_pixels"]
        has_windows = by_name["images"] > by_name["ssim50_invalid_images"]
        if not has_depth.any():
            raise no_depth_error()
        metrics = metrics_of(sums)

        def mean(name: str) -> float:
            if name == "ssim50_depth":
                return float(metrics[name][has_windows].mean()) if has_windows.any() else math.nan
            return float(metrics[name][has_depth].mean() if name.startswith("depth_") else metrics[name].mean())

        return {name: mean(name) for names in PUBLISHED_METRICS.values() for name in names}


@torch.no_grad()
def image_columns(
    mask: Tensor,
    depth: Tensor,
    mask_truth: Tensor,
    depth_truth: Tensor,
    valid: Tensor | None = None,
    inside: Tensor | None = None,
) -> Tensor:
    """The sums of each image for all metrics, (B, 23) float64: `STATES`, then `PUBLISHED`.

    Inputs are (B, 1, H, W), with H and W at least 7; predictions are floats, truths uint8 or floats in 0..1.
    """
    mask, depth = mask.float(), depth.float()
    published = [
        similarities(mask, mask_truth, inside) > SIMILAR_MASK,
        similarities(depth, depth_truth, valid) > SIMILAR_DEPTH,
        _ious75(mask, mask_truth, inside),
        image_errors(mask, as_unit(mask_truth), inside)[:, [0, 2, 3, 4]],
        torch.zeros(len(mask), device=mask.device) if valid is None else ~_windows(valid).flatten(1).any(dim=1),
    ]
    return torch.column_stack([image_states(mask, depth, mask_truth, depth_truth, valid, inside), *published])


def similarities(prediction: Tensor, truth: Tensor, valid: Tensor | None = None) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each pair of images quantised to 8 bits, in -1..1.

    It equals scikit-image's `structural_similarity`: a uniform 7 x 7 window, sample covariance, K1 = 0.01, K2 = 0.03,
    mean over pixels whose window lies inside the image.

    Args:
        prediction: (B, 1, H, W), H and W at least 7; clipped to 0..1.
        truth: (B, 1, H, W), uint8 or float in 0..1.
        valid: (B, 1, H, W) bool; windows with a pixel that is not are left out.

    Returns:
        (B,) float64; NaN where a prediction is not finite, or no window is left.
    """
    p, t = (only_valid(_grey_levels(pixels), valid) for pixels in (prediction, truth))
    maps = torch.cat([p, t, p * p, t * t, p * t], dim=1)  # (B, 5, H, W)
    # Integers below 2^24, so that sums over windows are exact in float32.
    down = F.avg_pool2d(maps, (WINDOW, 1), stride=1, divisor_override=1)
    sums = F.avg_pool2d(down, (1, WINDOW), stride=1, divisor_override=1).double()
    pixels = WINDOW**2
    mean_p, mean_t = sums[:, 0] / pixels, sums[:, 1] / pixels
    products = torch.stack([mean_p * mean_p, mean_t * mean_t, mean_p * mean_t], dim=1)
    var_p, var_t, covariance = ((sums[:, 2:] - pixels * products) / (pixels - 1)).unbind(dim=1)
    c1, c2 = STABILISERS
    similarity = (2 * mean_p * mean_t + c1) * (2 * covariance + c2)
    similarity /= (mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2)
    if valid is None:
        return similarity.mean(dim=(1, 2))
    windows = _windows(valid)
    return similarity.masked_fill(~windows, 0).sum(dim=(1, 2)) / windows.sum(dim=(1, 2))


def _windows(valid: Tensor) -> Tensor:
    """Which windows of the structural similarity have only valid pixels, (B, H - 6, W - 6)."""
    return F.max_pool2d((~valid).float(), WINDOW, stride=1)[:, 0] == 0


def _grey_levels(pixels: Tensor) -> Tensor:
    """Quantise to integers in 0..255 as float32; NaN where a pixel is not finite."""
    if pixels.dtype == torch.uint8:
        return pixels.float()
    return (torch.where(pixels.isfinite(), pixels.float(), math.nan).clamp(0, 1) * 255).round()


def _ious75(mask: Tensor, truth: Tensor, inside: Tensor | None = None) -> Tensor:
    """Intersection over union above 0.75 of each row or image, (B,) float64."""
    return image_ious(mask, as_unit(truth) > IOU_ABOVE, above=IOU_ABOVE, inside=inside)
