"""Encodes configurations of a define-by-run space as rows of numbers, one column per parameter.

P is the number of parameters known so far. Rows are (n, P): a number is scaled to [0, 1] over its range, a choice is
its index, and a parameter that does not exist under the conditions of the space is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from trainable.config.settings import Scalar

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Axis:
    """The range of a parameter, or its number of choices."""

    low: float
    """Lower end of the range, on the scale on which it is sampled uniformly."""
    high: float
    log: bool = False
    step: float = 0.0
    """Distance of two values, before any logarithm; 0 for a continuous range."""
    first: float = 0.0
    """The lowest value; steps count from it."""
    last: float = 0.0
    choices: int = 0
    """Their number; 0 for a numeric parameter."""
    order: tuple[float, ...] = ()
    """Position of each choice in [0, 1] if all are numbers, as in (16, 32, 64)."""

    @classmethod
    def of(cls, distribution: BaseDistribution) -> Axis:
        """The axis of an Optuna distribution; a value with steps owns half a step on both sides."""
        if isinstance(distribution, CategoricalDistribution):
            return cls(0.0, 1.0, choices=len(distribution.choices), order=_order(distribution.choices))
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            raise TypeError(f"no axis for {distribution}")
        step = float(distribution.step or 0.0)
        ends = (distribution.low - step / 2, distribution.high + step / 2)
        low, high = np.log(ends) if distribution.log else ends
        return cls(float(low), float(high), distribution.log, step, float(distribution.low), float(distribution.high))

    def union(self, other: Axis) -> Axis:
        """The smallest axis that contains both, for a parameter whose range depends on others."""
        inside = self.low <= other.low and other.high <= self.high
        if inside or self.choices or other.choices:
            return self
        return Axis(
            min(self.low, other.low),
            max(self.high, other.high),
            self.log,
            self.step,
            min(self.first, other.first),
            max(self.last, other.last),
        )

    def unit(self, value: Floats | float) -> Floats:
        """Scale numbers to [0, 1]."""
        scaled = np.log(value) if self.log else np.asarray(value, float)
        return np.asarray((scaled - self.low) / max(self.high - self.low, 1e-12))

    def value(self, unit: Floats | float) -> Floats:
        """The valid numbers nearest to positions in [0, 1]."""
        scaled = self.low + np.asarray(unit) * (self.high - self.low)
        value = np.exp(scaled) if self.log else scaled
        if self.step:
            value = self.first + self.step * np.round((value - self.first) / self.step)
        return np.asarray(np.clip(value, self.first, self.last))

    def sampled(self, uniform: float) -> float:
        """One valid number from a uniform number in [0, 1)."""
        scaled = self.low + uniform * (self.high - self.low)
        return self.nearest(math.exp(scaled) if self.log else scaled)

    def nearest(self, value: float) -> float:
        """The valid number nearest to `value`."""
        if self.step:
            value = self.first + self.step * round((value - self.first) / self.step)
        return min(max(value, self.first), self.last)


class SampledTrial:
    """As much of an `optuna.Trial` as a space draws from, at a hundredth of its cost.

    It takes the values that are wanted where they exist, neighbours into the range that the space gives them, and draws
    the rest at random.
    """

    def __init__(self, rng: np.random.Generator, wanted: Mapping[str, float] | None = None, number: int = 0) -> None:
        self._rng = rng
        self._wanted = wanted or {}
        self.number = number
        self.params: dict[str, Scalar] = {}
        self.distributions: dict[str, BaseDistribution] = {}
        self.constraints: dict[str, float] = {}
        self.user_attrs: dict[str, Mapping[str, float]] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """As in `optuna.Trial`."""
        return self._suggest(name, FloatDistribution(low, high, log=log, step=step))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """As in `optuna.Trial`."""
        return int(self._suggest(name, IntDistribution(low, high, log=log, step=step)))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """As in `optuna.Trial`."""
        if name not in self.params:
            # A wanted choice is an index, since None may be a choice.
            wanted = self._wanted.get(name)
            index = int(self._rng.integers(len(choices))) if wanted is None else int(wanted)
            self.params[name], self.distributions[name] = choices[index], CategoricalDistribution(choices)
        return self.params[name]

    def set_constraint(self, key: str, value: float) -> None:
        """As in `optuna.Trial`."""
        self.constraints[key] = float(value)

    def set_user_attr(self, key: str, value: Mapping[str, float]) -> None:
        """As in `optuna.Trial`."""
        self.user_attrs[key] = value

    def _suggest(self, name: str, distribution: FloatDistribution | IntDistribution) -> float:
        known = self.params.get(name)
        if isinstance(known, int | float):
            return known
        axis, wanted = Axis.of(distribution), self._wanted.get(name)
        value = axis.sampled(self._rng.random()) if wanted is None else axis.nearest(wanted)
        value = round(value) if isinstance(distribution, IntDistribution) else value
        self.params[name], self.distributions[name] = value, distribution
        return value


@dataclass
class SpaceEncoding:
    """The parameters seen so far, and the encoding of configurations by them."""

    names: list[str] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)

    def extend(self, distributions: Mapping[str, BaseDistribution]) -> bool:
        """Add the parameters of a trial; return whether earlier rows have to be encoded again."""
        before = (len(self.names), list(self.axes))
        indices = {name: index for index, name in enumerate(self.names)}
        for name, distribution in distributions.items():
            axis = Axis.of(distribution)
            if name in indices:
                self.axes[indices[name]] = self.axes[indices[name]].union(axis)
            else:
                self.names.append(name)
                self.axes.append(axis)
        return before != (len(self.names), self.axes)

    def row(self, params: Mapping[str, Scalar], distributions: Mapping[str, BaseDistribution]) -> Floats:
        """Encode a trial, (P,)."""
        row = np.full(len(self.names), np.nan)
        for index, (name, axis) in enumerate(zip(self.names, self.axes, strict=True)):
            if name in params:
                internal = distributions[name].to_internal_repr(params[name])
                row[index] = internal if axis.choices else axis.unit(internal)
        return row

    def wanted(self, row: Floats) -> dict[str, float]:
        """Decode a row to the wanted values of a `SampledTrial`: numbers, and indices of choices."""
        pairs = zip(self.names, self.axes, row, strict=True)
        return {
            name: int(index) if axis.choices else float(axis.value(index))
            for name, axis, index in pairs
            if np.isfinite(index)
        }

    def snap(self, rows: Floats) -> Floats:
        """Rows with every number at the nearest valid one, (n, P)."""
        snapped = np.clip(rows, 0, 1)
        for index, axis in enumerate(self.axes):
            if axis.choices:
                snapped[:, index] = rows[:, index]
            elif axis.step:
                snapped[:, index] = axis.unit(axis.value(snapped[:, index]))
        return snapped

    def features(self, rows: Floats) -> Floats:
        """Features for the kernel, (n, F): one column per number, one-hot columns at distance 1 per choice.

        A choice among numbers is a single column in which they are evenly spaced. A missing parameter is 0.5: the
        parameter that it depends on tells such trials apart.
        """
        columns = []
        for index, axis in enumerate(self.axes):
            column = rows[:, index]
            if axis.order:
                known = np.where(np.isnan(column), 0, column).astype(int)
                columns.append(np.where(np.isnan(column), 0.5, np.array(axis.order)[known]))
            elif axis.choices:
                columns += [np.where(column == choice, np.sqrt(0.5), 0.0) for choice in range(axis.choices)]
            else:
                columns.append(np.where(np.isnan(column), 0.5, column))
        return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 1))

    def owners(self) -> NDArray[np.intp]:
        """The index of the parameter of each column of `features`, (F,)."""
        widths = [1 if axis.order else axis.choices or 1 for axis in self.axes]
        owners = [index for index, width in enumerate(widths) for _ in range(width)]
        return np.array(owners or [0])

    def neighbours(self, rng: np.random.Generator, parents: Floats, count: int, width: float) -> Floats:
        """Random neighbours: half of the numbers get a normal step, one choice in ten is replaced.

        Args:
            rng: random generator.
            parents: (n, P), n > 0.
            count: number of neighbours.
            width: standard deviation of a step, in shares of a range.

        Returns:
            (count, P). They may violate the conditions of the space.
        """
        rows = parents[rng.integers(len(parents), size=count)]
        choices = np.array([axis.choices for axis in self.axes])
        moves = rng.random(rows.shape) < np.where(choices > 0, 0.1, 0.5)
        moves[np.arange(count), rng.integers(len(self.axes), size=count)] = True
        steps = np.clip(rows + rng.normal(0, width, rows.shape), 0, 1)
        others = np.where(np.isnan(rows), np.nan, np.floor(rng.random(rows.shape) * choices))
        return self.snap(np.where(moves, np.where(choices > 0, others, steps), rows))


@dataclass
class Candidate:
    """A configuration and its encoding."""

    params: dict[str, Scalar]
    distributions: dict[str, BaseDistribution]
    row: Floats
    violation: float | None = None
    """The largest constraint, on the scale of that constraint; None while unknown."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Objectives that are known before it runs; see `proposer.KNOWN`."""


def constraint_violation(constraints: Iterable[float]) -> float:
    """The largest constraint of a trial, infinite if one is NaN; the trial is feasible if it is at most 0."""
    return max((float(value) if value == value else np.inf for value in constraints), default=-np.inf)


def is_infeasible(known: Candidate) -> bool:
    """Whether a constraint is known to be violated."""
    return known.violation is not None and known.violation > 0


def _order(choices: Sequence[Scalar]) -> tuple[float, ...]:
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    if len(numbers) < max(2, len(choices)):
        return ()
    ranked = sorted(numbers)
    return tuple(ranked.index(number) / (len(ranked) - 1) for number in numbers)
