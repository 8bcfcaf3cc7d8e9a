"""What a leaf of the search space may be instead of a value, and how each asks Optuna for one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.errors import InputError

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

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """A number; uniform in its logarithm with `log`."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(key, self.low, self.high, log=self.log)
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def as_plain(self) -> dict[str, Any]:
        """As {low, high, log}."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choices(Domain):
    """One of some values, without an order."""

    values: tuple[Value, ...]

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """One of the values."""
        return trial.suggest_categorical(key, self.values)

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
        InputError: if a mapping is no domain, or its bounds or choices make no sense.
    """
    if not isinstance(given, Mapping):
        return given
    if "per" in given:
        cases = {str(value): case for value, case in given.items() if value != "per"}
        if not cases:
            raise InputError(
                f"The value of '{key}' is {dict(given)!r}, but must have a domain for each value of {given['per']}; "
                f"add them in {source}."
            )
        return Per(
            str(given["per"]),
            {value: _case(f"{key}.{value}", case, source) for value, case in cases.items()},
        )
    if set(given) == {"choices"}:
        return _choices(key, given["choices"], source)
    if {"low", "high"} <= set(given) <= {"low", "high", "log"}:
        return _range(key, given, source)
    raise InputError(
        f"The value of '{key}' is {dict(given)!r}, but must be a value, {{low, high, log}} or {{choices}}; "
        f"correct it in {source}."
    )


def representatives(domain: Domain) -> list[Value]:
    """Values that are valid if the whole domain is: the bounds, or every choice."""
    match domain:
        case Range(low=low, high=high):
            return [low, high]
        case Choices(values=values):
            return list(values)
        case Per(domains=domains):
            return [value for case in domains.values() for value in representatives(case)]
    raise TypeError(f"no such domain: {domain!r}")


def as_floats(leaf: Any) -> Any:
    """A value or `Domain` with its whole numbers as floats, for a leaf that holds a float."""
    match leaf:
        case Range(low=low, high=high, log=log):
            return Range(float(low), float(high), log)
        case Choices(values=values):
            return Choices(tuple(as_floats(value) for value in values))
        case Per(key=key, domains=domains):
            return Per(key, {value: as_floats(domain) for value, domain in domains.items()})
    return float(leaf) if isinstance(leaf, int) and not isinstance(leaf, bool) else leaf


def _case(key: str, given: Any, source: str) -> Range | Choices:
    parsed = parse_leaf(key, given, source=source)
    if isinstance(parsed, Per):
        raise InputError(f"The value of '{key}' is a 'per' within a 'per'; write one level in {source}.")
    return parsed if isinstance(parsed, Range | Choices) else Choices((parsed,))


def _choices(key: str, values: Any, source: str) -> Choices:
    if not isinstance(values, list) or not values:
        raise InputError(
            f"The choices of '{key}' are {values!r}, but must be a list of at least one value; "
            f"correct them in {source}."
        )
    if any(isinstance(value, list | dict) for value in values):
        raise InputError(f"The choices of '{key}' are {values!r}, but must be plain values; correct them in {source}.")
    if len(set(values)) < len(values):
        raise InputError(f"The choices of '{key}' are {values!r}, but must differ; remove the doubles in {source}.")
    return Choices(tuple(values))


def _range(key: str, given: Mapping[str, Any], source: str) -> Range:
    low, high, log = given["low"], given["high"], given.get("log", False)
    for name, bound in (("low", low), ("high", high)):
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound):
            raise InputError(
                f"The value of '{key}.{name}' is {bound!r}, but must be a finite number; correct it in {source}."
            )
    if not isinstance(log, bool):
        raise InputError(f"The value of '{key}.log' is {log!r}, but must be true or false; correct it in {source}.")
    if not low <= high:
        raise InputError(f"The range of '{key}' has low {low} above high {high}, and is empty; swap them in {source}.")
    if log and low <= 0:
        raise InputError(
            f"The range of '{key}' has log: true and low {low}, but a logarithm needs low above 0; "
            f"correct it in {source}."
        )
    return Range(low, high, log)
