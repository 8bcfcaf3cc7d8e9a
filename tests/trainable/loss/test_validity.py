"""The losses with a validity mask, against formulas in numpy over the valid pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d, gaussian_filter, minimum_filter

from trainable.config import LossConfig, SsimConfig
from trainable.config.loss import DepthLoss
from trainable.loss.dual_loss import DualLoss
from trainable.loss.losses import LOSSES, ON_LOGITS
from trainable.models.prediction import Prediction

CONFIG = LossConfig(ssim=SsimConfig(window=5))
DELTA, ALPHA, POSITIVE = CONFIG.huber_delta, CONFIG.tversky_alpha, CONFIG.positive_weight


def planes(seed=0, size=(4, 1, 24, 20)):
    """Prediction, target and validity: the last image has no valid pixel, the second no invalid one."""
    generator = torch.Generator().manual_seed(seed)
    prediction, target = (torch.rand(size, generator=generator) for _ in range(2))
    coarse = torch.rand((size[0], 1, size[2] // 4, size[3] // 4), generator=generator) > 0.25
    valid = coarse.repeat_interleave(4, 2).repeat_interleave(4, 3)
    valid[1], valid[-1] = True, False
    return prediction, target, valid


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def windows(valid, side):
    """Where all pixels of a window that lie in the image are valid, image by image."""
    return np.stack([minimum_filter(each.astype(np.uint8), side, mode="constant", cval=1) for each in valid]) > 0


def ssim(p, t, valid):
    """Wang et al. 2004 with a Gaussian window of 5 pixels, reflected at the border, by scipy."""

    def blur(image):
        return gaussian_filter(image, 1.5, mode="mirror", radius=2, axes=(1, 2))

    mean_p, mean_t = blur(p), blur(t)
    variances = blur(p * p) - mean_p**2 + blur(t * t) - mean_t**2
    covariance = blur(p * t) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    similar = (2 * mean_p * mean_t + c1) * (2 * covariance + c2)
    similar /= (mean_p**2 + mean_t**2 + c1) * (variances + c2)
    return ((1 - similar) / 2).clip(0, 1)[windows(valid, 5)].mean()


def edge(p, t, valid):
    """Sobel / 8 of scipy, in both directions."""
    total = np.zeros_like(p)
    for along, across in ((1, 2), (2, 1)):
        smooth = correlate1d(p - t, [1, 2, 1], axis=along, mode="nearest")
        total += np.abs(correlate1d(smooth, [-1, 0, 1], axis=across, mode="nearest")) / 8
    return total[windows(valid, 3)].mean()


def inverse_huber(p, t, valid):
    error = np.abs(p - t)[valid]
    cut = 0.2 * error.max()
    return np.where(error <= cut, error, (error**2 + cut**2) / (2 * cut)).mean()


def of_images(loss):
    """The mean of a loss over the images with valid pixels, of those pixels."""

    def computed(p, t, valid):
        pairs = [(p[i][valid[i]], t[i][valid[i]]) for i in range(len(p)) if valid[i].any()]
        return np.mean([loss(*pair) for pair in pairs])

    return computed


def tversky(p, t):
    p = sigmoid(p)
    hits = (p * t).sum()
    return 1 - hits / (hits + ALPHA * (p * (1 - t)).sum() + (1 - ALPHA) * ((1 - p) * t).sum())


def of_pixels(loss):
    """The mean of a pointwise loss over the valid pixels of all images."""
    return lambda p, t, valid: loss(p[valid], t[valid]).mean()


def bce(p, t, positive=1.0):
    return -positive * t * np.log(sigmoid(p)) - (1 - t) * np.log(1 - sigmoid(p))


def huber(p, t, delta=DELTA):
    error = np.abs(p - t)
    return np.where(error < delta, error**2 / 2, delta * (error - delta / 2))


REFERENCES = {
    "bce": of_pixels(bce),
    "weighted_bce": of_pixels(lambda p, t: bce(p, t, POSITIVE)),
    "l1": of_pixels(lambda p, t: np.abs(p - t)),
    "smooth_l1": of_pixels(lambda p, t: huber(p, t, 1.0)),
    "huber": of_pixels(huber),
    "mse": of_pixels(lambda p, t: (p - t) ** 2),
    "rmse": lambda p, t, valid: np.sqrt(((p - t)[valid] ** 2).mean() + 1e-6),
    "dice": of_images(lambda p, t: 1 - 2 * (sigmoid(p) * t).sum() / (sigmoid(p) + t).sum()),
    "tversky": of_images(tversky),
    "ssim": ssim,
    "edge": edge,
    "inverse_huber": inverse_huber,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_of_valid_pixels(name):
    """Each has a formula in numpy that never reads an invalid pixel."""
    prediction, target, valid = planes()
    expected = REFERENCES[name](*(plane[:, 0].double().numpy() for plane in (prediction, target)), valid[:, 0].numpy())

    assert LOSSES[name](prediction, target, CONFIG, valid).item() == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("minmax", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e6, math.inf, math.nan])
@pytest.mark.parametrize("name", LOSSES)
def test_invalid_pixels_have_no_influence(name, value, minmax):
    """Loss and gradient are the same to the last bit, whatever prediction and target are there."""
    prediction, target, valid = planes()
    config = LossConfig(ssim=SsimConfig(window=5, minmax=minmax))

    def loss_and_gradient(predicted, truth):
        predicted = predicted.clone().requires_grad_()
        loss = LOSSES[name](predicted, truth, config, valid)
        loss.backward()
        return loss.detach(), predicted.grad

    loss, gradient = loss_and_gradient(prediction, target)
    filled = (torch.where(valid, plane, value) for plane in (prediction, target))
    other_loss, other_gradient = loss_and_gradient(*filled)

    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)
    assert gradient.isfinite().all()
    assert (gradient[~valid] == 0).all()
    assert (gradient[valid] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_all_pixels_valid_is_the_loss_without_a_mask(name):
    """Up to rounding: a sample without holes counts as it does in a data set without masks."""
    prediction, target, _ = planes()
    everywhere = torch.ones_like(target, dtype=torch.bool)

    masked = LOSSES[name](prediction, target, CONFIG, everywhere)

    assert masked.item() == pytest.approx(LOSSES[name](prediction, target, CONFIG).item(), rel=1e-6)


@pytest.mark.parametrize("minmax", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_valid_pixels_costs_nothing(name, minmax):
    """A small batch of a poor sensor may have none; a NaN would end the trial."""
    prediction, target, valid = planes()
    prediction.requires_grad_()
    config = LossConfig(ssim=SsimConfig(window=5, minmax=minmax))

    loss = LOSSES[name](prediction, target, config, torch.zeros_like(valid))
    loss.backward()

    assert loss.item() == pytest.approx(1e-3 if name == "rmse" else 0.0)  # the root of its constant
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_images_without_valid_pixels_change_nothing(name):
    """They are left out of means over images as well."""
    prediction, target, valid = planes()
    assert not valid[-1].any()

    whole = LOSSES[name](prediction, target, CONFIG, valid)

    rest = LOSSES[name](prediction[:-1], target[:-1], CONFIG, valid[:-1])
    assert whole.item() == pytest.approx(rest.item(), rel=1e-6)


def test_only_the_depth_is_masked():
    """The mask of the foreground is known also where no depth was measured."""
    prediction, target, valid = planes()
    outputs = Prediction(mask=prediction, depth=prediction, mask_logits=prediction, depth_logits=prediction)
    everything = {name: 1.0 for name in LOSSES if name not in ON_LOGITS}
    loss = DualLoss(LossConfig(depth=DepthLoss(**everything), ssim=CONFIG.ssim))

    _, plain = loss(outputs, target, target)
    _, masked = loss(outputs, target, target, valid)

    assert plain["mask_bce"] == masked["mask_bce"]
    for name in everything:
        assert masked[f"depth_{name}"] == LOSSES[name](prediction, target, CONFIG, valid)
