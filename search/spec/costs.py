"""Costs of a network that are known before it is trained: parameters and multiply-adds."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from trainable.config import ModelConfig, TrialConfig, build
from trainable.config.settings import Settings, nest

if TYPE_CHECKING:
    from trainable.models import Network


COSTS = {"parameters": "parameters", "macs": "multiply-adds"}
"""The costs by name, as named in messages."""
NETWORK_KEYS = ("model.family", "model.width", "data.image_size")
"""The settings that decide on the costs, with 'model.shared_decoder', which is false where it is missing."""


def cost(name: str, settings: Settings) -> int:
    """The cost `name`, a key of `COSTS`, of a network; of its settings, only the `NETWORK_KEYS` are read."""
    shared = {"model.shared_decoder": settings.get("model.shared_decoder", False)}
    values = nest({key: settings[key] for key in NETWORK_KEYS} | shared)
    config = build(TrialConfig, values, source="the spec")
    network = (config.model.family, config.model.width, config.model.shared_decoder)
    return _parameters(*network) if name == "parameters" else _macs(*network, config.data.image_size)


@functools.lru_cache(maxsize=4096)
def _parameters(family: str, width: int, shared_decoder: bool) -> int:
    from trainable.models import parameter_count

    return parameter_count(_network(family, width, shared_decoder))


@functools.lru_cache(maxsize=4096)
def _macs(family: str, width: int, shared_decoder: bool, image_size: int) -> int:
    from trainable.models import multiply_adds

    return multiply_adds(_network(family, width, shared_decoder), image_size)


def _network(family: str, width: int, shared_decoder: bool) -> Network:
    from trainable.models import build_on_meta

    return build_on_meta(ModelConfig(family=family, width=width, shared_decoder=shared_decoder))
