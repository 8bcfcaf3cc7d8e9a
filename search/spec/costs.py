"""Costs of a network that are known before it is trained: parameters and multiply-adds."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from search.spec.tree import at
from trainable.config import ModelConfig, build

if TYPE_CHECKING:
    from trainable.models import Network


COSTS = {"parameters": "parameters", "macs": "multiply-adds"}
"""The costs by name, as named in messages."""


def cost(name: str, values: Mapping[str, Any]) -> int:
    """The cost `name`, a key of `COSTS`, of the network of a `TrialConfig` with the nested `values`."""
    model = {key: value for key, value in values["model"].items() if key in {"family", "width", "shared_decoder"}}
    config = build(ModelConfig, model, source="the spec")
    if name == "parameters":
        return _parameters(config.family, config.width, config.shared_decoder)
    return _macs(config.family, config.width, config.shared_decoder, at(values, "data.image_size"))


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
