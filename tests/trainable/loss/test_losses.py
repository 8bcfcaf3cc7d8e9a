"""The single losses against published values and trusted references."""

import numpy as np
import pytest
import torch
from kornia.filters import spatial_gradient
from kornia.losses import ssim_loss
from kornia.metrics import ssim
from scipy.ndimage import gaussian_filter, sobel

from trainable.config import LossConfig, SsimConfig
from trainable.config.loss import HeadLoss
from trainable.loss.losses import LOSSES, ON_LOGITS, similarity


def _golden():
    """Two patterned images x and y in 0..1, and y as a mask."""
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    b = torch.arange(2).view(2, 1, 1, 1)
    x, y = ((3 * i + 5 * j + b) % 17) / 16, ((7 * i + 2 * j + 3 * b) % 13) / 12
    return x, y, (y > 0.5).float()


def _random(seed=0, size=(2, 1, 24, 20)):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(size, generator=generator), torch.rand(size, generator=generator)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bce", 0.7569483),
        ("dice", 0.4731044),
        ("l1", 0.3536377),
        ("smooth_l1", 0.0938064),
        ("mse", 0.1876127),
        ("edge", 0.2839356),
    ],
)
def test_losses_have_their_published_values(name, expected):
    """These were computed with the code that the losses were first published in."""
    x, y, mask = _golden()
    assert LOSSES[name](x, mask if name in ON_LOGITS else y).item() == pytest.approx(expected, abs=1e-6)


def test_rmse_has_its_published_value():
    """The published loss was computed on the sigmoid, as for a mask here."""
    x, y, _ = _golden()
    assert LOSSES["rmse"](torch.sigmoid(x), y).item() == pytest.approx(0.3405810, abs=1e-6)


@pytest.mark.parametrize(("form", "expected"), [("clamped", 0.4256250), ("halved", 0.4940165), ("plain", 0.9880330)])
def test_ssim_has_its_published_values_in_each_form(form, expected):
    """The two conventions differ, in value and in gradient, wherever the similarity is negative."""
    x, y, _ = _golden()
    config = LossConfig(ssim=SsimConfig(window=3, form=form))
    assert LOSSES["ssim"](x, y, config).item() == pytest.approx(expected, abs=1e-6)
    assert similarity(x, y, config.ssim).mean().item() == pytest.approx(0.0119670, abs=1e-6)


def test_ssim_of_stretched_images_has_its_published_value():
    """A depth that is right up to scale and offset was what one project trained."""
    x, y, _ = _golden()
    config = LossConfig(ssim=SsimConfig(window=11, form="plain", border="zero", minmax=True))
    for depth in (x, 2 * x - 0.7):
        assert 1 - LOSSES["ssim"](depth, y, config).item() == pytest.approx(0.2105181, abs=1e-6)


@pytest.mark.parametrize(("window", "form"), [(3, "halved"), (11, "halved"), (5, "plain")])
def test_ssim_agrees_with_kornia(window, form):
    """A widely used library, with the convention 'halved'."""
    x, y = _random()
    config = LossConfig(ssim=SsimConfig(window=window, form=form))
    theirs = ssim_loss(x, y, window) if form == "halved" else (1 - ssim(x, y, window)).mean()
    assert LOSSES["ssim"](x, y, config).item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize(("border", "mode"), [("reflect", "mirror"), ("zero", "constant")])
def test_ssim_agrees_with_scipy(border, mode):
    """A Gaussian window of 11 with sigma 1.5, as Wang et al. have it, with each way to go on beyond the border."""
    p, t = (image.numpy().astype(np.float64) for image in _random())

    def blur(image):
        return gaussian_filter(image, sigma=1.5, radius=5, mode=mode, axes=(2, 3))

    mean_p, mean_t = blur(p), blur(t)
    var_p, var_t, cov = blur(p * p) - mean_p**2, blur(t * t) - mean_t**2, blur(p * t) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean_p * mean_t + c1) * (2 * cov + c2)
    expected /= (mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2)
    assert similarity(*_random(), SsimConfig(border=border)).numpy() == pytest.approx(expected, abs=1e-5)
    config = LossConfig(ssim=SsimConfig(border=border))
    assert LOSSES["ssim"](*_random(), config).item() == pytest.approx(((1 - expected) / 2).mean(), rel=1e-6)


def test_ssim_and_edge_have_the_gradients_of_kornia():
    """They are implemented differently there, and training depends on the gradient only."""
    x, y = _random()
    for name, theirs in (("ssim", lambda p: ssim_loss(p, y, 11)), ("edge", lambda p: _kornia_edge(p, y))):
        ours, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
        LOSSES[name](ours, y).backward()
        theirs(reference).backward()
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-4, atol=1e-7)


def _kornia_edge(prediction, target):
    return (spatial_gradient(prediction) - spatial_gradient(target)).abs().sum(dim=2).mean()


def test_ssim_can_be_trained_after_inference_mode():
    """The cached blur matrix must not be an inference tensor."""
    x, y = _random(size=(1, 1, 23, 17))
    with torch.inference_mode():
        seen = LOSSES["ssim"](x, y).item()
    trained = x.clone().requires_grad_()
    loss = LOSSES["ssim"](trained, y)
    loss.backward()
    assert loss.item() == seen
    assert trained.grad.abs().sum() > 0


