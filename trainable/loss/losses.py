"""The losses of a head, which `trainable/loss/dual_loss.py` combines.

Each maps a prediction and a target of shape (B, 1, H, W), B images of H x W pixels, to a scalar. It is computed in
float32 also under autocast, because it depends on small differences. Value and gradient are finite if the prediction
equals the target.

With a validity mask v of 0 and 1, a mean over pixels is sum(v e) / sum(v) over the pixels of the batch, of the error e
of a pixel. The errors of 'ssim' and 'edge' depend on the pixels around: there, v is 1 only where all pixels of the
window, or of the 3 x 3 Sobel filter, that lie in the image are valid. The sums of 'dice' and 'tversky' over the pixels
of an image are over its valid ones, and their means are over the images that have any. A mean over nothing is 0. Value
and gradient do not depend on what prediction and target are at invalid pixels, not even if that is not finite.
"""

from __future__ import annotations

from functools import lru_cache, partial, wraps
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError
from trainable.config import LossConfig
from trainable.models.prediction import only_valid, stretch
from trainable.plugins.active import own_losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainable.config import SsimConfig
    from trainable.plugins import parts

    class Loss(Protocol):
        """A loss with its options."""

        def __call__(
            self, prediction: Tensor, target: Tensor, config: LossConfig = ..., valid: Tensor | None = None
        ) -> Tensor:
            """Compute the scalar loss of (B, 1, H, W) prediction and target, of the pixels that are `valid` (bool)."""

    class Pointwise(Protocol):
        """A loss of `torch.nn.functional` that is a mean over pixels."""

        def __call__(self, prediction: Tensor, target: Tensor, /, *, reduction: str = "mean") -> Tensor:
            """Compute the loss; without reduction, the error of each pixel."""


DEFAULTS = LossConfig()
EPS = 1e-6
"""Keeps the Dice loss of an empty mask, and the slope of a square root at 0, finite."""
SSIM_SIGMA = 1.5
"""Standard deviation of the Gaussian window in pixels (Wang et al. 2004)."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
BERHU_SHARE = 0.2
"""Share of the largest error in the batch above which the inverse Huber loss is quadratic (Laina et al. 2016)."""


def _in_float32(loss: Callable[[Tensor, Tensor, LossConfig, Tensor | None], Tensor]) -> Loss:
    """Make a loss run in float32 also under autocast, and its options and validity mask optional.

    The loss gets 0 as prediction and target of invalid pixels.
    """

    @wraps(loss)
    def computed(
        prediction: Tensor, target: Tensor, config: LossConfig = DEFAULTS, valid: Tensor | None = None
    ) -> Tensor:
        with torch.autocast(prediction.device.type, enabled=False):
            return loss(only_valid(prediction.float(), valid), only_valid(target.float(), valid), config, valid)

    return computed


def _over_pixels(loss: Callable[[LossConfig], Pointwise]) -> Loss:
    """A loss that is the mean of a pointwise one over pixels."""

    @_in_float32
    def computed(prediction: Tensor, target: Tensor, config: LossConfig, valid: Tensor | None) -> Tensor:
        return _pixel_mean(loss(config), prediction, target, valid)

    return computed


_bce = _over_pixels(lambda _: F.binary_cross_entropy_with_logits)
"""Binary cross-entropy of sigmoid(logits), mean over pixels."""
_l1 = _over_pixels(lambda _: F.l1_loss)
"""Absolute error, mean over pixels."""
_smooth_l1 = _over_pixels(lambda _: F.smooth_l1_loss)
"""Half the squared error below 1, the absolute error less a half above (Girshick 2015); mean over pixels."""
_huber = _over_pixels(lambda config: partial(F.huber_loss, delta=config.huber_delta))
"""Half the squared error below `huber_delta`, linear above (Huber 1964); mean over pixels."""
_mse = _over_pixels(lambda _: F.mse_loss)
"""Squared error, mean over pixels."""


@_in_float32
def _weighted_bce(logits: Tensor, target: Tensor, config: LossConfig, valid: Tensor | None) -> Tensor:
    """Binary cross-entropy with weight `positive_weight` for foreground, mean over pixels."""
    weight = torch.full((), config.positive_weight, device=logits.device)  # full() avoids a synchronising copy
    return _pixel_mean(partial(F.binary_cross_entropy_with_logits, pos_weight=weight), logits, target, valid)


@_in_float32
def _rmse(prediction: Tensor, target: Tensor, _: LossConfig, valid: Tensor | None) -> Tensor:
    """Root of the mean squared error over pixels, plus a small number under the root."""
    return (_pixel_mean(F.mse_loss, prediction, target, valid) + EPS).sqrt()


def _pixel_mean(loss: Pointwise, prediction: Tensor, target: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of a pointwise loss over all or the valid pixels."""
    if valid is None:
        return loss(prediction, target)
    return _mean(loss(prediction, target, reduction="none"), valid)


