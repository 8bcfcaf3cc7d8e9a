"""The model families: two pictures in, mask and depth out. One file each; `MODELS` has their builders.

Every family's `forward(bg, fg_bg)` takes (B, 3, H, W) floats in 0..1 and returns a `Prediction` of that size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data.errors import InputError
from trainable.models.cost import multiply_adds, parameter_count
from trainable.models.debug import DebugNet
from trainable.models.prediction import Prediction
from trainable.models.resunet import ResUNet

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from trainable.config import ModelConfig

__all__ = ["MODELS", "Prediction", "build_model", "multiply_adds", "parameter_count"]

MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "resunet": lambda config: ResUNet(config.width),
    "debug": lambda config: DebugNet(config.width),
}


def build_model(config: ModelConfig) -> nn.Module:
    """Build a freshly initialised network; its weights follow torch's random seed.

    Raises:
        InputError: if the family is not a key of `MODELS`.
    """
    if config.family not in MODELS:
        raise InputError(
            f"The value of 'family' is '{config.family}', but must be one of {', '.join(sorted(MODELS))}; "
            "set model.family in the spec."
        )
    return MODELS[config.family](config)
