"""The flat form of a define-by-run space, for methods whose spaces have no conditions.

All parameters are always present, also those that have no effect on a configuration. A parameter whose domain depends
on another one, such as the learning rate on the optimizer, is the position in that domain, from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from search.strategy.encoding import Axis, SampledTrial
from tests.benchmarks.peers.messages import Kind, Parameter, Scalar, Values

Config = Mapping[str, Any]
SAMPLES = 300
"""Configurations in which all parameters are found; the rarest ones are in an eighth of them."""


class FlatSpace:
    """The parameters of a space, and its configurations by their values.

    Args:
        space: define-by-run; the configuration is what it returns, or else its parameters. The part of a name before
            '@' names the same parameter under different conditions.
    """

    def __init__(self, space: Callable[[Any], Config | None]) -> None:
        self._space = space
        self._distributions: dict[str, BaseDistribution] = {}
        rng = np.random.default_rng(0)
        for _ in range(SAMPLES):
            trial = SampledTrial(rng)
            space(trial)
            self._distributions |= trial.distributions
        by_key: dict[str, list[BaseDistribution]] = {}
        for name, distribution in self._distributions.items():
            by_key.setdefault(key_of(name), []).append(distribution)
        self.parameters = tuple(_parameter(key, distributions) for key, distributions in by_key.items())
        self._positions = {key for key, distributions in by_key.items() if not _are_equal(distributions)}

    def configuration(self, values: Values) -> Config:
        """The configuration with these values of all parameters."""
        wanted = {
            name: _at(distribution, float(values[key_of(name)]))
            if key_of(name) in self._positions
            else _index_or_number(distribution, values[key_of(name)])
            for name, distribution in self._distributions.items()
        }
        trial = SampledTrial(np.random.default_rng(0), wanted)
        config = self._space(trial)
        return trial.params if config is None else config


def key_of(name: str) -> str:
    """The name of a parameter without the condition under which it has its domain."""
    return name.partition("@")[0]


def _are_equal(distributions: Sequence[BaseDistribution]) -> bool:
    return all(distribution == distributions[0] for distribution in distributions)


def _parameter(name: str, distributions: Sequence[BaseDistribution]) -> Parameter:
    """A parameter with all domains that it has."""
    (first, *_) = distributions
    if not _are_equal(distributions):
        return Parameter(name=name, kind=Kind.FLOAT, low=0.0, high=1.0)
    if isinstance(first, CategoricalDistribution):
        kind = Kind.ORDERED if _are_ascending(first.choices) else Kind.CHOICE
        return Parameter(name=name, kind=kind, choices=tuple(first.choices))
    assert isinstance(first, FloatDistribution | IntDistribution)
    kind = Kind.INT if isinstance(first, IntDistribution) else Kind.FLOAT
    return Parameter(name=name, kind=kind, low=first.low, high=first.high, log=first.log)


def _are_ascending(choices: Sequence[object]) -> bool:
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    return len(numbers) == len(choices) and numbers == sorted(numbers)


def _at(distribution: BaseDistribution, position: float) -> float:
    """The wanted value of a `SampledTrial` at a position from 0 to 1: an index of a choice, or a number."""
    if isinstance(distribution, CategoricalDistribution):
        return min(int(position * len(distribution.choices)), len(distribution.choices) - 1)
    return float(Axis.of(distribution).value(position))


def _index_or_number(distribution: BaseDistribution, value: Scalar) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value)
    return float(value)