def _mean(errors: Tensor, valid: Tensor | None) -> Tensor:
    """The mean of the errors of all or the valid ones of the same shape; 0 if none is valid."""
    if valid is None:
        return errors.mean()
    return only_valid(errors, valid).sum() / valid.sum().clamp(min=1)


def _all_valid(valid: Tensor | None, window: int) -> Tensor | None:
    """Where all pixels of a window (side, odd) around a pixel that lie in the image are valid, (B, 1, H, W)."""
    if valid is None:
        return None
    return F.max_pool2d((~valid).float(), window, stride=1, padding=window // 2) == 0


def _of_valid(probability: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Probabilities, 0 at invalid pixels, and which of the images have valid pixels, (B,); None for all."""
    return only_valid(probability, valid), None if valid is None else valid.flatten(1).any(dim=1)


@_in_float32
def _dice(logits: Tensor, target: Tensor, _: LossConfig, valid: Tensor | None) -> Tensor:
    """One minus the Dice coefficient of sigmoid(logits) (Sudre et al. 2017), mean over images."""
    probability, images = _of_valid(torch.sigmoid(logits), valid)
    overlap = (probability * target).sum(dim=(1, 2, 3))
    size = (probability + target).sum(dim=(1, 2, 3))
    return _mean(1 - 2 * overlap / (size + EPS), images)


@_in_float32
def _tversky(logits: Tensor, target: Tensor, config: LossConfig, valid: Tensor | None) -> Tensor:
    """One minus the Tversky index of sigmoid(logits) (Salehi et al. 2017), mean over images."""
    probability, images = _of_valid(torch.sigmoid(logits), valid)
    hits = (probability * target).sum(dim=(1, 2, 3))
    false_alarms = (probability * (1 - target)).sum(dim=(1, 2, 3))
    misses = ((1 - probability) * target).sum(dim=(1, 2, 3))
    alpha = config.tversky_alpha
    return _mean(1 - hits / (hits + alpha * false_alarms + (1 - alpha) * misses + EPS), images)


@_in_float32
def _ssim(prediction: Tensor, target: Tensor, config: LossConfig, valid: Tensor | None) -> Tensor:
    """Structural dissimilarity with the options `config.ssim`, mean over pixels."""
    options = config.ssim
    similar = similarity(stretch(prediction, valid) if options.minmax else prediction, target, options)
    windows = _all_valid(valid, options.window)
    match options.form:
        case "halved":  # as kornia computes it since 0.5
            return _mean(((1 - similar) / 2).clamp(0, 1), windows)
        case "clamped":  # as kornia computed it before
            return _mean((1 - similar).clamp(0, 1), windows) / 2
    return _mean(1 - similar, windows)


def similarity(prediction: Tensor, target: Tensor, options: SsimConfig) -> Tensor:
    """Structural similarity at each pixel (Wang et al. 2004), in -1..1; all tensors are (B, 1, H, W)."""
    form = options.window, options.border, prediction.device, prediction.dtype
    down, across = (_blur(side, *form) for side in prediction.shape[-2:])
    moving = torch.cat([prediction, prediction**2, prediction * target], dim=1)
    fixed = torch.cat([target, target**2], dim=1)  # separate, because it needs no gradient
    mean_p, square_p, product = (down @ (moving @ across.T)).chunk(3, dim=1)
    mean_t, square_t = (down @ (fixed @ across.T)).chunk(2, dim=1)
    # For outputs far from 0..1, rounding can make variances negative, and the denominator arbitrary.
    variance_p, variance_t = (square_p - mean_p**2).clamp(min=0), (square_t - mean_t**2).clamp(min=0)
    covariance = product - mean_p * mean_t
    above = (2 * mean_p * mean_t + SSIM_C1) * (2 * covariance + SSIM_C2)
    below = (mean_p**2 + mean_t**2 + SSIM_C1) * (variance_p + variance_t + SSIM_C2)
    similar: Tensor = above / below
    return similar


@lru_cache(maxsize=32)
@torch.inference_mode(mode=False)
def _blur(side: int, window: int, border: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The (side, side) matrix that blurs a line of `side` pixels, including its border.

    Two matrix products are faster than two convolutions: on one thread of an AMD EPYC, forward and backward for 8
    images take 1.3 ms instead of 3.2 ms at 64 px, 17 ms instead of 21 ms at 160 px, 43 ms instead of 73 ms at 224 px.
    """
    middle = window // 2
    offsets = torch.arange(window, dtype=torch.float64) - middle
    gaussian = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    mode = "reflect" if border == "reflect" else "constant"
    pixels = F.pad(torch.eye(side, dtype=torch.float64)[None], (middle, middle), mode=mode)  # (1, side, padded)
    blurred = F.conv1d(pixels.transpose(0, 1), (gaussian / gaussian.sum())[None, None])  # (side, 1, side), by pixel
    return blurred[:, 0].T.contiguous().to(device, dtype)


@_in_float32
def _edge(prediction: Tensor, target: Tensor, _: LossConfig, valid: Tensor | None) -> Tensor:
    """Sum of the absolute errors of the horizontal and vertical gradients (Sobel / 8), mean over pixels."""
    # The gradient is linear, so that of the difference suffices. Sums of shifted images take a sixth to an eighth of
    # the time of a convolution with one channel, measured as for `_blur`.
    error = F.pad(prediction - target, (1, 1, 1, 1), mode="replicate")
    across = error[..., 2:] - error[..., :-2]
    down = error[..., 2:, :] - error[..., :-2, :]
    across = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    down = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return _mean(across.abs() + down.abs(), _all_valid(valid, 3)) / 8


@_in_float32
def _inverse_huber(prediction: Tensor, target: Tensor, _: LossConfig, valid: Tensor | None) -> Tensor:
    """Absolute error below a fifth of the batch maximum, quadratic above (Laina et al. 2016); mean over pixels."""
    error = (prediction - target).abs()
    cut = (BERHU_SHARE * error.detach().max()).clamp(min=EPS)
    return _mean(torch.where(error <= cut, error, (error**2 + cut**2) / (2 * cut)), valid)


LOSSES: dict[str, Loss] = {
    "bce": _bce,
    "weighted_bce": _weighted_bce,
    "l1": _l1,
    "smooth_l1": _smooth_l1,
    "huber": _huber,
    "mse": _mse,
    "rmse": _rmse,
    "dice": _dice,
    "tversky": _tversky,
    "ssim": _ssim,
    "edge": _edge,
    "inverse_huber": _inverse_huber,
}
"""Losses by name. Arguments: prediction and target, both (B, 1, H, W), and optionally the options."""

ON_LOGITS = frozenset({"bce", "weighted_bce", "dice", "tversky"})
"""Losses that apply the sigmoid themselves; the others use the output after the activation."""


def all_losses() -> dict[str, Loss]:
    """`LOSSES`, and the losses of the plugins of this process."""
    return LOSSES | {name: _own(loss) for name, loss in own_losses().items()}


def all_on_logits() -> frozenset[str]:
    """`ON_LOGITS`, and the names of such losses of the plugins of this process."""
    return ON_LOGITS | {name for name, loss in own_losses().items() if loss.on_logits}


def _own(loss: parts.Loss) -> Loss:
    @_in_float32
    def computed(prediction: Tensor, target: Tensor, _: LossConfig, valid: Tensor | None) -> Tensor:  # noqa: ARG001
        value = loss.function(prediction, target)
        if not isinstance(value, Tensor) or value.ndim:
            raise InputError(f"The loss '{loss.name}' of a plugin returns {value!r}, but must return a scalar tensor.")
        return value

    return computed
