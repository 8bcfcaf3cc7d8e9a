"""The losses of the two heads, and how they are weighed into one.

Shapes: every loss takes a prediction and a target of (B, 1, H, W), B pictures of H x W pixels, to a scalar.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainable.config import LossConfig
    from trainable.models.prediction import Prediction

    Loss = Callable[[Tensor, Tensor], Tensor]

SSIM_WINDOW = 11
"""Side in pixels of the Gaussian window (sigma 1.5), as in Wang et al. 2004."""
DICE_EPS = 1e-6
"""Keeps the Dice loss of an empty mask finite."""


class DualLoss:
    """The weighted sum of the losses that have a weight above 0; the others are not computed."""

    def __init__(self, config: LossConfig) -> None:
        self._mask_weights = _above_zero(config.mask.model_dump())
        self._depth_weights = _above_zero(config.depth.model_dump())

    def __call__(self, prediction: Prediction, mask: Tensor, depth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Give the total to minimise, and its unweighted parts under names like 'mask_bce' and 'depth_l1'.

        Args:
            prediction: what a model returned.
            mask: (B, 1, H, W) float in 0..1.
            depth: (B, 1, H, W) float in 0..1.
        """
        probability = torch.sigmoid(prediction.mask_logits.float())
        total = torch.zeros((), device=mask.device)
        parts: dict[str, Tensor] = {}
        for name, weight in self._mask_weights.items():
            seen = prediction.mask_logits if name in ON_LOGITS else probability
            parts[f"mask_{name}"] = part = LOSSES[name](seen, mask)
            total = total + weight * part
        for name, weight in self._depth_weights.items():
            parts[f"depth_{name}"] = part = LOSSES[name](prediction.depth, depth)
            total = total + weight * part
        return total, {name: part.detach() for name, part in parts.items()}


def _above_zero(weights: dict[str, float]) -> dict[str, float]:
    return {name: weight for name, weight in weights.items() if weight > 0}


def _in_float32(loss: Loss) -> Loss:
    """Compute a loss in float32 also under autocast: it is made of small differences."""

    @wraps(loss)
    def computed(prediction: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(prediction.device.type, enabled=False):
            return loss(prediction.float(), target.float())

    return computed


@_in_float32
def _bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of sigmoid(logits), mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits, target)


@_in_float32
def _dice(logits: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice coefficient of sigmoid(logits) (Sudre et al. 2017), mean over pictures."""
    probability = torch.sigmoid(logits)
    overlap = (probability * target).sum(dim=(1, 2, 3))
    size = (probability + target).sum(dim=(1, 2, 3))
    return (1 - 2 * overlap / (size + DICE_EPS)).mean()


@_in_float32
def _l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error, mean over pixels."""
    return F.l1_loss(prediction, target)


@_in_float32
def _ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural dissimilarity, (1 - SSIM) / 2 clamped to 0..1 (Wang et al. 2004), mean over pixels."""
    from kornia.losses import ssim_loss  # slow to import, and not every run needs it

    return ssim_loss(prediction, target, window_size=SSIM_WINDOW)


@_in_float32
def _edge(prediction: Tensor, target: Tensor) -> Tensor:
    """Absolute error of the gradients across and down (Sobel / 8), summed; mean over pixels."""
    from kornia.filters import spatial_gradient  # slow to import, as above

    # The gradient is linear: that of the difference is the difference of the two, at half the cost.
    gradients: Tensor = spatial_gradient(prediction - target)  # (B, 1, 2, H, W): across, down
    return gradients.abs().sum(dim=2).mean()


LOSSES: dict[str, Loss] = {"bce": _bce, "dice": _dice, "l1": _l1, "ssim": _ssim, "edge": _edge}
"""Each takes (prediction, target), both (B, 1, H, W), and gives a scalar."""

ON_LOGITS = frozenset({"bce", "dice"})
"""Losses that apply the sigmoid themselves; for the mask the others are given the probability."""
