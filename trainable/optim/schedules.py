"""Learning-rate policies: a factor of the peak learning rate, and optionally a momentum, for each optimizer step.

A policy is a function of the step, so that a resumed run continues exactly; only a plateau rule depends on metrics, and
keeps its counts as state. The curves are in `trainable/optim/policies.py`. Steps are optimizer steps of the whole run,
counted from 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from data.errors import InputError
from trainable.optim.policies import POLICIES, EpochBoundaries, Rule, RuleState, round_share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trainable.config import PolicyConfig


class PolicyState(TypedDict):
    """What a resumed run needs of a policy, as plain values."""

    history: list[float]
    """`Policy.history`."""
    rule: RuleState


class Policy:
    """Sets the learning rate, which is peak x factor of the rule x factor of the warm-up, and the momentum.

    The factor of the rule is 1 during the hold, before the rule begins.
    """

    def __init__(
        self, rule: Rule, *, epochs: EpochBoundaries, hold_epochs: int, hold_steps: int, warmup_steps: int
    ) -> None:
        self._rule = rule
        self._epochs = epochs
        self._hold_epochs, self._hold_steps = hold_epochs, hold_steps
        self._warmup_steps = warmup_steps
        self._history: list[float] = []

    @property
    def history(self) -> list[float]:
        """The factor at the last step of each finished epoch, without the warm-up."""
        return list(self._history)

    def factor(self, step: int) -> float:
        """The factor in (0, 1] of the peak learning rate; constant after the last step of the run."""
        step = min(step, self._epochs.steps - 1)
        return self._factor(step) * min(1.0, (step + 1) / (self._warmup_steps + 1))

    def momentum(self, step: int) -> float | None:
        """The momentum of `step`; None if the policy does not change it.

        Until both warm-up and hold are over, it has the initial value of the rule.
        """
        step = min(step, self._epochs.steps - 1)
        if step < max(self._hold_steps, self._warmup_steps):
            return self._rule.momentum(0, 0)
        return self._rule.momentum(step - self._hold_steps, self._epoch(step))

    def apply(self, groups: Sequence[dict[str, Any]], step: int) -> None:
        """Set the learning rate and momentum of the optimizer's parameter groups, before each step.

        The peak is stored in a group's 'initial_lr' by the first call, as by torch's schedulers. The momentum is that
        of SGD, or the first beta of Adam and AdamW.
        """
        factor, momentum = self.factor(step), self.momentum(step)
        for group in groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
            if momentum is not None and "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            elif momentum is not None:
                group["momentum"] = momentum

    def epoch_end(self, metrics: Mapping[str, float]) -> float:
        """Process the metrics of an epoch; return the factor that is added to `history`."""
        epoch = len(self._history)
        factor = self._factor(min(self._epochs.first_step(epoch + 1), self._epochs.steps) - 1)
        self._history.append(factor)
        if epoch >= self._hold_epochs:
            self._rule.epoch_end(
                metrics,
                next_step=self._epochs.first_step(epoch + 1) - self._hold_steps,
                next_epoch=epoch + 1 - self._hold_epochs,
            )
        return factor

    def state_dict(self) -> PolicyState:
        """Return the state."""
        return {"history": self.history, "rule": self._rule.state_dict()}

    def load_state_dict(self, state: PolicyState) -> None:
        """Restore the result of `state_dict`."""
        self._history = list(state["history"])
        self._rule.load_state_dict(state["rule"])

    def _factor(self, step: int) -> float:
        if step < self._hold_steps:
            return 1.0
        return self._rule.factor(step - self._hold_steps, self._epoch(step))

    def _epoch(self, step: int) -> int:
        """Epochs since the end of the hold."""
        return max(0, self._epochs.epoch(step) - self._hold_epochs)


def build_policy(config: PolicyConfig, *, steps_of_epochs: Sequence[int]) -> Policy:
    """Build the policy of a run.

    Args:
        config: the policy; its shares refer to its horizon, by default the whole run.
        steps_of_epochs: optimizer steps of each epoch of the run, at least one each.
    """
    run = EpochBoundaries(steps_of_epochs)
    horizon = run.horizon(epochs=config.horizon_epochs, steps=config.horizon_batches)
    hold_epochs = round_share(config.hold, horizon.epochs)
    by_epoch = config.name in BY_EPOCH or (config.name == "cyclic" and config.cyclic.cadence == "epoch")
    hold_steps = run.first_step(hold_epochs) if by_epoch else round_share(config.hold, horizon.steps)
    return Policy(
        POLICIES[config.name](config, horizon, max(1, horizon.steps - hold_steps)),  # a hold may fill the horizon
        epochs=run,
        hold_epochs=hold_epochs,
        hold_steps=hold_steps,
        warmup_steps=round_share(config.warmup, horizon.steps),
    )


def build_replay(history: Sequence[float], config: PolicyConfig, *, steps_of_epochs: Sequence[int]) -> Policy:
    """Build a policy that replays the `Policy.history` of another run, for a run without validation.

    Args:
        history: one factor in (0, 1] for each epoch of the other run. If this run has more or fewer epochs, each uses
            the factor of the epoch at the same share of the other run.
        config: of the other run, for its warm-up and its horizon.
        steps_of_epochs: optimizer steps of each epoch of this run.

    Raises:
        InputError: if the history is empty, or one of its factors is not in (0, 1].
    """
    if not history or not all(0 < factor <= 1 for factor in history):
        raise InputError(
            f"The value of 'history' is {list(history)}, but must be a factor in (0, 1] for each epoch; "
            "take it from a trial that finished at least one epoch."
        )
    run = EpochBoundaries(steps_of_epochs)
    # The middle of an epoch lies in the corresponding epoch of the other run.
    epochs = len(steps_of_epochs)
    factors = [history[int((epoch + 0.5) * len(history) / epochs)] for epoch in range(epochs)]
    rule = Rule(lambda _step, epoch: factors[min(epoch, epochs - 1)])
    horizon = run.horizon(epochs=config.horizon_epochs, steps=config.horizon_batches)
    warmup_steps = round_share(config.warmup, horizon.steps)
    return Policy(rule, epochs=run, hold_epochs=0, hold_steps=0, warmup_steps=warmup_steps)


BY_EPOCH = frozenset({"constant", "step", "plateau"})
"""Policies that are stepped per epoch."""
