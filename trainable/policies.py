"""How the learning rate changes over a run, as a factor of its peak.

A policy is asked for every optimizer step, by the step's number alone, so that a resumed run goes on where it
was; only `plateau` depends on what was measured, and keeps that in its state. The curves are those of torch's
schedulers. Steps count optimizer steps from 0 over the whole run, epochs likewise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from trainable.config import PolicyConfig


@dataclass(frozen=True, kw_only=True)
class Run:
    """The length of a run, which turns a policy's shares into steps and epochs."""

    steps_per_epoch: int
    epochs: int

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.steps_per_epoch * self.epochs


class Rule(Protocol):
    """What a policy does, without the warm-up: the part that differs from one policy to the next."""

    def factor(self, step: int) -> float:
        """Give the factor in (0, 1] of the peak learning rate, for a step of the run."""

    def epoch_end(self, score: float) -> None:
        """Take note of an epoch's validation score; more is better."""

    def state_dict(self) -> dict[str, Any]:
        """Give what the steps' numbers do not say, as plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


class Policy:
    """Sets the learning rate: the peak, times the rule's factor, times the warm-up's."""

    def __init__(self, rule: Rule, *, run: Run, warmup_steps: int) -> None:
        self._rule = rule
        self._run = run
        self._warmup_steps = warmup_steps
        self._history: list[float] = []

    @property
    def history(self) -> list[float]:
        """The rule's factor at the last step of every epoch that ended so far, without the warm-up."""
        return list(self._history)

    def factor(self, step: int) -> float:
        """Give the factor in (0, 1] of the peak learning rate; it stays put after the last step."""
        step = min(step, self._run.steps - 1)
        return self._rule.factor(step) * min(1.0, (step + 1) / (self._warmup_steps + 1))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate that `step` is to be taken with; call it before every step.

        The peak is the group's 'initial_lr', as with torch's schedulers: the first call notes it there.
        """
        factor = self.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def epoch_end(self, score: float) -> float:
        """Take note of an epoch's validation score, after every epoch; give what it adds to `history`."""
        last_step = (len(self._history) + 1) * self._run.steps_per_epoch - 1
        factor = self._rule.factor(min(last_step, self._run.steps - 1))
        self._history.append(factor)
        self._rule.epoch_end(score)
        return factor

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs, as plain values."""
        return {"history": self.history, "rule": self._rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._history = list(state["history"])
        self._rule.load_state_dict(state["rule"])


def build_policy(config: PolicyConfig, *, steps_per_epoch: int, epochs: int) -> Policy:
    """Build the policy of a run of so many epochs, of so many optimizer steps each; both are at least 1."""
    run = Run(steps_per_epoch=steps_per_epoch, epochs=epochs)
    return Policy(POLICIES[config.name](config, run), run=run, warmup_steps=_rounded(config.warmup, run.steps))


def build_replay(history: Sequence[float], *, steps_per_epoch: int, epochs: int, warmup: float = 0.0) -> Policy:
    """Build a policy that plays another run's `Policy.history` again, where there are no scores to watch.

    Args:
        history: one factor in (0, 1] for each epoch of the other run. If this run has more or fewer epochs,
            each takes the factor of the epoch at the same share of the other.
        steps_per_epoch: optimizer steps in each epoch of this run.
        epochs: epochs of this run.
        warmup: the other run's `PolicyConfig.warmup`.

    Raises:
        InputError: if the history is empty, or one of its factors is not in (0, 1].
    """
    if not history or not all(0 < factor <= 1 for factor in history):
        raise InputError(
            f"The value of 'history' is {list(history)}, but must be a factor in (0, 1] for each epoch; "
            "take it from a trial that finished at least one epoch."
        )
    run = Run(steps_per_epoch=steps_per_epoch, epochs=epochs)
    # The middle of an epoch falls within the nearest one of the other run.
    factors = [history[int((epoch + 0.5) * len(history) / epochs)] for epoch in range(epochs)]
    rule = _Curve(lambda step: factors[step // steps_per_epoch])
    return Policy(rule, run=run, warmup_steps=_rounded(warmup, run.steps))


class _Curve:
    """A rule that the step's number alone decides."""

    def __init__(self, factor: Callable[[int], float]) -> None:
        self._factor = factor

    def factor(self, step: int) -> float:
        return self._factor(step)

    def epoch_end(self, score: float) -> None:
        """Nothing follows from a score."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to be restored."""


