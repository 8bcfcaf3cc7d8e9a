"""The rules of the learning-rate policies: torch's schedulers. Steps and epochs count from the start of the rule."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from trainable.metrics.names import OBJECTIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainable.config import PolicyConfig
    from trainable.config.policy import PlateauPolicy


class EpochBoundaries:
    """The optimizer steps at which the epochs of a run start. Epochs after the run are as long as its last one."""

    def __init__(self, steps_of_epochs: Sequence[int]) -> None:
        self._lengths = list(steps_of_epochs)
        self._starts = [0, *itertools.accumulate(self._lengths)]

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self._starts[-1]

    def epoch(self, step: int) -> int:
        """The epoch that contains `step`."""
        beyond = step - self.steps
        if beyond >= 0:
            return len(self._lengths) + beyond // self._lengths[-1]
        return bisect_right(self._starts, step) - 1

    def first_step(self, epoch: int) -> int:
        """The first step of `epoch`."""
        beyond = epoch - len(self._lengths)
        return self._starts[epoch] if beyond <= 0 else self.steps + beyond * self._lengths[-1]

    def horizon(self, *, epochs: int | None, steps: int | None) -> Horizon:
        """A horizon of `epochs` epochs or `steps` steps, or the whole run if both are None."""
        if epochs is not None:
            return Horizon(epochs=float(epochs), steps=self.first_step(epochs))
        if steps is None:
            return Horizon(epochs=float(len(self._lengths)), steps=self.steps)
        epoch = self.epoch(steps)
        first, end = self.first_step(epoch), self.first_step(epoch + 1)
        return Horizon(epochs=epoch + (steps - first) / (end - first), steps=steps)


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """The duration that the shares of a policy refer to."""

    epochs: float
    """Fractional if a horizon in steps ends within an epoch."""
    steps: int


class RuleState(TypedDict, total=False):
    """The state of a rule that does not follow from the step; a rule has only its own keys."""

    factor: float
    """Permanent reduction."""
    dropped: int | None
    """The epoch or step of the last drop."""
    best: float | None
    bad_epochs: int


class Rule:
    """The part of a policy after warm-up and hold, which differs between the policies.

    A rule that depends on metrics overrides `epoch_end` and has a state.

    Args:
        factor: the factor in (0, 1] of the peak learning rate, for a step and its epoch.
        momentum: the momentum; None if the policy does not change it.
    """

    def __init__(
        self, factor: Callable[[int, int], float], momentum: Callable[[int, int], float | None] | None = None
    ) -> None:
        self._factor = factor
        self._momentum = momentum

    def factor(self, step: int, epoch: int) -> float:
        """Return the factor in (0, 1] of the peak learning rate."""
        return self._factor(step, epoch)

    def momentum(self, step: int, epoch: int) -> float | None:
        """Return the momentum, or None to keep it."""
        return self._momentum(step, epoch) if self._momentum else None

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:
        """Process the metrics of an epoch. The next one is `next_epoch`, whose first step is `next_step`."""

    def state_dict(self) -> RuleState:
        """Return the state, as plain values."""
        return {}

    def load_state_dict(self, state: RuleState) -> None:
        """Restore the result of `state_dict`."""


class _PlateauDetector:
    """Counts epochs in which a metric did not improve (`ReduceLROnPlateau`)."""

    def __init__(self, config: PlateauPolicy, horizon: Horizon) -> None:
        self._config = config
        self._patience = round_share(config.patience, horizon.epochs)
        self._best: float | None = None
        self._bad_epochs = 0

    def is_plateau(self, metrics: Mapping[str, float]) -> bool:
        """Count an epoch. True, with the count reset, after more than `patience` epochs without an improvement."""
        watched = OBJECTIVE if self._config.watch == "score" else self._config.watch
        if watched not in metrics:  # a run without validation
            return False
        value = metrics[watched]
        if self._has_improved(value):
            self._best, self._bad_epochs = value, 0
            return False
        self._bad_epochs += 1
        if self._bad_epochs <= self._patience:
            return False
        self._bad_epochs = 0
        return True

    def _has_improved(self, value: float) -> bool:
        """Whether `value` is an improvement; a NaN never is."""
        if self._best is None:
            return not math.isnan(value)
        if self._config.watch == "score":
            return value > self._best + self._config.threshold
        return value < self._best * (1 - self._config.threshold)

    def state_dict(self) -> RuleState:
        return {"best": self._best, "bad_epochs": self._bad_epochs}

    def load_state_dict(self, state: RuleState) -> None:
        self._best, self._bad_epochs = state["best"], state["bad_epochs"]


class _Plateau(Rule):
    """Lower the factor permanently on each plateau."""

    def __init__(self, config: PlateauPolicy, horizon: Horizon) -> None:
        super().__init__(lambda _step, _epoch: self._lowered)
        self._detector = _PlateauDetector(config, horizon)
        self._drop = config.factor
        self._lowered = 1.0

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:  # noqa: ARG002
        if self._detector.is_plateau(metrics):
            self._lowered *= self._drop

    def state_dict(self) -> RuleState:
        return {"factor": self._lowered, **self._detector.state_dict()}

    def load_state_dict(self, state: RuleState) -> None:
        self._lowered = state["factor"]
        self._detector.load_state_dict(state)


class _CurveWithPlateau(Rule):
    """A curve that is lowered on each plateau until the curve next sets the rate: for one epoch or one step."""

    def __init__(self, curve: Rule, config: PlateauPolicy, horizon: Horizon, *, by_epoch: bool) -> None:
        super().__init__(curve.factor, curve.momentum)
        self._by_epoch = by_epoch
        self._detector = _PlateauDetector(config, horizon)
        self._drop = config.factor
        self._dropped: int | None = None

    def factor(self, step: int, epoch: int) -> float:
        is_dropped = self._dropped == (epoch if self._by_epoch else step)
        return super().factor(step, epoch) * (self._drop if is_dropped else 1.0)

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:
        if self._detector.is_plateau(metrics):
            self._dropped = next_epoch if self._by_epoch else next_step

    def state_dict(self) -> RuleState:
        return {"dropped": self._dropped, **self._detector.state_dict()}

    def load_state_dict(self, state: RuleState) -> None:
        self._dropped = state["dropped"]
        self._detector.load_state_dict(state)


def _constant(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001  all builders have the same signature
    return Rule(lambda _step, _epoch: 1.0)


def _step(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Multiply by a factor every few epochs (`StepLR`), at least one epoch apart."""
    every = max(1, round_share(config.step.every, horizon.epochs))
    return Rule(lambda _step, epoch: config.step.factor ** (epoch // every))


def _plateau(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Multiply by a factor when the watched metric does not improve (`ReduceLROnPlateau`).

    A share that rounds to 0 epochs is a patience of 0: the first epoch without an improvement lowers the factor.
    Torch ignores reductions below 1e-8; here the rate keeps falling.
    """
    return _Plateau(config.plateau, horizon)


def _cyclic(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Triangles (`CyclicLR`, triangular or triangular2). Rise and fall take at least one step or epoch each.

    With `cyclic.plateau`, as if `ReduceLROnPlateau` were called on the same optimizer after `CyclicLR`.
    """
    cyclic = config.cyclic
    by_epoch = cyclic.cadence == "epoch"
    half_period = max(1, round_share(cyclic.period / 2, horizon.epochs if by_epoch else horizon.steps))

    def height(step: int, epoch: int) -> float:
        cycle, offset = divmod(epoch if by_epoch else step, 2 * half_period)
        return min(offset, 2 * half_period - offset) / half_period * (0.5**cycle if cyclic.halve else 1.0)

    low, high = cyclic.base_momentum, cyclic.max_momentum
    curve = Rule(
        lambda step, epoch: cyclic.floor + (1 - cyclic.floor) * height(step, epoch),
        (lambda step, epoch: high - (high - low) * height(step, epoch)) if cyclic.cycle_momentum else None,
    )
    return _CurveWithPlateau(curve, cyclic.plateau, horizon, by_epoch=by_epoch) if cyclic.plateau else curve


def _onecycle(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Rise, then fall below the start (`OneCycleLR`). A rise shorter than a step is skipped."""
    onecycle = config.onecycle
    anneal = ANNEALS[onecycle.anneal]
    peak_step = onecycle.pct_start * steps - 1  # fractional, as in torch
    fall_steps = steps - 1 - peak_step

    def between(start: float, peak: float, end: float, step: int) -> float:
        if step < peak_step:
            return anneal(start, peak, step / peak_step)
        return anneal(peak, end, (min(step, steps - 1) - peak_step) / fall_steps)

    low, high = onecycle.base_momentum, onecycle.max_momentum
    return Rule(
        lambda step, _epoch: between(1 / onecycle.div, 1.0, 1 / (onecycle.div * onecycle.final_div), step),
        (lambda step, _epoch: between(high, low, high, step)) if onecycle.cycle_momentum else None,
    )


def _cosine(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Half a cosine (`CosineAnnealingLR`), which ends one step after the last."""
    floor = config.cosine.floor
    return Rule(lambda step, _epoch: _cosine_between(1.0, floor, min(step, steps - 1) / steps))


def round_share(share: float, count: float) -> int:
    """`share` of `count`, rounded to the nearest integer, halves up."""
    return int(share * count + 0.5)


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line_between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


ANNEALS: dict[str, Callable[[float, float, float], float]] = {
    "cos": _cosine_between,
    "linear": _line_between,
}
"""Functions (start, end, share) that interpolate from `start` to `end` at a share in 0..1."""

POLICIES: dict[str, Callable[[PolicyConfig, Horizon, int], Rule]] = {
    "constant": _constant,
    "step": _step,
    "plateau": _plateau,
    "cyclic": _cyclic,
    "onecycle": _onecycle,
    "cosine": _cosine,
}
"""Builders of the rules by policy name. Arguments: configuration, horizon, and the steps after the hold."""
