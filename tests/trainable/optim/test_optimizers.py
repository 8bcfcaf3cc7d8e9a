"""The optimizers: each setting has its effect."""

import pytest
import torch

from trainable.config import OptimizerConfig
from trainable.optim.optimizers import OPTIMIZERS, build_optimizer


def _model():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def _stepped(config, gradients):
    """The weight after a step along each gradient."""
    model = _model()
    optimizer = build_optimizer([list(model.parameters())], config)
    for gradient in gradients:
        optimizer.zero_grad()
        (model.weight * gradient + model.bias.sum() * 0).sum().backward()
        optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_follows_its_formula(nesterov):
    """Momentum, Nesterov's look ahead and weight decay, as Sutskever et al. 2013 and torch write them."""
    config = OptimizerConfig(name="sgd", lr=0.1, momentum=0.8, nesterov=nesterov, weight_decay=0.05)
    weight, velocity = _model().weight.detach().clone(), 0.0
    for gradient in (1.0, -0.5, 2.0):
        decayed = gradient + 0.05 * weight
        velocity = 0.8 * velocity + decayed
        weight = weight - 0.1 * (decayed + 0.8 * velocity if nesterov else velocity)
    torch.testing.assert_close(_stepped(config, (1.0, -0.5, 2.0)), weight)


def test_adamw_follows_its_formula():
    """Both betas, and a decay apart from the gradient (Loshchilov & Hutter 2019)."""
    config = OptimizerConfig(name="adamw", lr=0.1, momentum=0.8, weight_decay=0.05)
    weight, first, second = _model().weight.detach().clone(), 0.0, 0.0
    for step, gradient in enumerate((1.0, -0.5, 2.0), start=1):
        first = 0.8 * first + 0.2 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = (first / (1 - 0.8**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        weight = weight * (1 - 0.1 * 0.05) - 0.1 * unbiased
    torch.testing.assert_close(_stepped(config, (1.0, -0.5, 2.0)), weight)


def test_adam_follows_its_formula():
    """Its decay is part of the gradient, which AdamW's is not (Kingma & Ba 2015)."""
    config = OptimizerConfig(name="adam", lr=0.1, momentum=0.8, weight_decay=0.05)
    weight, first, second = _model().weight.detach().clone(), 0.0, 0.0
    for step, gradient in enumerate((1.0, -0.5, 2.0), start=1):
        decayed = gradient + 0.05 * weight
        first = 0.8 * first + 0.2 * decayed
        second = 0.999 * second + 0.001 * decayed**2
        unbiased = (first / (1 - 0.8**step)) / ((second / (1 - 0.999**step)) ** 0.5 + 1e-8)
        weight = weight - 0.1 * unbiased
    torch.testing.assert_close(_stepped(config, (1.0, -0.5, 2.0)), weight)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameter_groups_follow_the_order_of_the_parts(name):
    """A learning-rate policy finds its part by its index."""
    model, other = _model(), torch.nn.Parameter(torch.zeros(2))
    config = OptimizerConfig(name=name, weight_decay=0.5)
    optimizer = build_optimizer([[model.weight], [model.bias]], config, undecayed=[other])
    assert [group["params"] for group in optimizer.param_groups] == [[model.weight], [model.bias], [other]]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.5, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {config.lr}
