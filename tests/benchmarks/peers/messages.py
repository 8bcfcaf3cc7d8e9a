"""What a benchmark and the process of a search method send each other, as JSON lines.

The first line to the process is a `Begin`. Each further one is `SUGGEST`, answered by a `Proposal` or null, or a
`Report`, answered by a `Decision`. Standard library only, since the process has an environment of its own.
"""

from __future__ import annotations

import enum
import json
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

Scalar = str | float | int | bool
Values = Mapping[str, Scalar]
"""A configuration: the values of all parameters of a flat space, by name."""
SUGGEST = "suggest"


class Kind(enum.StrEnum):
    """Kind of a parameter."""

    FLOAT = "float"
    INT = "int"
    ORDERED = "ordered"
    """Ascending numbers."""
    CHOICE = "choice"


class Decision(enum.StrEnum):
    """What happens to a trial after a report."""

    CONTINUE = "continue"
    STOP = "stop"
    PAUSE = "pause"
    """Its checkpoint is kept, and it may be resumed."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a flat space."""

    name: str
    kind: Kind
    low: float = 0.0
    """Of a range; both ends belong to it."""
    high: float = 0.0
    log: bool = False
    choices: tuple[Scalar, ...] = ()

    def sampled(self, rng: random.Random) -> Scalar:
        """A random value, uniform on the scale of the parameter."""
        if self.choices:
            return rng.choice(self.choices)
        half = 0.5 if self.kind is Kind.INT else 0.0
        low, high = self.low - half, self.high + half
        value = math.exp(rng.uniform(math.log(low), math.log(high))) if self.log else rng.uniform(low, high)
        value = min(max(value, self.low), self.high)
        return round(value) if self.kind is Kind.INT else value


@dataclass(frozen=True, kw_only=True)
class Begin:
    """What a method is started with."""

    method: str
    seed: int
    max_epochs: int
    """Of a trial."""
    budget: int
    """In epochs, over all trials."""
    space: tuple[Parameter, ...]
    refit_every: int = 1
    """Results after which a method with a Gaussian process fits its hyperparameters again."""

    def as_line(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_line(cls, line: str) -> Begin:
        """The inverse of `as_line`."""
        plain = json.loads(line)
        space = [
            Parameter(**{**each, "kind": Kind(each["kind"]), "choices": tuple(each["choices"])})
            for each in plain["space"]
        ]
        return cls(**{**plain, "space": tuple(space)})


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A new trial, or a paused one that is resumed."""

    trial: int
    """New trials are numbered from 0."""
    values: Values | None
    """None to resume the trial."""

    @classmethod
    def of_plain(cls, plain: dict[str, Any] | None) -> Proposal | None:
        """From JSON; None stands for no proposal."""
        return None if plain is None else cls(**plain)


@dataclass(frozen=True, kw_only=True)
class Report:
    """An epoch of a trial."""

    trial: int
    epoch: int
    """From 1."""
    score: float
    """The larger, the better."""


class Peer(Protocol):
    """A search method: proposes trials, and decides after each epoch."""

    def suggest(self) -> Proposal | None:
        """What an idle worker trains next; None if there is nothing before the next report."""

    def report(self, report: Report) -> Decision:
        """Add an epoch of a running trial."""
