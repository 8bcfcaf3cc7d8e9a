"""The rules of the learning-rate policies: the curves of torch's schedulers, at the cadence they are driven with.

Steps and epochs count from 0, from where the rule begins.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from trainable.metrics.names import OBJECTIVE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trainable.config import PolicyConfig
    from trainable.config.policy import PlateauPolicy


class Course:
    """A run's epochs, of so many optimizer steps each; beyond the last one, more like it."""

    def __init__(self, steps_of_epochs: Sequence[int]) -> None:
        self._lengths = list(steps_of_epochs)
        self._starts = [0, *itertools.accumulate(self._lengths)]

    @property
    def steps(self) -> int:
        """Its length."""
        return self._starts[-1]

    def epoch(self, step: int) -> int:
        """The epoch that a step belongs to."""
        beyond = step - self.steps
        if beyond >= 0:
            return len(self._lengths) + beyond // self._lengths[-1]
        return bisect_right(self._starts, step) - 1

    def first_step(self, epoch: int) -> int:
        """The step that an epoch begins with."""
        beyond = epoch - len(self._lengths)
        return self._starts[epoch] if beyond <= 0 else self.steps + beyond * self._lengths[-1]

    def horizon(self, *, epochs: int | None, steps: int | None) -> Horizon:
        """What a policy's shares are of: so many epochs or steps, or the whole course."""
        if epochs is not None:
            return Horizon(epochs=float(epochs), steps=self.first_step(epochs))
        if steps is None:
            return Horizon(epochs=float(len(self._lengths)), steps=self.steps)
        epoch = self.epoch(steps)
        begun = steps - self.first_step(epoch)
        return Horizon(epochs=epoch + begun / (self.first_step(epoch + 1) - self.first_step(epoch)), steps=steps)


@dataclass(frozen=True, kw_only=True)
class Horizon:
    """What a policy's shares are of."""

    epochs: float
    """A horizon in steps may end within an epoch."""
    steps: int


class Rule(Protocol):
    """What a policy does, without warm-up and hold: the part that differs from one policy to the next."""

    def factor(self, step: int, epoch: int) -> float:
        """Give the factor in (0, 1] of the peak learning rate."""

    def momentum(self, step: int, epoch: int) -> float | None:
        """Give the momentum, or None to leave it alone."""

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:
        """Take the metrics of an epoch; the next one is `next_epoch`, which begins with `next_step`."""

    def state_dict(self) -> dict[str, Any]:
        """Give what the steps' numbers do not say, as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class Curve:
    """A rule that the step's and the epoch's number alone decide."""

    def __init__(
        self, factor: Callable[[int, int], float], momentum: Callable[[int, int], float] | None = None
    ) -> None:
        self._factor = factor
        self._momentum = momentum

    def factor(self, step: int, epoch: int) -> float:
        """Give the factor in (0, 1] of the peak learning rate."""
        return self._factor(step, epoch)

    def momentum(self, step: int, epoch: int) -> float | None:
        """Give the momentum, or None to leave it alone."""
        return self._momentum(step, epoch) if self._momentum else None

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:
        """A curve does not depend on metrics."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the numbers of step and epoch say it all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to be restored."""


class _Watch:
    """Counts epochs in which a metric did not improve (`ReduceLROnPlateau`)."""

    def __init__(self, config: PlateauPolicy, horizon: Horizon) -> None:
        self._config = config
        self._patience = rounded(config.patience, horizon.epochs)
        self._best: float | None = None
        self._bad_epochs = 0

    def fires(self, metrics: Mapping[str, float]) -> bool:
        """Count an epoch; True, and the count starts again, after more than `patience` without an improvement."""
        watched = OBJECTIVE if self._config.watch == "score" else self._config.watch
        if watched not in metrics:  # as in a run that is not validated
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
        """False for a value that is NaN."""
        if self._best is None:
            return not math.isnan(value)
        if self._config.watch == "score":
            return value > self._best + self._config.threshold
        return value < self._best * (1 - self._config.threshold)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "bad_epochs": self._bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._bad_epochs = state["best"], state["bad_epochs"]


class _Plateau:
    """Lower the factor for good each time that the watch fires."""

    def __init__(self, config: PlateauPolicy, horizon: Horizon) -> None:
        self._watch = _Watch(config, horizon)
        self._drop = config.factor
        self._factor = 1.0

    def factor(self, step: int, epoch: int) -> float:  # noqa: ARG002  it depends on the metrics alone
        return self._factor

    def momentum(self, step: int, epoch: int) -> float | None:  # noqa: ARG002
        return None

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:  # noqa: ARG002
        if self._watch.fires(metrics):
            self._factor *= self._drop

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self._factor, **self._watch.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._factor = state["factor"]
        self._watch.load_state_dict(state)


