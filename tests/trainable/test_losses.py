"""The losses against known values and references, and how they are weighed."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, sobel

from trainable import losses
from trainable.config import DepthLoss, LossConfig, MaskLoss
from trainable.losses import LOSSES, ON_LOGITS, DualLoss
from trainable.models import Prediction


def _golden():
    """Two patterned pictures x and y in 0..1, and y as a mask."""
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    b = torch.arange(2).view(2, 1, 1, 1)
    x, y = ((3 * i + 5 * j + b) % 17) / 16, ((7 * i + 2 * j + 3 * b) % 13) / 12
    return x, y, (y > 0.5).float()


def _random(seed=0, size=(2, 1, 24, 20)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, generator=generator), torch.rand(size, generator=generator)


@pytest.mark.parametrize(
    ("name", "expected"), [("bce", 0.7569483), ("dice", 0.4731044), ("l1", 0.3536377), ("edge", 0.2839356)]
)
def test_losses_have_their_published_values(name, expected):
    """These were computed with the code that the losses were first published in."""
    x, y, mask = _golden()
    assert LOSSES[name](x, mask if name in ON_LOGITS else y).item() == pytest.approx(expected, abs=2e-7)


def test_ssim_has_its_published_value_at_the_published_window(monkeypatch):
    """The value at hand is of a window of 3; the convention of (1 - SSIM) / 2 is the same at any."""
    monkeypatch.setattr(losses, "SSIM_WINDOW", 3)
    x, y, _ = _golden()
    assert LOSSES["ssim"](x, y).item() == pytest.approx(0.4940165, abs=2e-7)


def test_ssim_agrees_with_scipy():
    """A Gaussian window of 11 with sigma 1.5 over mirrored borders, as Wang et al. have it."""
    p, t = (picture.numpy().astype(np.float64) for picture in _random())

    def blur(picture):
        return gaussian_filter(picture, sigma=1.5, radius=5, mode="mirror", axes=(2, 3))

    mean_p, mean_t = blur(p), blur(t)
    var_p, var_t, cov = blur(p * p) - mean_p**2, blur(t * t) - mean_t**2, blur(p * t) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_p * mean_t + c1) * (2 * cov + c2)
    similarity /= (mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2)
    assert LOSSES["ssim"](*_random()).item() == pytest.approx(((1 - similarity) / 2).mean(), rel=1e-6)


def test_edge_agrees_with_scipy():
    """Both directions count, and the border is replicated rather than seen as an edge."""
    p, t = (picture.numpy().astype(np.float64) for picture in _random())
    slopes = [
        np.abs(sobel(difference, axis=axis, mode="nearest")) / 8 for difference in (p - t)[:, 0] for axis in (0, 1)
    ]
    expected = np.sum(slopes) / p.size
    assert LOSSES["edge"](*_random()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("target", ["mask", "empty", "full"])
def test_gradients_are_finite_where_the_prediction_is_right(name, target):
    """One infinite gradient ends a trial just when it has learnt its data."""
    mask = _golden()[2]
    truth = {"mask": mask, "empty": torch.zeros_like(mask), "full": torch.ones_like(mask)}[target]
    right = (truth * 400 - 200) if name in ON_LOGITS else truth.clone()
    right.requires_grad_()
    loss = LOSSES[name](right, truth)
    loss.backward()
    assert right.grad.isfinite().all()
    if name != "dice" or target != "empty":  # a Dice coefficient of two empty masks is 0 by its definition
        assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_computed_in_float32_under_autocast(name):
    """With the eight bits of bf16, the small differences that a loss is made of vanish."""
    x, y, mask = _golden()
    target = mask if name in ON_LOGITS else y
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](x.bfloat16(), target)
    assert loss.dtype == torch.float32
    assert loss.item() == LOSSES[name](x.bfloat16().float(), target).item()


def _every_loss():
    mask = MaskLoss(bce=0.5, dice=2.0, l1=0.25)
    return LossConfig(mask=mask, depth=DepthLoss(l1=1.5, ssim=0.75, edge=3.0))


def test_the_total_is_the_weighted_sum_of_the_parts():
    """The parts are logged unweighted, so that trials with different weights can be compared."""
    x, y, mask = _golden()
    config = _every_loss()
    total, parts = DualLoss(config)(Prediction(x, y.flip(-1)), mask, y)
    weights = {f"mask_{name}": weight for name, weight in config.mask} | {
        f"depth_{name}": weight for name, weight in config.depth
    }
    assert parts.keys() == weights.keys()
    assert total.item() == pytest.approx(sum(weights[name] * parts[name].item() for name in parts), rel=1e-6)


def test_each_part_sees_what_it_is_meant_to():
    """Logits for the losses that apply the sigmoid, a probability for the others, and raw depth."""
    x, y, mask = _golden()
    logits, depth = 4 * x - 2, 2 * y - 0.5
    _, parts = DualLoss(_every_loss())(Prediction(logits, depth), mask, x)
    assert parts["mask_bce"].item() == LOSSES["bce"](logits, mask).item()
    assert parts["mask_dice"].item() == LOSSES["dice"](logits, mask).item()
    assert parts["mask_l1"].item() == LOSSES["l1"](torch.sigmoid(logits), mask).item()
    assert parts["depth_l1"].item() == LOSSES["l1"](depth, x).item()


def test_losses_without_weight_are_not_computed(monkeypatch):
    """SSIM alone can cost more than the rest of a small network's step."""

    def fail(prediction, target):
        raise AssertionError("computed for nothing")

    for name in ("dice", "ssim", "edge"):
        monkeypatch.setitem(LOSSES, name, fail)
    x, y, mask = _golden()
    total, parts = DualLoss(LossConfig())(Prediction(x, x), mask, y)
    assert set(parts) == {"mask_bce", "depth_l1"}
    assert total.item() == pytest.approx(0.7569483 + 0.3536377, abs=1e-6)


def test_both_heads_get_gradients_from_the_total_alone():
    """The parts are for the log: one that kept the graph would keep its memory, too."""
    x, y, mask = _golden()
    prediction = Prediction(x.clone().requires_grad_(), y.flip(-1).clone().requires_grad_())
    total, parts = DualLoss(_every_loss())(prediction, mask, y)
    total.backward()
    assert prediction.mask_logits.grad.abs().sum() > 0
    assert prediction.depth.grad.abs().sum() > 0
    assert not any(part.requires_grad for part in parts.values())


def test_every_weight_of_the_configuration_has_its_loss():
    """A weight without a loss would pass validation and fail in the first step."""
    assert set(MaskLoss.model_fields) | set(DepthLoss.model_fields) <= set(LOSSES)
