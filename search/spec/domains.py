"""Domains of the search space: ranges, choices, and one domain for each value of another leaf."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, cast

from data.errors import did_you_mean
from trainable.config.section import ConfigError
from trainable.config.settings import Scalar, Settings, Value

if TYPE_CHECKING:
    import optuna

RANGE_KEYS = ("low", "high", "log", "or_zero")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; integers if both bounds are."""

    low: float
    high: float
    log: bool = False
    or_zero: bool = False
    """Whether the value is 0 with a probability of one half, for a term that can be left out."""

    def suggest(self, trial: optuna.Trial, key: str) -> float:
        """Suggest a number, log-uniform with `log`; with `or_zero`, a separate parameter decides on 0."""
        if self.or_zero and not trial.suggest_categorical(_switch(key), [False, True]):
            return type(self.low)(0)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def has(self, value: Value) -> bool:
        """Whether a value is in the domain."""
        return isinstance(value, int | float) and (self.low <= value <= self.high or (self.or_zero and value == 0))

    def nearest(self, value: float) -> float:
        """`value` clipped to the range; 0 is kept with `or_zero`."""
        return value if self.has(value) else min(max(value, self.low), self.high)

    def parameters(self, key: str, value: Value) -> dict[str, Value]:
        """Optuna's parameters with which `suggest` returns `value`."""
        if not self.or_zero:
            return {key: value}
        return {_switch(key): bool(value)} | ({key: value} if value else {})

    def as_plain(self) -> dict[str, Value]:
        """As {low, high, log}, and or_zero where it is true."""
        or_zero: dict[str, Value] = {"or_zero": True} if self.or_zero else {}
        return {"low": self.low, "high": self.high, "log": self.log, **or_zero}

    def as_floats(self) -> Range:
        """With float bounds."""
        return replace(self, low=float(self.low), high=float(self.high))


