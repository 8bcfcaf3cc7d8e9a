"""The optimizers. How their learning rate changes over the run is in `trainable/policies.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from trainable.config import OptimizerConfig

SECOND_MOMENT_BETA = 0.999
"""AdamW's second beta (Loshchilov & Hutter 2019)."""


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer of all of the model's parameters, at its peak learning rate."""
    return OPTIMIZERS[config.name](model, config)


def _sgd(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        model.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def _adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(),
        lr=config.lr,
        betas=(config.momentum, SECOND_MOMENT_BETA),
        weight_decay=config.weight_decay,
    )


OPTIMIZERS: dict[str, Callable[[nn.Module, OptimizerConfig], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adamw": _adamw,
}