class _PlateauBeside:
    """A curve, lowered each time that the watch fires until the curve next sets the rate: for an epoch, or a step."""

    def __init__(self, curve: Curve, config: PlateauPolicy, horizon: Horizon, *, by_epoch: bool) -> None:
        self._curve, self._by_epoch = curve, by_epoch
        self._watch = _Watch(config, horizon)
        self._drop = config.factor
        self._dropped: int | None = None
        """The epoch, or the step, that the last drop is for."""

    def factor(self, step: int, epoch: int) -> float:
        is_dropped = self._dropped == (epoch if self._by_epoch else step)
        return self._curve.factor(step, epoch) * (self._drop if is_dropped else 1.0)

    def momentum(self, step: int, epoch: int) -> float | None:
        return self._curve.momentum(step, epoch)

    def epoch_end(self, metrics: Mapping[str, float], *, next_step: int, next_epoch: int) -> None:
        if self._watch.fires(metrics):
            self._dropped = next_epoch if self._by_epoch else next_step

    def state_dict(self) -> dict[str, Any]:
        return {"dropped": self._dropped, **self._watch.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._dropped = state["dropped"]
        self._watch.load_state_dict(state)


def _constant(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001  all builders are called alike
    return Curve(lambda _step, _epoch: 1.0)


def _step(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Multiply after every so many epochs (`StepLR`); a share below one epoch counts as one."""
    every = max(1, rounded(config.step.every, horizon.epochs))
    return Curve(lambda _step, epoch: config.step.factor ** (epoch // every))


def _plateau(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Multiply when what is watched stays (`ReduceLROnPlateau`).

    A share that rounds to no epoch is a patience of 0: the first epoch without an improvement lowers the factor.
    Torch leaves the rate alone once a step down is below 1e-8; here it goes on falling.
    """
    return _Plateau(config.plateau, horizon)


def _cyclic(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Triangles (`CyclicLR`, triangular or triangular2); rise and fall take at least one step or epoch each.

    With a plateau rule beside them, as `ReduceLROnPlateau` on the same optimizer, called after `CyclicLR`.
    """
    cyclic = config.cyclic
    by_epoch = cyclic.cadence == "epoch"
    half_period = max(1, rounded(cyclic.period / 2, horizon.epochs if by_epoch else horizon.steps))

    def height(step: int, epoch: int) -> float:
        cycle, place = divmod(epoch if by_epoch else step, 2 * half_period)
        return min(place, 2 * half_period - place) / half_period * (0.5**cycle if cyclic.halve else 1.0)

    spread = cyclic.max_momentum - cyclic.base_momentum
    curve = Curve(
        lambda step, epoch: cyclic.floor + (1 - cyclic.floor) * height(step, epoch),
        (lambda step, epoch: cyclic.max_momentum - spread * height(step, epoch)) if cyclic.cycle_momentum else None,
    )
    return _PlateauBeside(curve, cyclic.plateau, horizon, by_epoch=by_epoch) if cyclic.plateau else curve


def _onecycle(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Rise, then fall further (`OneCycleLR`); a rise shorter than a step starts on the way down."""
    onecycle = config.onecycle
    anneal = ANNEALS[onecycle.anneal]
    peak_step = onecycle.pct_start * steps - 1  # the same fraction of a step as torch has it
    fall_steps = steps - 1 - peak_step

    def between(start: float, peak: float, end: float, step: int) -> float:
        if step < peak_step:
            return anneal(start, peak, step / peak_step)
        return anneal(peak, end, (min(step, steps - 1) - peak_step) / fall_steps)

    low, high = onecycle.base_momentum, onecycle.max_momentum
    return Curve(
        lambda step, _epoch: between(1 / onecycle.div, 1.0, 1 / (onecycle.div * onecycle.final_div), step),
        (lambda step, _epoch: between(high, low, high, step)) if onecycle.cycle_momentum else None,
    )


def _cosine(config: PolicyConfig, horizon: Horizon, steps: int) -> Rule:  # noqa: ARG001
    """Half a cosine over the course (`CosineAnnealingLR`); its end is one step after the last."""
    floor = config.cosine.floor
    return Curve(lambda step, _epoch: _cosine_between(1.0, floor, min(step, steps - 1) / steps))


def rounded(share: float, count: float) -> int:
    """So many of `count` as the share is, to the nearest; a half goes up."""
    return int(share * count + 0.5)


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line_between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


ANNEALS: dict[str, Callable[[float, float, float], float]] = {
    "cos": _cosine_between,
    "linear": _line_between,
}
"""From the first to the second number, at a share in 0..1 of the way."""

POLICIES: dict[str, Callable[[PolicyConfig, Horizon, int], Rule]] = {
    "constant": _constant,
    "step": _step,
    "plateau": _plateau,
    "cyclic": _cyclic,
    "onecycle": _onecycle,
    "cosine": _cosine,
}
"""Builds the rule of every name that a configuration may give, from its horizon and the steps that the hold leaves."""