@dataclass(frozen=True)
class Choices:
    """Unordered scalars, or a single value of any kind."""

    values: tuple[Value, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Value:
        """Suggest a value; a single value is returned without a parameter."""
        if len(self.values) == 1:
            return self.values[0]
        return trial.suggest_categorical(key, cast("tuple[Scalar, ...]", self.values))

    def has(self, value: Value) -> bool:
        """Whether a value is in the domain."""
        return value in self.values

    def parameters(self, key: str, value: Value) -> dict[str, Value]:
        """Optuna's parameters with which `suggest` returns `value`."""
        return {key: value} if len(self.values) > 1 else {}

    def as_plain(self) -> Value:
        """As {choices}; a single value that is not a scalar is returned unchanged."""
        return {"choices": list(self.values)} if isinstance(self.values[0], Scalar) else self.values[0]

    def as_floats(self) -> Choices:
        """With integers converted to floats."""
        return Choices(tuple(float(value) if type(value) is int else value for value in self.values))


@dataclass(frozen=True)
class Per:
    """One domain for each value of another leaf."""

    key: str
    """Dotted key of the other leaf."""
    domains: Mapping[str, Range | Choices]

    def for_value(self, value: Value) -> Range | Choices | None:
        """The domain for a value of the other leaf; None if there is none."""
        return self.domains.get(str(value))

    def as_plain(self) -> dict[str, Value]:
        """As {per, VALUE: domain}."""
        return {"per": self.key} | {value: domain.as_plain() for value, domain in self.domains.items()}

    def as_floats(self) -> Per:
        """With integers converted to floats."""
        return Per(self.key, {value: domain.as_floats() for value, domain in self.domains.items()})


Domain = Range | Choices | Per
Leaf: TypeAlias = "Domain | Value"
"""What a space holds for a key: a domain, or a value that all trials have."""
Leaves: TypeAlias = Mapping[str, Leaf]
"""Leaves by dotted key."""


def parse_leaf(key: str, plain: Value, *, source: str) -> Leaf:
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
    if {"low", "high"} <= set(plain) <= set(RANGE_KEYS):
        return _range(key, plain, source)
    raise _malformed(key, plain, source)


def resolve(key: str, leaf: Leaf, settings: Settings) -> tuple[str, Range | Choices | Value]:
    """The name of a leaf's parameter in Optuna, and its domain or value; both of a `Per` depend on `settings`.

    The domain is None if a `Per` has none for the value of the other leaf.
    """
    if not isinstance(leaf, Per):
        return key, leaf
    case = settings[leaf.key]
    return f"{key}@{case}", leaf.for_value(case)


def as_plain(leaf: Leaf) -> Value:
    """A leaf as plain values of a spec."""
    return leaf.as_plain() if isinstance(leaf, Domain) else leaf


def representatives(leaf: Leaf) -> list[Value]:
    """Values that represent a leaf: its bounds, or every choice. If they are valid, all its values are."""
    match leaf:
        case Range(low=low, high=high, or_zero=or_zero):
            return [*([type(low)(0)] if or_zero else []), low, high]
        case Choices(values=values):
            return list(values)
        case Per(domains=domains):
            return [value for case in domains.values() for value in representatives(case)]
    return [leaf]


def as_floats(leaf: Leaf) -> Leaf:
    """A leaf with integers converted to floats."""
    if isinstance(leaf, Domain):
        return leaf.as_floats()
    return float(leaf) if type(leaf) is int else leaf


def _malformed(key: str, plain: Mapping[str, Value], source: str) -> ConfigError:
    """The error for a mapping that is no domain: its first wrong key, if it was meant to be a range."""
    wrong = [name for name in plain if name not in RANGE_KEYS]
    if not {"low", "high"} & set(plain):
        said = f"The value of '{key}' is {dict(plain)!r}, but must be a value, {{low, high, log}} or {{choices}}"
        return ConfigError.about(key, f"{said}; correct it in {source}.")
    if wrong:
        known = ", ".join(RANGE_KEYS)
        sentence = f"The key '{wrong[0]}' of the range '{key}' is not known; use one of {known} in {source}"
        meant = did_you_mean(wrong[0], [name for name in RANGE_KEYS if name not in plain])
        return ConfigError.about(f"{key}.{wrong[0]}", f"{sentence}{meant}.", is_key=True)
    missing = "high" if "low" in plain else "low"
    return ConfigError.about(key, f"The range of '{key}' has no '{missing}'; add it in {source}.")


def _case(key: str, plain: Value, source: str) -> Range | Choices:
    parsed = parse_leaf(key, plain, source=source)
    if isinstance(parsed, Per):
        sentence = f"The value of '{key}' is a 'per' within a 'per'; write one level in {source}."
        raise ConfigError.about(f"{key}.per", sentence, is_key=True)
    return parsed if isinstance(parsed, Range | Choices) else Choices((parsed,))


def _choices(key: str, values: Value, source: str) -> Choices:
    said = f"The choices of '{key}' are {values!r}, but must"
    scalars = [value for value in values if isinstance(value, Scalar)] if isinstance(values, list) else []
    if not isinstance(values, list) or not values:
        wrong = f"{said} be a list of at least one value; correct them in {source}."
    elif len(scalars) < len(values):
        wrong = f"{said} be plain values; correct them in {source}."
    elif len(set(scalars)) < len(scalars):
        wrong = f"{said} differ; remove the duplicates in {source}."
    else:
        return Choices(tuple(scalars))
    raise ConfigError.about(f"{key}.choices", wrong)


def _range(key: str, plain: Mapping[str, Value], source: str) -> Range:
    low, high = (_bound(f"{key}.{name}", plain[name], source) for name in ("low", "high"))
    log, or_zero = (_flag(f"{key}.{name}", plain.get(name, False), source) for name in ("log", "or_zero"))
    said = f"The range of '{key}' has"
    if not low <= high:
        wrong = f"{said} low {low} above high {high}, and is empty; swap them in {source}."
    elif log and low <= 0:
        wrong = f"{said} log: true and low {low}, but a logarithm requires low above 0; correct it in {source}."
    elif or_zero and low < 0:
        wrong = f"{said} or_zero: true and low {low}, but it already contains 0; correct it in {source}."
    else:
        return Range(low, high, log, or_zero)
    raise ConfigError.about(f"{key}.low", wrong)


def _bound(key: str, plain: Value, source: str) -> float:
    if isinstance(plain, bool) or not isinstance(plain, int | float) or not math.isfinite(plain):
        sentence = f"The value of '{key}' is {plain!r}, but must be a finite number; correct it in {source}."
        raise ConfigError.about(key, sentence)
    return plain


def _flag(key: str, plain: Value, source: str) -> bool:
    if not isinstance(plain, bool):
        sentence = f"The value of '{key}' is {plain!r}, but must be true or false; correct it in {source}."
        raise ConfigError.about(key, sentence)
    return plain


def _switch(key: str) -> str:
    """Name of the parameter that decides whether a leaf with `or_zero` is above 0."""
    return f"{key}?"


def in_words(parameter: str) -> str:
    """What a parameter is, for a sentence: 'whether loss.mask.l1 is above 0' for the switch of that leaf."""
    key = parameter.removesuffix("?")
    return f"whether {key} is above 0" if parameter == _switch(key) else parameter
