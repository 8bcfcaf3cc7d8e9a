"""What a leaf of the search space may be instead of a value, and how each asks Optuna for one."""

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
    """A set of values that a search draws from."""

    @abstractmethod
    def as_plain(self) -> dict[str, Any]:
        """As a user writes it in a spec."""


@dataclass(frozen=True)
class Range(Domain):
    """Numbers from `low` to `high`, both included; whole ones if both bounds are."""

    low: float
    high: float
    log: bool = False
    or_zero: bool = False
    """Whether 0 is as likely as all numbers of the range together: what the leaf weighs is then left out."""

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """A number; uniform in its logarithm with `log`. Where it may be 0, a parameter of its own decides that."""
        if self.or_zero and not trial.suggest_categorical(_switch(key), [False, True]):
            return type(self.low)(0)
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def has(self, value: Any) -> bool:
        """Whether it can be drawn."""
        return isinstance(value, int | float) and (self.low <= value <= self.high or (self.or_zero and value == 0))

    def nearest(self, value: float) -> float:
        """The number of the range that is nearest to `value`; 0 alone stays 0 where it may."""
        return value if self.has(value) else min(max(value, self.low), self.high)

    def parameters(self, key: str, value: Any) -> dict[str, Any]:
        """What `suggest` asks Optuna for when it comes to `value`."""
        if not self.or_zero:
            return {key: value}
        return {_switch(key): bool(value)} | ({key: value} if value else {})

    def as_plain(self) -> dict[str, Any]:
        """As {low, high, log}, and or_zero where it is true."""
        return {"low": self.low, "high": self.high, "log": self.log} | ({"or_zero": True} if self.or_zero else {})


@dataclass(frozen=True)
class Choices(Domain):
    """One of some values, without an order."""

    values: tuple[Value, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """One of the values; where there is but one, Optuna is not asked."""
        return trial.suggest_categorical(key, self.values) if len(self.values) > 1 else self.values[0]

    def has(self, value: Any) -> bool:
        """Whether it can be drawn."""
        return value in self.values

    def parameters(self, key: str, value: Any) -> dict[str, Any]:
        """What `suggest` asks Optuna for when it comes to `value`."""
        return {key: value} if len(self.values) > 1 else {}

    def as_plain(self) -> dict[str, Any]:
        """As {choices}."""
        return {"choices": list(self.values)}


@dataclass(frozen=True)
class Per(Domain):
    """A domain of its own for each value of another leaf."""

    key: str
    """The other leaf."""
    domains: Mapping[str, Range | Choices]

    def for_value(self, value: Value) -> Range | Choices:
        """The domain that holds where the other leaf is `value`."""
        return self.domains[str(value)]

    def as_plain(self) -> dict[str, Any]:
        """As {per, VALUE: domain}."""
        return {"per": self.key} | {value: domain.as_plain() for value, domain in self.domains.items()}


def parse_leaf(key: str, given: Any, *, source: str) -> Any:
    """`given` as a `Domain` if it is a mapping, else as it is.

    Args:
        key: dotted name of the leaf.
        given: what YAML held.
        source: where it came from, for the errors.

    Raises:
        ConfigError: if a mapping is no domain, or its bounds or choices make no sense.
    """
    if not isinstance(given, Mapping):
        return given
    if "per" in given:
        cases = {str(value): case for value, case in given.items() if value != "per"}
        if not cases:
            raise ConfigError.about(
                key,
                f"The value of '{key}' is {dict(given)!r}, but must have a domain for each value of {given['per']}; "
                f"add them in {source}.",
            )
        return Per(
            str(given["per"]),
            {value: _case(f"{key}.{value}", case, source) for value, case in cases.items()},
        )
    if set(given) == {"choices"}:
        return _choices(key, given["choices"], source)
    if {"low", "high"} <= set(given) <= {"low", "high", "log", "or_zero"}:
        return _range(key, given, source)
    raise ConfigError.about(
        key,
        f"The value of '{key}' is {dict(given)!r}, but must be a value, {{low, high, log}} or {{choices}}; "
        f"correct it in {source}.",
    )


def representatives(domain: Domain) -> list[Value]:
    """Values that are valid if the whole domain is: the bounds, or every choice."""
    match domain:
        case Range(low=low, high=high, or_zero=or_zero):
            return [*([type(low)(0)] if or_zero else []), low, high]
        case Choices(values=values):
            return list(values)
        case Per(domains=domains):
            return [value for case in domains.values() for value in representatives(case)]
    raise TypeError(f"no such domain: {domain!r}")


def as_floats(leaf: Any) -> Any:
    """A value or `Domain` with its whole numbers as floats, for a leaf that holds a float."""
    match leaf:
        case Range(low=low, high=high):
            return replace(leaf, low=float(low), high=float(high))
        case Choices(values=values):
            return Choices(tuple(as_floats(value) for value in values))
        case Per(key=key, domains=domains):
            return Per(key, {value: as_floats(domain) for value, domain in domains.items()})
    return float(leaf) if isinstance(leaf, int) and not isinstance(leaf, bool) else leaf


def _case(key: str, given: Any, source: str) -> Range | Choices:
    parsed = parse_leaf(key, given, source=source)
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
        wrong = f"{said} differ; remove the doubles in {source}."
    else:
        return Choices(tuple(values))
    raise ConfigError.about(f"{key}.choices", wrong)


def _range(key: str, given: Mapping[str, Any], source: str) -> Range:
    low, high = given["low"], given["high"]
    for name, bound in (("low", low), ("high", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise ConfigError.about(
                f"{key}.{name}",
                f"The value of '{key}.{name}' is {bound!r}, but must be a finite number; correct it in {source}.",
            )
    flags = {name: given.get(name, False) for name in ("log", "or_zero")}
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
        wrong = f"{said} log: true and low {low}, but a logarithm needs low above 0; correct it in {source}."
    elif flags["or_zero"] and low < 0:
        wrong = f"{said} or_zero: true and low {low}, but 0 lies in it already; correct it in {source}."
    else:
        return Range(low, high, flags["log"], flags["or_zero"])
    raise ConfigError.about(f"{key}.low", wrong)


def _switch(key: str) -> str:
    """Name of the parameter that decides whether a leaf is above 0."""
    return f"{key}?"
