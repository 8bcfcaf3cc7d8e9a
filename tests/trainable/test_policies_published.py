"""The published learning-rate policies against torch's own schedulers, driven at the cadence that was published.

Each is asked for three epochs of a few steps, with the horizon that it was published with.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from trainable.config import PolicyConfig
from trainable.policies import build_policy

EPOCHS, STEPS = 3, 5
MOMENTUM = 0.9


def _sgd(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=MOMENTUM)


def _found(policy: PolicyConfig, lr: float, losses: list[float], epochs: int = EPOCHS) -> list[tuple[float, float]]:
    """Learning rate and momentum of every step."""
    optimizer, built = _sgd(lr), build_policy(policy, steps_of_epochs=[STEPS] * epochs)
    seen = []
    for epoch in range(epochs):
        for index in range(STEPS):
            built.apply(optimizer.param_groups, epoch * STEPS + index)
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        built.epoch_end({"score": 0.5, "train_loss": losses[epoch]})
    return seen


def _published(
    scheduler: Any,
    optimizer: torch.optim.Optimizer,
    *,
    per: str,
    losses: list[float] | None = None,
    epochs: int = EPOCHS,
) -> list[tuple[float, float]]:
    """The same by torch; a scheduler of None is one that was never stepped."""
    seen = []
    for epoch in range(epochs):
        for _ in range(STEPS):
            seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
            optimizer.step()
            if scheduler and per == "batch":
                scheduler.step()
        if scheduler and per == "epoch":
            scheduler.step(*([losses[epoch]] if losses else []))
    return seen


def _policy(**values: Any) -> PolicyConfig:
    return PolicyConfig.model_validate(values)


def _agree(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-9)


ONECYCLE = {"pct_start": 0.25, "div": 25.0, "final_div": 1000.0, "anneal": "linear", "cycle_momentum": True}


def _onecycle(optimizer: torch.optim.Optimizer, epochs: int) -> lr_scheduler.OneCycleLR:
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.5,
        epochs=epochs,
        steps_per_epoch=STEPS,
        pct_start=0.25,
        anneal_strategy="linear",
        div_factor=25.0,
        final_div_factor=1000.0,
    )


def test_raguram_cycles_once_over_twenty_epochs() -> None:
    """Per batch, linear, with the momentum against it; a run of three epochs sees the beginning of the cycle."""
    policy, optimizer = _policy(name="onecycle", horizon_epochs=20, onecycle=ONECYCLE), _sgd(0.5)
    _agree(_found(policy, 0.5, [1.0] * EPOCHS), _published(_onecycle(optimizer, 20), optimizer, per="batch"))


def test_raguram_ends_where_torch_does() -> None:
    """A run as long as its horizon goes through all of it, to the last step."""
    policy, optimizer = _policy(name="onecycle", horizon_epochs=EPOCHS, onecycle=ONECYCLE), _sgd(0.5)
    scheduler = _onecycle(optimizer, EPOCHS)
    expected = []
    for step in range(EPOCHS * STEPS):
        expected.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        if step < EPOCHS * STEPS - 1:  # torch refuses the step after the last one
            scheduler.step()
    _agree(_found(policy, 0.5, [1.0] * EPOCHS), expected)


def test_divyansh_holds_before_the_plateau_is_watched() -> None:
    """The mask's rate stays for three quarters of the run; then the training loss decides, per epoch."""
    losses = [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8]
    plateau = {"patience": 0.125, "factor": 0.1, "threshold": 1e-4, "watch": "train_loss"}
    policy = _policy(name="plateau", horizon_epochs=8, hold=0.25, plateau=plateau)
    optimizer = _sgd(0.01)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    expected = _published(None, optimizer, per="epoch", epochs=2)
    expected += _published(scheduler, optimizer, per="epoch", losses=losses[2:], epochs=6)
    found = _found(policy, 0.01, losses, epochs=8)
    _agree(found, expected)
    assert len({lr for lr, _ in found}) == 2
    whole = _policy(name="plateau", horizon_epochs=400, hold=0.75, plateau={**plateau, "patience": 5 / 400})
    assert {lr for lr, _ in _found(whole, 0.01, [1.0] * EPOCHS)} == {0.01}


