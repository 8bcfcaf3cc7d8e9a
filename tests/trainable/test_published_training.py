"""How the published programs set up their optimizers and stepped them, run with torch, against the faithful recipes.

A program's optimizer is what its constructor made of it, and what the constructors of its schedulers changed since:
`OneCycleLR` and `CyclicLR` set the learning rate and the momentum at once, whether they are stepped later or not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.optim import lr_scheduler

from data.schema import Batch
from trainable.config import PolicyConfig, TrialConfig
from trainable.loop.clock import Clock
from trainable.loop.state import DistributedContext, start
from trainable.loop.step import train_step
from trainable.loss.dual_loss import DualLoss
from trainable.models import Network, Prediction, build_model
from trainable.optim.optimizers import build_optimizer
from trainable.optim.schedules import build_policy
from trainable.recipes import RECIPES, load_recipe

ALONE = DistributedContext(device=torch.device("cpu"))
Weights = Iterable[nn.Parameter]


def raguram(weights: Weights) -> optim.Optimizer:
    optimizer = optim.Adam(weights, lr=0.5)
    lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.5,
        epochs=3,
        steps_per_epoch=3,
        pct_start=0.3,
        anneal_strategy="linear",
        div_factor=25.0,
        final_div_factor=10_000,
    )
    return optimizer


def raguram_tiny(weights: Weights) -> optim.Optimizer:
    return optim.SGD(weights, lr=0.01, momentum=0.9)


def divyansh_mask(weights: Weights) -> optim.Optimizer:
    optimizer = optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-5)
    lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
    return optimizer


def divyansh_depth(weights: Weights) -> optim.Optimizer:
    optimizer = optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-5)
    lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.1)
    return optimizer


def birender(step_size: int) -> Callable[[Weights], optim.Optimizer]:
    def build(weights: Weights) -> optim.Optimizer:
        optimizer = optim.SGD(weights, lr=1e-4, momentum=0.9, nesterov=True, weight_decay=1e-4)
        lr_scheduler.CyclicLR(optimizer, base_lr=1e-4, max_lr=0.01, step_size_up=step_size, mode="triangular2")
        lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.1, patience=5, threshold=0.001)
        return optimizer

    return build


def ramana(weights: Weights) -> optim.Optimizer:
    optimizer = optim.Adam(weights, lr=1e-3)
    lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.3)
    return optimizer


def monimoyd(weights: Weights) -> optim.Optimizer:
    optimizer = optim.SGD(weights, lr=0.01, momentum=0.9, weight_decay=1e-5)
    lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    return optimizer


PUBLISHED: dict[str, tuple[Sequence[Callable[[Weights], optim.Optimizer]], int]] = {
    "raguram-resunet": ([raguram], 2),
    "raguram-resunet-lite": ([raguram_tiny], 2),
    "divyansh-pair": ([divyansh_mask, divyansh_depth], 1),
    "birender-cnn": ([birender(8)], 1),
    "birender-cnn-v1": ([birender(2_000)], 1),
    "birender-resnet": ([birender(2_000)], 1),
    "ramana-dnn": ([ramana], 1),
    "monimoyd-unet": ([monimoyd], 1),
}
"""By recipe: how the optimizer of each network was built, and how often each batch was stepped."""


@pytest.mark.parametrize("name", RECIPES)
def test_first_step_uses_the_rate_set_by_constructing_the_schedulers(name: str) -> None:
    """A rate that is written in a program is not the one that it trains with, where a constructor changes it."""
    config = load_recipe(name, faithful=True).config
    policies: list[PolicyConfig] = [policy for policy in (config.policy, config.depth_policy) if policy is not None]
    builds, steps_per_batch = PUBLISHED[name]
    for build, policy in zip(builds, policies, strict=True):
        published, ours = (settings(make) for make in (build, lambda weights, p=policy: begun(config, p, weights)))
        assert ours == pytest.approx(published, rel=1e-12)
    assert config.optimizer.steps_per_batch == steps_per_batch


def begun(config: TrialConfig, policy: PolicyConfig, weights: Weights) -> optim.Optimizer:
    """Our optimizer as its first step finds it."""
    optimizer = build_optimizer([list(weights)], config.optimizer)
    build_policy(policy, steps_of_epochs=[5] * config.epochs).apply(optimizer.param_groups, 0)
    return optimizer


def settings(build: Callable[[Weights], optim.Optimizer]) -> dict[str, Any]:
    """What a step depends on beside the gradient, by name; what is 0 is left out."""
    group = build([nn.Parameter(torch.zeros(1))]).param_groups[0]
    beta, second = group.get("betas", (group.get("momentum"), 0.0))
    keys = ("lr", "weight_decay", "nesterov", "eps")
    return {"beta": beta, "second": second} | {key: float(group[key]) for key in keys if group.get(key)}


@pytest.mark.slow
def test_raguram_faithful_trains_as_the_published_program_does() -> None:
    """The published loop: two steps with each gradient, at the rate and beta1 that constructing OneCycleLR left.

    Adam divides by the size of a gradient, so that rounding, which differs by processor, grows with each step.
    """
    config = on_cpu(load_recipe("raguram-resunet", faithful=True).config)
    batches = [batch(seed) for seed in range(4)]
    training = start(config, steps_of_epochs=[len(batches)], context=ALONE, data_fingerprint="0")
    network = copy.deepcopy(training.network)
    optimizer, published = raguram(network.parameters()), []
    for seen in batches:
        optimizer.zero_grad()
        loss = l1_of_raw_outputs(network, seen)
        loss.backward()
        optimizer.step()
        optimizer.step()  # in the scheduler's place
        published.append(loss.item())

    training.network.train()
    clock = Clock(ALONE.device)
    ours = [train_step(training, seen, step, ALONE, clock)["loss"].item() for step, seen in enumerate(batches)]
    assert ours == pytest.approx(published, rel=2e-3)
    assert (training.optimizer.param_groups[0]["lr"], training.optimizer.param_groups[0]["betas"][0]) == (0.02, 0.95)


@pytest.mark.parametrize("name", RECIPES)
def test_a_faithful_loss_is_what_the_published_program_computes(name: str) -> None:
    """From the raw outputs on, so that a recipe's activations count too; the values are those of the original code."""
    i, j, b = torch.meshgrid(torch.arange(16), torch.arange(16), torch.arange(2), indexing="ij")
    x, y = (
        table.permute(2, 0, 1).unsqueeze(1)
        for table in ((3 * i + 5 * j + b) % 17 / 16, (7 * i + 2 * j + 3 * b) % 13 / 12)
    )
    mask = (y > 0.5).float()
    bce, l1, smooth_l1 = 0.7569483, 0.3536377, 0.0938064
    l1_of_sigmoid = (1 / (1 + (-x).exp()) - y).abs().mean().item()
    truth, depth, expected = {  # of the mask; raw output for the depth; total
        "raguram-resunet": (y, x, 2 * l1),
        "raguram-resunet-lite": (mask, x, bce + l1),
        "divyansh-pair": (y, x, smooth_l1 + l1_of_sigmoid),
        "birender-cnn": (y, x, 2 * smooth_l1**0.5),
        "birender-cnn-v1": (mask, x, 1.7270799),
        "birender-resnet": (mask, x, 1.7270799),
        "ramana-dnn": (y, x, 2 * 1.0631982),
        "monimoyd-unet": (mask, 2 * x - 0.7, 2.3033783),
    }[name]
    config = load_recipe(name, faithful=True).config
    activations = {head: getattr(config.model, head) for head in ("mask_activation", "depth_activation")}
    total, _ = DualLoss(config.loss)(Prediction.of(x, depth, **activations), truth, y)
    assert total.item() == pytest.approx(expected, rel=2e-6)


