"""How the learning rate changes over a run, as a factor of its peak, and with it the momentum.

A policy is a function of the optimizer step's number, so that a resumed run continues where it was; only a plateau rule
depends on metrics, and keeps its counts in its state. The curves are those of torch's schedulers, at the
cadence they are driven with: `trainable/optim/curves.py`. Steps count optimizer steps from 0 over the whole run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from data.errors import InputError
from trainable.optim.curves import POLICIES, Course, Curve, Rule, rounded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainable.config import PolicyConfig


class Policy:
    """Sets the learning rate, the peak times the rule's factor times the warm-up's, and the momentum that goes with it.

    The factor is 1 during the hold, before the rule begins.
    """

    def __init__(self, rule: Rule, *, run: Course, hold_epochs: int, hold_steps: int, warmup_steps: int) -> None:
        self._rule = rule
        self._run = run
        self._hold_epochs, self._hold_steps = hold_epochs, hold_steps
        self._warmup_steps = warmup_steps
        self._history: list[float] = []

    @property
    def history(self) -> list[float]:
        """The factor at the last step of every epoch that ended so far, without the warm-up."""
        return list(self._history)

    def factor(self, step: int) -> float:
        """Give the factor in (0, 1] of the peak learning rate; it stays put after the run's last step."""
        step = min(step, self._run.steps - 1)
        return self._factor(step) * min(1.0, (step + 1) / (self._warmup_steps + 1))

    def momentum(self, step: int) -> float | None:
        """Give the momentum that `step` is to be taken with; None where the policy leaves it alone.

        It stays at what the rule begins with until both warm-up and hold are over.
        """
        step = min(step, self._run.steps - 1)
        if step < max(self._hold_steps, self._warmup_steps):
            return self._rule.momentum(0, 0)
        return self._rule.momentum(step - self._hold_steps, self._epoch(step))

    def apply(self, groups: Sequence[dict[str, Any]], step: int) -> None:
        """Set the learning rate and momentum of an optimizer's parameter groups; call it before every step.

        The peak is a group's 'initial_lr', as with torch's schedulers: the first call notes it there. The momentum is
        SGD's, or the first beta of Adam and AdamW.
        """
        factor, momentum = self.factor(step), self.momentum(step)
        for group in groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            elif momentum is not None:
                group["momentum"] = momentum

    def epoch_end(self, metrics: Mapping[str, float]) -> float:
        """Take note of what an epoch came to, after every epoch; give what it adds to `history`."""
        epoch = len(self._history)
        factor = self._factor(min(self._run.first_step(epoch + 1), self._run.steps) - 1)
        self._history.append(factor)
        if epoch >= self._hold_epochs:
            self._rule.epoch_end(
                metrics,
                next_step=self._run.first_step(epoch + 1) - self._hold_steps,
                next_epoch=epoch + 1 - self._hold_epochs,
            )
        return factor

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs, as plain values."""
        return {"history": self.history, "rule": self._rule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._history = list(state["history"])
        self._rule.load_state_dict(state["rule"])

    def _factor(self, step: int) -> float:
        if step < self._hold_steps:
            return 1.0
        return self._rule.factor(step - self._hold_steps, self._epoch(step))

    def _epoch(self, step: int) -> int:
        """Epochs since the hold's end."""
        return max(0, self._run.epoch(step) - self._hold_epochs)


def build_policy(config: PolicyConfig, *, steps_of_epochs: Sequence[int]) -> Policy:
    """Build the policy of a run.

    Args:
        config: the policy; its shares are of its horizon, which is the run where it gives none.
        steps_of_epochs: optimizer steps of each epoch of the run, at least one each.
    """
    run = Course(steps_of_epochs)
    horizon = run.horizon(epochs=config.horizon_epochs, steps=config.horizon_batches)
    hold_epochs = rounded(config.hold, horizon.epochs)
    by_epoch = config.name in BY_EPOCH or (config.name == "cyclic" and config.cyclic.cadence == "epoch")
    hold_steps = run.first_step(hold_epochs) if by_epoch else rounded(config.hold, horizon.steps)
    return Policy(
        POLICIES[config.name](config, horizon, max(1, horizon.steps - hold_steps)),  # a hold may round to all of it
        run=run,
        hold_epochs=hold_epochs,
        hold_steps=hold_steps,
        warmup_steps=rounded(config.warmup, horizon.steps),
    )


def build_replay(
    history: Sequence[float],
    *,
    steps_of_epochs: Sequence[int],
    warmup: float = 0.0,
    horizon_epochs: int | None = None,
    horizon_batches: int | None = None,
) -> Policy:
    """Build a policy that plays another run's `Policy.history` again, where there are no scores to watch.

    Args:
        history: one factor in (0, 1] for each epoch of the other run. If this run has more or fewer epochs,
            each takes the factor of the epoch at the same share of the other.
        steps_of_epochs: optimizer steps of each epoch of this run.
        warmup: the other run's `PolicyConfig.warmup`.
        horizon_epochs: the other run's, which the warm-up is a share of; this run where neither horizon is given.
        horizon_batches: the same in optimizer steps.

    Raises:
        InputError: if the history is empty, or one of its factors is not in (0, 1].
    """
    if not history or not all(0 < factor <= 1 for factor in history):
        raise InputError(
            f"The value of 'history' is {list(history)}, but must be a factor in (0, 1] for each epoch; "
            "take it from a trial that finished at least one epoch."
        )
    run = Course(steps_of_epochs)
    # The middle of an epoch falls within the nearest one of the other run.
    epochs = len(steps_of_epochs)
    factors = [history[int((epoch + 0.5) * len(history) / epochs)] for epoch in range(epochs)]
    rule = Curve(lambda _step, epoch: factors[min(epoch, epochs - 1)])
    horizon = run.horizon(epochs=horizon_epochs, steps=horizon_batches)
    return Policy(rule, run=run, hold_epochs=0, hold_steps=0, warmup_steps=rounded(warmup, horizon.steps))


BY_EPOCH = frozenset({"constant", "step", "plateau"})
"""Policies that are stepped at the end of an epoch."""
