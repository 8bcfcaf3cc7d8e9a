"""Domains of the search space: ranges, choices, and one domain for each value of another leaf."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trainable.config.section import ConfigError

if TYPE_CHECKING:
    import optuna

Value = int | float | str | bool | None


class Domain(ABC):
    """A set of values to search."""

    @abstractmethod
    def as_plain(self) -> dict[str, Any]:
        """As plain values of a spec."""


@dataclass(frozen=True)
class Range(Domain):
    """Numbers from `low` to `high`, both included; integers if both bounds are."""

    low: float
    high: float
    log: bool = False
    or_zero: bool = False
    """Whether the value is 0 with a probability of one half, for a term that can be left out."""

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Suggest a number, log-uniform with `log`; with `or_zero`, a separate parameter decides on 0."""
        if self.or_zero and not trial.suggest_categorical(_switch(key), [False, True]):
            return type(self.low)(0)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def has(self, value: Any) -> bool:
        """Whether a value is in the domain."""
        return isinstance(value, int | float) and (self.low <= value <= self.high or (self.or_zero and value == 0))

    def nearest(self, value: float) -> float:
        """`value` clipped to the range; 0 is kept with `or_zero`."""
        return value if self.has(value) else min(max(value, self.low), self.high)

    def parameters(self, key: str, value: Any) -> dict[str, Any]:
        """Optuna's parameters with which `suggest` returns `value`."""
        if not self.or_zero:
            return {key: value}
        return {_switch(key): bool(value)} | ({key: value} if value else {})

    def as_plain(self) -> dict[str, Any]:
        """As {low, high, log}, and or_zero where it is true."""
        return {"low": self.low, "high": self.high, "log": self.log} | ({"or_zero": True} if self.or_zero else {})


@dataclass(frozen=True)
class Choices(Domain):
    """Unordered values."""

    values: tuple[Value, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Suggest a value; a single value is returned without a parameter."""
        return trial.suggest_categorical(key, self.values) if len(self.values) > 1 else self.values[0]

    def has(self, value: Any) -> bool:
        """Whether a value is in the domain."""
        return value in self.values

    def parameters(self, key: str, value: Any) -> dict[str, Any]:
        """Optuna's parameters with which `suggest` returns `value`."""
        return {key: value} if len(self.values) > 1 else {}

    def as_plain(self) -> dict[str, Any]:
        """As {choices}."""
        return {"choices": list(self.values)}


@dataclass(frozen=True)
class Per(Domain):
    """One domain for each value of another leaf."""

    key: str
    """Dotted key of the other leaf."""
    domains: Mapping[str, Range | Choices]

    def for_value(self, value: Value) -> Range | Choices:
        """The domain for a value of the other leaf."""
        return self.domains[str(value)]

    def as_plain(self) -> dict[str, Any]:
        """As {per, VALUE: domain}."""
        return {"per": self.key} | {value: domain.as_plain() for value, domain in self.domains.items()}


def parse_leaf(key: str, plain: Any, *, source: str) -> Any:
    """Convert a mapping to a `Domain`; other values are returned unchanged.

    Args:
        key: dotted name of the leaf.
        plain: the value from YAML.
        source: its origin, for error messages.

    Raises:
        ConfigError: if a mapping is not a domain, or its bounds or choices are invalid.
    """
    if not isinstance(plain, Mapping):
        return plain
    if "per" in plain:
        cases = {str(value): case for value, case in plain.items() if value != "per"}
        if not cases:
            raise ConfigError.about(
                key,
                f"The value of '{key}' is {dict(plain)!r}, but must have a domain for each value of {plain['per']}; "
                f"add them in {source}.",
            )
        return Per(
            str(plain["per"]),
            {value: _case(f"{key}.{value}", case, source) for value, case in cases.items()},
        )
    if set(plain) == {"choices"}:
        return _choices(key, plain["choices"], source)
    if {"low", "high"} <= set(plain) <= {"low", "high", "log", "or_zero"}:
        return _range(key, plain, source)
    raise ConfigError.about(
        key,
        f"The value of '{key}' is {dict(plain)!r}, but must be a value, {{low, high, log}} or {{choices}}; "
        f"correct it in {source}.",
    )


def representatives(domain: Domain) -> list[Value]:
    """Values that represent a domain: the bounds, or every choice. If they are valid, the whole domain is."""
    match domain:
        case Range(low=low, high=high, or_zero=or_zero):
            return [*([type(low)(0)] if or_zero else []), low, high]
        case Choices(values=values):
            return list(values)
        case Per(domains=domains):
            return [value for case in domains.values() for value in representatives(case)]
    raise TypeError(f"unknown domain: {domain!r}")


def as_floats(leaf: Any) -> Any:
    """A value or `Domain` with integers converted to floats."""
    match leaf:
        case Range(low=low, high=high):
            return replace(leaf, low=float(low), high=float(high))
        case Choices(values=values):
            return Choices(tuple(as_floats(value) for value in values))
        case Per(key=key, domains=domains):
            return Per(key, {value: as_floats(domain) for value, domain in domains.items()})
    return float(leaf) if isinstance(leaf, int) and not isinstance(leaf, bool) else leaf


def _case(key: str, plain: Any, source: str) -> Range | Choices:
    parsed = parse_leaf(key, plain, source=source)
    if isinstance(parsed, Per):
        sentence = f"The value of '{key}' is a 'per' within a 'per'; write one level in {source}."
        raise ConfigError.about(f"{key}.per", sentence, is_key=True)
    return parsed if isinstance(parsed, Range | Choices) else Choices((parsed,))


def _choices(key: str, values: Any, source: str) -> Choices:
    said = f"The choices of '{key}' are {values!r}, but must"
    if not isinstance(values, list) or not values:
        wrong = f"{said} be a list of at least one value; correct them in {source}."
    elif any(isinstance(value, list | dict) for value in values):
        wrong = f"{said} be plain values; correct them in {source}."
    elif len(set(values)) < len(values):
        wrong = f"{said} differ; remove the duplicates in {source}."
    else:
        return Choices(tuple(values))
    raise ConfigError.about(f"{key}.choices", wrong)


def _range(key: str, plain: Mapping[str, Any], source: str) -> Range:
    low, high = plain["low"], plain["high"]
    for name, bound in (("low", low), ("high", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise ConfigError.about(
                f"{key}.{name}",
                f"The value of '{key}.{name}' is {bound!r}, but must be a finite number; correct it in {source}.",
            )
    flags = {name: plain.get(name, False) for name in ("log", "or_zero")}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ConfigError.about(
                f"{key}.{name}",
                f"The value of '{key}.{name}' is {flag!r}, but must be true or false; correct it in {source}.",
            )
    said = f"The range of '{key}' has"
    if not low <= high:
        wrong = f"{said} low {low} above high {high}, and is empty; swap them in {source}."
    elif flags["log"] and low <= 0:
        wrong = f"{said} log: true and low {low}, but a logarithm requires low above 0; correct it in {source}."
    elif flags["or_zero"] and low < 0:
        wrong = f"{said} or_zero: true and low {low}, but it already contains 0; correct it in {source}."
    else:
        return Range(low, high, flags["log"], flags["or_zero"])
    raise ConfigError.about(f"{key}.low", wrong)


def _switch(key: str) -> str:
    """Name of the parameter that decides whether a leaf with `or_zero` is above 0."""
    return f"{key}?"
