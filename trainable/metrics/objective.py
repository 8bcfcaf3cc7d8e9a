"""The objective of a search, which decides on stopping, checkpoints and the best trial. Loads neither torch nor Ray.

It is computed from the metrics of an epoch. It never depends on a loss, whose weights differ between trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from trainable.metrics.names import ERRORS, METRICS, OBJECTIVE, WORST

Notation = str | Mapping[str, float]
"""An objective as in a spec: a name, with a '-' if smaller is better, or weights by name."""
WEIGHTED = "objective"
"""Key of a weighted sum in the report of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A metric, a cost, or a weighted mean of metrics in 0..1."""

    weights: tuple[tuple[str, float], ...]
    """Names with their weights as written; the mean divides them by their sum."""
    sign: int = 1
    """1 if larger is better, -1 if smaller is better."""

    @classmethod
    def of(cls, notation: Notation) -> Objective:
        """Convert 'score', '-depth_rmse' or {'mask_iou': 0.7, 'depth_delta1': 0.3}."""
        if isinstance(notation, str):
            return cls(weights=((notation.removeprefix("-"), 1.0),), sign=-1 if notation.startswith("-") else 1)
        return cls(weights=tuple((name, float(weight)) for name, weight in notation.items()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its metrics or costs."""
        return tuple(name for name, _ in self.weights)

    @property
    def name(self) -> str:
        """The name of the metric or cost; of a weighted mean, its formula."""
        if len(self.weights) == 1:
            return self.names[0]
        return " + ".join(f"{share:.3g} {name}" for name, share in self.shares.items())

    @property
    def key(self) -> str:
        """The key of its value in the report of an epoch, which is also its name in a line of text."""
        return self.names[0] if len(self.weights) == 1 else WEIGHTED

    @property
    def shares(self) -> dict[str, float]:
        """Weights by name that add up to 1."""
        total = sum(weight for _, weight in self.weights)
        return {name: weight / total for name, weight in self.weights}

    @property
    def mode(self) -> Literal["max", "min"]:
        """'max' or 'min'."""
        return "max" if self.sign > 0 else "min"

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """The direction of a study."""
        return "maximize" if self.sign > 0 else "minimize"

    @property
    def worst(self) -> float:
        """The value of a trial that diverged or is not trained; infinite if the objective has no bound."""
        is_bounded = self.sign > 0 and all(name in METRICS and name not in ERRORS for name in self.names)
        return WORST if is_bounded else -self.sign * math.inf

    @property
    def plain(self) -> str | dict[str, float]:
        """The notation of a spec."""
        if len(self.weights) == 1:
            return self.name if self.sign > 0 else f"-{self.name}"
        return dict(self.weights)

    def __str__(self) -> str:
        """As written in a spec."""
        if isinstance(self.plain, str):
            return self.plain
        return f"{{{', '.join(f'{name}: {weight:g}' for name, weight in self.weights)}}}"

    def is_in(self, metrics: Mapping[str, object]) -> bool:
        """Whether everything that it is computed from was measured."""
        return all(name in metrics for name in self.names)

    def value(self, metrics: Mapping[str, float]) -> float:
        """The value for the metrics of an epoch; NaN if one of them is missing."""
        if not self.is_in(metrics):
            return math.nan
        if len(self.weights) == 1:
            return float(metrics[self.key])
        return float(sum(share * metrics[name] for name, share in self.shares.items()))

    def oriented(self, value: float) -> float:
        """The value times the sign, so that larger is better; -inf for NaN."""
        return -math.inf if math.isnan(value) else self.sign * value

    def rank(self, metrics: Mapping[str, float]) -> float:
        """The oriented value for the metrics of an epoch."""
        return self.oriented(self.value(metrics))

    def with_value(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """The metrics, with the value of a weighted mean under its key."""
        is_new = len(self.weights) > 1 and self.is_in(metrics)
        return {**metrics, **({self.key: self.value(metrics)} if is_new else {})}

    def worst_metrics(self) -> dict[str, float]:
        """The metrics of an epoch of a trial that diverged or is not trained."""
        return {OBJECTIVE: WORST} | self.with_value(dict.fromkeys(self.names, self.worst))


SCORE = Objective.of(OBJECTIVE)
"""The default objective."""
