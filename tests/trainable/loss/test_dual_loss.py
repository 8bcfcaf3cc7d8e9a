"""The training loss: weights, combination and penalties, compared with published totals."""

import math

import pytest
import torch

from trainable.config import LossConfig, SsimConfig
from trainable.config.loss import DepthLoss, MaskLoss
from trainable.loss.dual_loss import DualLoss
from trainable.loss.losses import LOSSES
from trainable.models import Prediction


def _golden():
    """Two patterned images x and y in 0..1, and y as a mask."""
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    b = torch.arange(2).view(2, 1, 1, 1)
    x, y = ((3 * i + 5 * j + b) % 17) / 16, ((7 * i + 2 * j + 3 * b) % 13) / 12
    return x, y, (y > 0.5).float()


def _every_loss():
    mask = MaskLoss(bce=0.5, dice=2.0, l1=0.25)
    return LossConfig(mask=mask, depth=DepthLoss(l1=1.5, ssim=0.75, edge=3.0))


def test_the_total_is_the_weighted_sum_of_the_parts():
    """The parts are logged unweighted, so that trials with different weights can be compared."""
    x, y, mask = _golden()
    config = _every_loss()
    total, parts = DualLoss(config)(Prediction.of(x, y.flip(-1)), mask, y)
    weights = {f"mask_{name}": weight for name, weight in config.mask if weight} | {
        f"depth_{name}": weight for name, weight in config.depth if weight
    }
    assert parts.keys() == weights.keys()
    assert total.item() == pytest.approx(sum(weights[name] * parts[name].item() for name in parts), rel=1e-6)


def test_each_loss_gets_its_own_inputs():
    """Logits for the losses that apply the sigmoid, a probability for the others, and raw depth."""
    x, y, mask = _golden()
    logits, depth = 4 * x - 2, 2 * y - 0.5
    _, parts = DualLoss(_every_loss())(Prediction.of(logits, depth), mask, x)
    assert parts["mask_bce"].item() == LOSSES["bce"](logits, mask).item()
    assert parts["mask_dice"].item() == LOSSES["dice"](logits, mask).item()
    assert parts["mask_l1"].item() == LOSSES["l1"](torch.sigmoid(logits), mask).item()
    assert parts["depth_l1"].item() == LOSSES["l1"](depth, x).item()


def test_losses_without_weight_are_not_computed(monkeypatch):
    """SSIM alone can cost more than the rest of a small network's step."""

    def fail(prediction, target, config):
        raise AssertionError("computed for nothing")

    for name in ("dice", "ssim", "edge"):
        monkeypatch.setitem(LOSSES, name, fail)
    x, y, mask = _golden()
    total, parts = DualLoss(LossConfig())(Prediction.of(x, x), mask, y)
    assert set(parts) == {"mask_bce", "depth_l1"}
    assert total.item() == pytest.approx(0.7569483 + 0.3536377, abs=1e-6)


def test_both_heads_get_gradients_from_the_total_alone():
    """The parts are logged; keeping their graph would keep its memory."""
    x, y, mask = _golden()
    logits, depth = x.clone().requires_grad_(), y.flip(-1).clone().requires_grad_()
    total, parts = DualLoss(_every_loss())(Prediction.of(logits, depth), mask, y)
    total.backward()
    assert logits.grad.abs().sum() > 0
    assert depth.grad.abs().sum() > 0
    assert not any(part.requires_grad for part in parts.values())


NONE = {"bce": 0.0, "l1": 0.0}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (  # birender: square roots of BCE, without a small number below them
            LossConfig(mask=MaskLoss(), depth=DepthLoss(bce=1.0, l1=0.0), combine="sqrt", sqrt_eps=0.0),
            ("mask", 1.7270799),
        ),
        (LossConfig(mask=MaskLoss(**NONE, mse=3.0), depth=DepthLoss(**NONE, mse=1.0)), ("linear", 1.2263014)),
        (  # ramana: one head's part, with each convention of the structural similarity
            LossConfig(
                mask=MaskLoss(bce=0.0, ssim=1.0, edge=1.0, l1=1.0),
                depth=DepthLoss(**NONE, mse=1e-12),
                ssim=SsimConfig(window=3, form="clamped"),
            ),
            ("task", 1.0631982),
        ),
        (
            LossConfig(
                mask=MaskLoss(bce=0.0, ssim=1.0, edge=1.0, l1=1.0),
                depth=DepthLoss(**NONE, mse=1e-12),
                ssim=SsimConfig(window=3),
            ),
            ("task", 1.1315898),
        ),
        (  # monimoyd
            LossConfig(
                mask=MaskLoss(bce=2.0),
                depth=DepthLoss(**NONE, ssim=1.0),
                ssim=SsimConfig(form="plain", border="zero", minmax=True),
            ),
            ("stretched", 2.3033783),
        ),
    ],
)
def test_totals_have_their_published_values(config, expected):
    """A recipe is its loss before anything else."""
    x, y, mask = _golden()
    kind, value = expected
    prediction, truth = {
        "mask": (Prediction.of(x, x), (mask, y)),
        "linear": (Prediction.of(x, x, mask_activation="linear"), (mask, y)),
        "task": (Prediction.of(x, y, mask_activation="linear"), (y, y)),
        "stretched": (Prediction.of(x, 2 * x - 0.7), (mask, y)),
    }[kind]
    total, _ = DualLoss(config)(prediction, *truth)
    assert total.item() == pytest.approx(value, abs=1e-5)