class _Plateau:
    """Lower the factor after more than `patience` epochs that did not raise the score by over `threshold`."""

    def __init__(self, *, patience: int, factor: float, threshold: float) -> None:
        self._patience = patience
        self._multiplier = factor
        self._threshold = threshold
        self._factor = 1.0
        self._best: float | None = None
        self._bad_epochs = 0

    def factor(self, step: int) -> float:  # noqa: ARG002  what it depends on are the scores
        return self._factor

    def epoch_end(self, score: float) -> None:
        has_risen = score > (-math.inf if self._best is None else self._best + self._threshold)
        if has_risen:  # false for a score that is NaN
            self._best, self._bad_epochs = score, 0
            return
        self._bad_epochs += 1
        if self._bad_epochs > self._patience:
            self._factor *= self._multiplier
            self._bad_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        return {"factor": self._factor, "best": self._best, "bad_epochs": self._bad_epochs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._factor, self._best, self._bad_epochs = state["factor"], state["best"], state["bad_epochs"]


def _constant(config: PolicyConfig, run: Run) -> Rule:  # noqa: ARG001  every builder is called alike
    return _Curve(lambda step: 1.0)  # noqa: ARG005


def _step(config: PolicyConfig, run: Run) -> Rule:
    """Multiply after every so many epochs (`StepLR`); a share below one epoch counts as one."""
    every = max(1, _rounded(config.step.every, run.epochs))
    return _Curve(lambda step: config.step.factor ** (step // run.steps_per_epoch // every))


def _plateau(config: PolicyConfig, run: Run) -> Rule:
    """Multiply when the score stays (`ReduceLROnPlateau`).

    A share that rounds to no epoch is a patience of 0: the first epoch without a rise lowers the factor.
    """
    plateau = config.plateau
    patience = _rounded(plateau.patience, run.epochs)
    return _Plateau(patience=patience, factor=plateau.factor, threshold=plateau.threshold)


def _cyclic(config: PolicyConfig, run: Run) -> Rule:
    """Triangles (`CyclicLR`, triangular or triangular2); rise and fall take at least one step each."""
    floor, halve = config.cyclic.floor, config.cyclic.halve
    half_period = max(1, _rounded(config.cyclic.period / 2, run.steps))

    def factor(step: int) -> float:
        cycle, place = divmod(step, 2 * half_period)
        height = min(place, 2 * half_period - place) / half_period
        return floor + (1 - floor) * height * (0.5**cycle if halve else 1.0)

    return _Curve(factor)


def _onecycle(config: PolicyConfig, run: Run) -> Rule:
    """Rise, then fall further (`OneCycleLR`); a rise shorter than a step starts on the way down."""
    onecycle = config.onecycle
    anneal = ANNEALS[onecycle.anneal]
    start, end = 1 / onecycle.div, 1 / (onecycle.div * onecycle.final_div)
    peak_step = onecycle.pct_start * run.steps - 1  # the same fraction of a step as torch has it
    fall_steps = run.steps - 1 - peak_step

    def factor(step: int) -> float:
        if step < peak_step:
            return anneal(start, 1.0, step / peak_step)
        return anneal(1.0, end, (step - peak_step) / fall_steps)

    return _Curve(factor)


def _cosine(config: PolicyConfig, run: Run) -> Rule:
    """Half a cosine over the run (`CosineAnnealingLR`); its end is one step after the last."""
    floor = config.cosine.floor
    return _Curve(lambda step: _cosine_between(1.0, floor, step / run.steps))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _line_between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


def _rounded(share: float, count: int) -> int:
    """So many of `count` as the share is, to the nearest; a half goes up."""
    return int(share * count + 0.5)


ANNEALS: dict[str, Callable[[float, float, float], float]] = {
    "cos": _cosine_between,
    "linear": _line_between,
}
"""From the first to the second number, at a share in 0..1 of the way."""

POLICIES: dict[str, Callable[[PolicyConfig, Run], Rule]] = {
    "constant": _constant,
    "step": _step,
    "plateau": _plateau,
    "cyclic": _cyclic,
    "onecycle": _onecycle,
    "cosine": _cosine,
}
"""The rule of every name that a configuration may give."""