def test_the_network_of_raguram_s_first_notebook_is_the_mask_half_of_the_resunet() -> None:
    """It has four stages and one output; the recipe of that name trains another one, and says so."""
    with torch.device("meta"):
        body = build_model(load_recipe("raguram-resunet").config.model).body
    parameters = sum(weight.numel() for name, weight in body.named_parameters() if not name.startswith("depth_"))
    assert parameters == 7_897_569
    text = load_recipe("raguram-resunet-lite").text
    assert "7,897,569 parameters" in text
    assert "it is not reproduced" in text


def on_cpu(config: TrialConfig) -> TrialConfig:
    """In full precision, at a width that a test has the time for."""
    return config.model_copy(update={"model": config.model.model_copy(update={"precision": "fp32", "width": 8})})


def l1_of_raw_outputs(network: Network, seen: Batch) -> torch.Tensor:
    network.train()
    heads = network.body(seen.bg.float() / 255, seen.fg_bg.float() / 255)
    return F.l1_loss(heads.mask, seen.mask.float() / 255) + F.l1_loss(heads.depth, seen.depth.float() / 255)


def batch(seed: int) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    images = [torch.randint(256, (4, channels, 64, 64), generator=draw).byte() for channels in (3, 3, 1, 1)]
    return Batch(bg=images[0], fg_bg=images[1], mask=images[2], depth=images[3])