def test_epsilon_keeps_gradients_of_roots_finite():
    """A perfect head has loss 0, where a square root has no slope."""
    _, y, _ = _golden()
    for eps, is_finite in ((1e-6, True), (0.0, False)):
        config = LossConfig(
            mask=MaskLoss(**NONE, mse=1.0), depth=DepthLoss(**NONE, mse=1.0), combine="sqrt", sqrt_eps=eps
        )
        exact = y.clone().requires_grad_()
        total, _ = DualLoss(config)(Prediction.of(exact, exact, mask_activation="linear"), y, y)
        total.backward()
        assert bool(exact.grad.isfinite().all()) is is_finite


def test_learned_weights_have_finite_gradients_at_a_perfect_prediction():
    """The slope of a learned weight is then 1, which the optimizer follows; the images' is 0."""
    _, y, _ = _golden()
    only_mse = {"mask": MaskLoss(**NONE, mse=1.0), "depth": DepthLoss(**NONE, mse=1.0)}
    loss = DualLoss(LossConfig(**only_mse, combine="uncertainty"))
    exact = y.clone().requires_grad_()
    total, _ = loss(Prediction.of(exact, exact, mask_activation="linear"), y, y)
    total.backward()
    assert exact.grad.abs().max().item() == 0
    assert loss.log_variance.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("combine", ["sum", "sqrt", "uncertainty"])
def test_the_total_is_computed_in_float32_under_autocast(combine):
    """The combination of float32 losses must not lose precision under autocast."""
    x, y, mask = _golden()
    loss = DualLoss(_every_loss().model_copy(update={"combine": combine}))
    expected, _ = loss(Prediction.of(x, y.flip(-1)), mask, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = loss(Prediction.of(x, y.flip(-1)), mask, y)
    assert total.dtype == torch.float32
    assert total.item() == expected.item()


def test_learned_weights_are_restored_from_the_state():
    """A resumed trial must keep the learned weights."""
    learned, fresh = (DualLoss(LossConfig(combine="uncertainty")) for _ in range(2))
    torch.nn.init.constant_(learned.log_variance, -1.5)
    fresh.load_state_dict(learned.state_dict())
    assert fresh.log_variance.tolist() == [-1.5, -1.5]


def test_uncertainty_learns_the_weights_of_the_heads():
    """Each head's weight goes to one over its loss, where exp(-s) L + s is least (Kendall et al. 2018)."""
    x, y, mask = _golden()
    loss = DualLoss(LossConfig(combine="uncertainty"))
    plain, parts = DualLoss(LossConfig())(Prediction.of(x, x), mask, y)
    assert loss(Prediction.of(x, x), mask, y)[0].item() == pytest.approx(plain.item())
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.3)
    for _ in range(200):
        optimizer.zero_grad()
        loss(Prediction.of(x, x), mask, y)[0].backward()
        optimizer.step()
    [learned] = loss.parameters()
    expected = [math.log(parts[name].item()) for name in ("mask_bce", "depth_l1")]
    assert learned.tolist() == pytest.approx(expected, abs=1e-3)


def test_only_uncertainty_has_parameters():
    """Parameters without a gradient would stall several workers."""
    assert not list(DualLoss(LossConfig()).parameters())
    assert not list(DualLoss(LossConfig(combine="sqrt")).parameters())


def test_penalties_follow_their_formulas():
    """One adds up norms, not their squares; the other absolute values. A tensor of zeros has a slope of 0."""
    network = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(network.bias)
    weight = network.weight.detach()
    penalty = DualLoss(LossConfig(norm_sum=0.5, l1_sum=0.25)).penalty(network)
    expected = 0.5 * weight.square().sum().sqrt() + 0.25 * weight.abs().sum()
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-6)
    penalty.backward()
    assert network.bias.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("asked", "power"), [("norm_sum", 2), ("l1_sum", 1)])
def test_frozen_weights_cost_nothing(asked, power):
    """Frozen parameters cannot shrink, and would hide the penalty of the others in the log."""
    network = torch.nn.Linear(3, 2)
    network.bias.requires_grad_(False)
    penalty = DualLoss(LossConfig(**{asked: 0.5})).penalty(network)
    assert penalty.item() == pytest.approx(0.5 * network.weight.detach().norm(power).item(), rel=1e-6)


def test_without_penalties_weights_cost_nothing():
    """Penalties with weight 0 are not computed."""
    assert DualLoss(LossConfig()).penalty(torch.nn.Linear(3, 2)) == 0.0
