"""The model families, which predict mask and depth from two images, and `MODELS`, the dict of their builders.

The `forward(bg, fg_bg)` of a family takes (B, 3, H, W) floats and returns `Heads` of that size. `build_model` adds the
normalisation of the inputs and the activations of the heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from trainable.families import check_model
from trainable.models.cost import multiply_adds, parameter_count
from trainable.models.debug import DebugNet
from trainable.models.dmnet import dmnet_cnn, dmnet_cnn_v1, dmnet_resnet
from trainable.models.network import Network
from trainable.models.pair import Pair
from trainable.models.prediction import Prediction
from trainable.models.resnet_dual import ResNetDual
from trainable.models.resunet import ResUNet
from trainable.models.sepunet import SepUNet
from trainable.plugins.active import own_families

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from trainable.config import ModelConfig
    from trainable.plugins.parts import Family

__all__ = [
    "MODELS",
    "Network",
    "Prediction",
    "build_model",
    "build_on_meta",
    "multiply_adds",
    "parameter_count",
]

MODELS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "resunet": lambda config: ResUNet(config.width),
    "resunet-lite": lambda config: ResUNet(config.width, stages=2),
    "pair": lambda config: Pair(config.width, config.dropout),
    "dmnet-cnn": lambda config: dmnet_cnn(config.width, config.dropout),
    "dmnet-cnn-v1": lambda config: dmnet_cnn_v1(config.width, config.dropout),
    "dmnet-resnet": lambda config: dmnet_resnet(config.width, config.dropout),
    "resnet-dual": lambda config: ResNetDual(config.width, config.dropout),
    "sepunet": lambda config: SepUNet(config.width, shared_decoder=config.shared_decoder),
    "debug": lambda config: DebugNet(config.width),
}


def build_model(config: ModelConfig) -> Network:
    """Build a network, randomly initialised by torch's random generator.

    Raises:
        ConfigError: as `check_model` does.
    """
    check_model(config)
    own = own_families().get(config.family)
    return Network(_build_own(own, config) if own else MODELS[config.family](config), config)


def build_on_meta(config: ModelConfig) -> Network:
    """Build a network on the meta device, without memory for its weights, to count its parameters and multiply-adds.

    Raises:
        ConfigError: as `check_model` does.
    """
    with torch.device("meta"):
        return build_model(config)


def _build_own(family: Family, config: ModelConfig) -> nn.Module:
    return family.build(config.width, config.dropout) if family.has_dropout else family.build(config.width)