def test_divyansh_holds_before_the_steps() -> None:
    """The depth's rate stays for half of the run, then falls to a tenth every so many epochs."""
    policy = _policy(name="step", horizon_epochs=12, hold=0.5, step={"every": 2 / 12, "factor": 0.1})
    optimizer = _sgd(0.01)
    expected = _published(None, optimizer, per="epoch", epochs=6)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    expected += _published(scheduler, optimizer, per="epoch", epochs=6)
    _agree(_found(policy, 0.01, [1.0] * 12, epochs=12), expected)


def test_birender_cycles_by_epochs() -> None:
    """Eight epochs up and eight down, constant within an epoch, the momentum against it."""
    cyclic = {"period": 16 / 40, "floor": 0.01, "halve": True, "cadence": "epoch", "cycle_momentum": True}
    policy = _policy(name="cyclic", horizon_epochs=40, cyclic=cyclic)
    for epochs in (EPOCHS, 40):
        optimizer = _sgd(1e-4)
        scheduler = lr_scheduler.CyclicLR(optimizer, base_lr=1e-4, max_lr=0.01, step_size_up=8, mode="triangular2")
        _agree(
            _found(policy, 0.01, [1.0] * epochs, epochs=epochs),
            _published(scheduler, optimizer, per="epoch", epochs=epochs),
        )


@pytest.mark.parametrize("half", [2_000, 4])
def test_birender_cycles_by_batches(half: int) -> None:
    """Two thousand batches up and as many down, however many an epoch has here; fewer show the halving."""
    cyclic = {"period": 0.025, "floor": 0.01, "halve": True, "cycle_momentum": True}
    policy = _policy(name="cyclic", horizon_batches=80 * half, cyclic=cyclic)
    optimizer = _sgd(1e-4)
    scheduler = lr_scheduler.CyclicLR(optimizer, base_lr=1e-4, max_lr=0.01, step_size_up=half, mode="triangular2")
    _agree(_found(policy, 0.01, [1.0] * EPOCHS), _published(scheduler, optimizer, per="batch"))


def test_ramana_never_steps() -> None:
    """Its scheduler was made and left alone."""
    _agree(
        _found(_policy(name="constant"), 1e-3, [1.0] * EPOCHS),
        _published(None, _sgd(1e-3), per="epoch"),
    )


def test_monimoyd_steps_every_second_epoch() -> None:
    """To a tenth, in a run of five epochs or of three."""
    policy = _policy(name="step", horizon_epochs=5, step={"every": 0.4, "factor": 0.1})
    for epochs in (EPOCHS, 5):
        optimizer = _sgd(0.01)
        scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
        expected = _published(scheduler, optimizer, per="epoch", epochs=epochs)
        _agree(_found(policy, 0.01, [1.0] * epochs, epochs=epochs), expected)


def test_a_run_beyond_its_horizon_stays_at_the_end() -> None:
    """A curve that has an end has no other place to go."""
    for name in ("onecycle", "cosine"):
        policy = build_policy(_policy(name=name, horizon_epochs=2), steps_of_epochs=[STEPS] * 4)
        last = policy.factor(2 * STEPS - 1)
        assert [policy.factor(step) for step in range(2 * STEPS, 4 * STEPS)] == [last] * 2 * STEPS


def test_epochs_may_differ_in_length() -> None:
    """Small pictures come in larger batches: an epoch of theirs has fewer steps, and is an epoch nevertheless."""
    policy = build_policy(_policy(name="step", step={"every": 0.5, "factor": 0.1}), steps_of_epochs=[2, 2, 5, 5])
    assert [policy.factor(step) for step in range(14)] == pytest.approx([1.0] * 4 + [0.1] * 10)


def test_adam_has_its_first_beta_cycled() -> None:
    """That is its momentum."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.1, betas=(0.9, 0.99))
    policy = build_policy(_policy(name="onecycle", onecycle={"cycle_momentum": True}), steps_of_epochs=[STEPS])
    policy.apply(optimizer.param_groups, 0)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.99)
