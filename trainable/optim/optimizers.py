"""The optimizers. Their learning-rate policies are in `trainable/optim/schedules.py`.

All use torch's fused implementation. On one thread of an AMD EPYC, a step of AdamW took 16 ms instead of 26 ms for the
ResUNet of width 32, and 1.7 ms instead of 6.6 ms for the small U-Net of width 32; SGD gains less. On a GPU it was not
measured.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from trainable.config import OptimizerConfig

    Groups = list[dict[str, object]]

SECOND_MOMENT_BETA = 0.999
"""Second beta of Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""


def build_optimizer(
    parts: Sequence[Sequence[nn.Parameter]], config: OptimizerConfig, *, undecayed: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Build an optimizer at its peak learning rate.

    Args:
        parts: the parameters of each part with its own policy; each becomes a parameter group, in this order.
        config: the optimizer and its settings.
        undecayed: parameters without weight decay, such as learned loss weights; the last group, if there are any.
    """
    groups: Groups = [{"params": list(part)} for part in parts]
    if undecayed:
        groups.append({"params": list(undecayed), "weight_decay": 0.0})
    return OPTIMIZERS[config.name](groups, config)


def _sgd(groups: Groups, config: OptimizerConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups,
        lr=config.lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _adam(
    kind: type[torch.optim.Adam | torch.optim.AdamW], groups: Groups, config: OptimizerConfig
) -> torch.optim.Optimizer:
    betas = (config.momentum, SECOND_MOMENT_BETA)
    return kind(groups, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)


OPTIMIZERS: dict[str, Callable[[Groups, OptimizerConfig], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": partial(_adam, torch.optim.Adam),
    "adamw": partial(_adam, torch.optim.AdamW),
}
