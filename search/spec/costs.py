"""Costs of a configuration by name, cached: parameters and multiply-adds, counted by `trainable/models/cost.py`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

from data.fitting.sizes import Sides, sides_of
from trainable.config import ModelConfig, build
from trainable.config.settings import Settings
from trainable.plugins.active import active_records

if TYPE_CHECKING:
    from trainable.models import Network


COSTS = {"parameters": "parameters", "macs": "multiply-adds"}
"""The costs by name, as named in messages."""


def cost(name: str, settings: Settings) -> int:
    """The cost `name`, a key of `COSTS`, of the network of a trial.

    Args:
        name: of the cost.
        settings: 'model.family', 'model.width', 'data.image_size' and, if it is true, 'model.shared_decoder'; others
            are not read.
    """
    shared = settings.get("model.shared_decoder", False)
    model = {"family": settings["model.family"], "width": settings["model.width"], "shared_decoder": shared}
    config, image_size = build(ModelConfig, model, source="the spec"), settings["data.image_size"]
    # The versions of the plugins are in the key of the caches, since a user may change a family and search again.
    versions = tuple(record.sha256 for record in active_records())
    network = (config.family, config.width, config.shared_decoder, versions)
    return _parameters(*network) if name == "parameters" else _macs(*network, sides_of(cast("int", image_size)))


@functools.lru_cache(maxsize=4096)
def _parameters(family: str, width: int, shared_decoder: bool, _versions: tuple[str, ...]) -> int:
    from trainable.models import parameter_count

    return parameter_count(_network(family, width, shared_decoder))


@functools.lru_cache(maxsize=4096)
def _macs(family: str, width: int, shared_decoder: bool, _versions: tuple[str, ...], image_size: Sides) -> int:
    from trainable.models import multiply_adds

    return multiply_adds(_network(family, width, shared_decoder), image_size)


def _network(family: str, width: int, shared_decoder: bool) -> Network:
    from trainable.models import build_on_meta

    return build_on_meta(ModelConfig(family=family, width=width, shared_decoder=shared_decoder))