def test_ssim_is_finite_far_from_the_targets():
    """A linear head may start there, where rounding could change the sign of a variance and of the gradient."""
    x, y = _random()
    for far in (x + 1000, 1000 * x, torch.full_like(x, 1000.3)):
        output = far.clone().requires_grad_()
        assert similarity(output, y, SsimConfig()).abs().max().item() < 0.01
        LOSSES["ssim"](output, y, LossConfig(ssim=SsimConfig(form="plain"))).backward()
        assert output.grad.abs().max().item() < 1e-4


@pytest.mark.parametrize("form", ["halved", "clamped", "plain"])
@pytest.mark.parametrize("border", ["reflect", "zero"])
@pytest.mark.parametrize("minmax", [False, True])
def test_ssim_has_finite_gradients_at_a_perfect_prediction(form, border, minmax):
    """A constant image has no variance, and no range to scale."""
    _, y, _ = _golden()
    config = LossConfig(ssim=SsimConfig(form=form, border=border, minmax=minmax))
    for truth in (y, torch.zeros_like(y)):
        right = truth.clone().requires_grad_()
        loss = LOSSES["ssim"](right, truth, config)
        loss.backward()
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert right.grad.isfinite().all()


def test_edge_agrees_with_scipy():
    """Both directions count, and the border is replicated rather than seen as an edge."""
    p, t = (image.numpy().astype(np.float64) for image in _random())
    slopes = [
        np.abs(sobel(difference, axis=axis, mode="nearest")) / 8 for difference in (p - t)[:, 0] for axis in (0, 1)
    ]
    expected = np.sum(slopes) / p.size
    assert LOSSES["edge"](*_random()).item() == pytest.approx(expected, rel=1e-5)


def test_weighted_bce_counts_the_foreground_more():
    """Foreground is a fifth of an image: without a weight, an empty mask may be a good solution."""
    x, _, mask = _golden()
    each = np.logaddexp(0, np.where(mask > 0, -x, x)) * np.where(mask > 0, 3.0, 1.0)
    config = LossConfig(positive_weight=3.0)
    assert LOSSES["weighted_bce"](x, mask, config).item() == pytest.approx(each.mean(), rel=1e-6)


def test_huber_is_linear_beyond_its_delta():
    """Half the square below, a straight line of that slope above."""
    x, y = (image.double().numpy() for image in _random())
    error = np.abs(x - y)
    expected = np.where(error < 0.2, error**2 / 2, 0.2 * (error - 0.1)).mean()
    assert LOSSES["huber"](*_random(), LossConfig(huber_delta=0.2)).item() == pytest.approx(expected, rel=1e-6)


def test_inverse_huber_is_quadratic_beyond_a_fifth_of_the_largest_error():
    """Large errors count more, small ones keep their slope; the two meet at the cut."""
    x, y = (image.double().numpy() for image in _random())
    error = np.abs(x - y)
    cut = 0.2 * error.max()
    expected = np.where(error <= cut, error, (error**2 + cut**2) / (2 * cut)).mean()
    assert LOSSES["inverse_huber"](*_random()).item() == pytest.approx(expected, rel=1e-6)


def test_tversky_weighs_false_alarms_and_misses():
    """At a half each it is the Dice coefficient; below, misses count more."""
    x, _, mask = _golden()
    p, t = torch.sigmoid(x).double().numpy(), mask.double().numpy()
    sums = [np.sum(term, axis=(1, 2, 3)) for term in (p * t, p * (1 - t), (1 - p) * t)]
    expected = (1 - sums[0] / (sums[0] + 0.3 * sums[1] + 0.7 * sums[2])).mean()
    assert LOSSES["tversky"](x, mask).item() == pytest.approx(expected, rel=1e-5)
    half = LossConfig(tversky_alpha=0.5)
    assert LOSSES["tversky"](x, mask, half).item() == pytest.approx(LOSSES["dice"](x, mask).item(), rel=1e-5)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("target", ["mask", "empty", "full"])
def test_gradients_are_finite_at_a_perfect_prediction(name, target):
    """One infinite gradient would end a trial just when it fits its data."""
    mask = _golden()[2]
    truth = {"mask": mask, "empty": torch.zeros_like(mask), "full": torch.ones_like(mask)}[target]
    right = (truth * 400 - 200) if name in ON_LOGITS else truth.clone()
    right.requires_grad_()
    loss = LOSSES[name](right, truth)
    loss.backward()
    assert right.grad.isfinite().all()
    if name not in {"dice", "tversky"} or target != "empty":  # of two empty masks they are 0 by their definition
        assert loss.item() == pytest.approx(1e-3 if name == "rmse" else 0, abs=1e-5)  # its small number under the root


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_computed_in_float32_under_autocast(name):
    """With the eight bits of bf16, the small differences of a loss vanish."""
    x, y, mask = _golden()
    target = mask if name in ON_LOGITS else y
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](x.bfloat16(), target)
    assert loss.dtype == torch.float32
    assert loss.item() == LOSSES[name](x.bfloat16().float(), target).item()


def test_every_weight_of_the_configuration_has_its_loss():
    """A weight without a loss would pass validation and fail in the first step."""
    assert list(HeadLoss.model_fields) == list(LOSSES)
