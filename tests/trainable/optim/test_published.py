"""The published learning-rate policies against torch's own schedulers, driven at the cadence that was published.

Each is asked for three epochs of a few steps with the horizon that it was published with, and for more of its horizon.
Then what they ask of any policy: a horizon, a hold, epochs of different lengths, a momentum that is cycled.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler

from trainable.config import PolicyConfig
from trainable.config.policy import CyclicPolicy, OneCyclePolicy, PlateauPolicy, StepPolicy
from trainable.optim.schedules import build_policy
from trainable.recipes import load_recipe

EPOCHS, STEPS = 3, 5
MOMENTUM = 0.9

ONECYCLE = OneCyclePolicy(
    pct_start=0.3,
    div=25.0,
    final_div=10_000.0,
    anneal="linear",
    cycle_momentum=True,
    base_momentum=0.85,
    max_momentum=0.95,
)
RAGURAM = PolicyConfig(name="onecycle", horizon_epochs=20, onecycle=ONECYCLE)
DIVYANSH_MASK = PolicyConfig(
    name="plateau",
    horizon_epochs=400,
    hold=0.75,
    plateau=PlateauPolicy(patience=0.0125, factor=0.1, threshold=1e-4, watch="train_loss"),
)
DIVYANSH_DEPTH = PolicyConfig(
    name="step", horizon_epochs=300, hold=0.5, step=StepPolicy(every=0.16666666666666666, factor=0.1)
)
BIRENDER_EPOCHS = PolicyConfig(
    name="cyclic",
    horizon_epochs=40,
    cyclic=CyclicPolicy(period=0.4, floor=0.01, halve=True, cadence="epoch", cycle_momentum=True),
)
BIRENDER_BATCHES = PolicyConfig(
    name="cyclic",
    horizon_batches=160_000,
    cyclic=CyclicPolicy(period=0.025, floor=0.01, halve=True, cadence="batch", cycle_momentum=True),
)
FLAT_AFTER_14 = [1.0 - 0.05 * min(epoch, 14) for epoch in range(1, 41)]
"""A loss of 40 epochs, counted from 1."""
RAMANA = PolicyConfig(name="constant")
MONIMOYD = PolicyConfig(name="step", horizon_epochs=5, step=StepPolicy(every=0.4, factor=0.1))


def _policy(**values: Any) -> PolicyConfig:
    return PolicyConfig.model_validate(values)


def _sgd(lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=MOMENTUM)


def _now(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    group = optimizer.param_groups[0]
    return group["lr"], group["momentum"]


def _found(
    policy: PolicyConfig, lr: float, *, epochs: int, losses: list[float] | None = None, steps: int = STEPS
) -> list[tuple[float, float]]:
    """Learning rate and momentum of every step."""
    optimizer, built = _sgd(lr), build_policy(policy, steps_of_epochs=[steps] * epochs)
    seen = []
    for epoch in range(epochs):
        for index in range(steps):
            built.apply(optimizer.param_groups, epoch * steps + index)
            seen.append(_now(optimizer))
        loss = losses[epoch] if losses else 1.0
        built.epoch_end({"score": 0.5, "train_loss": loss, "val_loss": loss})
    return seen


def _published(
    scheduler: Any,
    optimizer: torch.optim.Optimizer,
    *,
    per: str,
    epochs: int,
    losses: list[float] | None = None,
    steps: int = STEPS,
) -> list[tuple[float, float]]:
    """The same with torch, stepped after each 'batch' or 'epoch'; a scheduler of None is never stepped."""
    seen = []
    for epoch in range(epochs):
        for index in range(steps):
            seen.append(_now(optimizer))
            optimizer.step()
            is_last = epoch == epochs - 1 and index == steps - 1
            if scheduler and per == "batch" and not is_last:  # OneCycleLR refuses the step after the last one
                scheduler.step()
        if scheduler and per == "epoch":
            scheduler.step(*([losses[epoch]] if losses else []))
    return seen


def _is_same(found: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    """Whether rate and momentum agree at every step, to a billionth."""
    return len(found) == len(expected) and np.allclose(found, expected, rtol=1e-9, atol=0.0)


@pytest.mark.parametrize(("pct_start", "final_div"), [(0.3, 10_000.0), (0.25, 1_000.0)])
@pytest.mark.parametrize("epochs", [EPOCHS, 20])
@pytest.mark.parametrize("horizon", [20, 3])
def test_raguram_cycles_once(horizon: int, epochs: int, pct_start: float, final_div: float) -> None:
    """Per batch, linear, with the momentum against it; a shorter run sees the beginning, a longer one stays.

    The full run and the loss experiments differ in where the peak lies and how far the rate falls.
    """
    onecycle = ONECYCLE.model_copy(update={"pct_start": pct_start, "final_div": final_div})
    policy = RAGURAM.model_copy(update={"horizon_epochs": horizon, "onecycle": onecycle})
    optimizer = _sgd(0.5)
    scheduler = lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.5,
        epochs=horizon,
        steps_per_epoch=STEPS,
        pct_start=pct_start,
        anneal_strategy="linear",
        div_factor=25.0,
        final_div_factor=final_div,
    )
    expected = _published(scheduler, optimizer, per="batch", epochs=min(epochs, horizon))
    expected += [expected[-1]] * (epochs - min(epochs, horizon)) * STEPS
    assert _is_same(_found(policy, 0.5, epochs=epochs), expected)


@pytest.mark.parametrize("epochs", [EPOCHS, 340])
def test_divyansh_holds_before_watching_the_plateau(epochs: int) -> None:
    """The mask's rate stays for 300 of 400 epochs; then five without a lower training loss end in a tenth of it."""
    losses = [1.0] * 305 + [0.9 - epoch // 8 * 0.1 for epoch in range(35)]
    optimizer = _sgd(0.01)
    expected = _published(None, optimizer, per="epoch", epochs=min(epochs, 300), steps=1)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5)
    expected += _published(scheduler, optimizer, per="epoch", losses=losses[300:], epochs=max(0, epochs - 300), steps=1)
    found = _found(DIVYANSH_MASK, 0.01, losses=losses, epochs=epochs, steps=1)
    assert _is_same(found, expected)
    assert len({lr for lr, _ in found}) == (1 if epochs == EPOCHS else 5)


@pytest.mark.parametrize("scale", [0.9999, 0.99991, 0.99989])
def test_divyansh_compares_the_training_loss_relatively(scale: float) -> None:
    """A loss is lower from a ten-thousandth of the best on, as torch has it, in a run whose hold is two epochs."""
    losses = [7.0, 3.0, 5.0, *(5.0 * scale**fall for fall in range(1, 6))]
    policy = DIVYANSH_MASK.model_copy(
        update={
            "horizon_epochs": 8,
            "hold": 0.25,
            "plateau": DIVYANSH_MASK.plateau.model_copy(update={"patience": 0.0}),
        }
    )
    optimizer = _sgd(0.01)
    expected = _published(None, optimizer, per="epoch", epochs=2)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
    expected += _published(scheduler, optimizer, per="epoch", losses=losses[2:], epochs=6)
    assert _is_same(_found(policy, 0.01, losses=losses, epochs=8), expected)


@pytest.mark.parametrize(("horizon", "hold", "every"), [(300, 150, 50), (12, 6, 2), (3, 1, 1)])
@pytest.mark.parametrize("epochs", [EPOCHS, 300])
def test_divyansh_holds_before_the_steps(horizon: int, hold: int, every: int, epochs: int) -> None:
    """The depth's rate stays for 150 of 300 epochs, then falls to a tenth every 50; a shorter horizon shows it."""
    policy = DIVYANSH_DEPTH
    if horizon != 300:
        step = StepPolicy(every=every / horizon, factor=0.1)
        policy = policy.model_copy(update={"horizon_epochs": horizon, "hold": hold / horizon, "step": step})
    optimizer = _sgd(0.01)
    expected = _published(None, optimizer, per="epoch", epochs=min(epochs, hold), steps=1)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=every, gamma=0.1)
    expected += _published(scheduler, optimizer, per="epoch", epochs=max(0, epochs - hold), steps=1)
    assert _is_same(_found(policy, 0.01, epochs=epochs, steps=1), expected)


@pytest.mark.parametrize("epochs", [EPOCHS, 40])
def test_birender_cycles_by_epochs(epochs: int) -> None:
    """Eight epochs up and eight down, constant within an epoch, the momentum against it."""
    optimizer = _sgd(1e-4)
    scheduler = lr_scheduler.CyclicLR(optimizer, base_lr=1e-4, max_lr=0.01, step_size_up=8, mode="triangular2")
    expected = _published(scheduler, optimizer, per="epoch", epochs=epochs)
    assert _is_same(_found(BIRENDER_EPOCHS, 0.01, epochs=epochs), expected)


@pytest.mark.parametrize("steps", [STEPS, 1_900])
def test_birender_cycles_by_batches(steps: int) -> None:
    """Two thousand batches up and as many down, however many an epoch has here."""
    optimizer = _sgd(1e-4)
    scheduler = lr_scheduler.CyclicLR(optimizer, base_lr=1e-4, max_lr=0.01, step_size_up=2_000, mode="triangular2")
    expected = _published(scheduler, optimizer, per="batch", epochs=EPOCHS, steps=steps)
    assert _is_same(_found(BIRENDER_BATCHES, 0.01, epochs=EPOCHS, steps=steps), expected)


def _both(cadence: str, *, size: int, losses: list[float], steps: int) -> list[tuple[float, float]]:
    """Learning rate and momentum of every step by torch's two schedulers on one optimizer, as published.

    `CyclicLR` is stepped after every batch or epoch, then `ReduceLROnPlateau` after every epoch's test.
    """
    optimizer = _sgd(1e-4)
    cycle = lr_scheduler.CyclicLR(optimizer, base_lr=1e-4, max_lr=0.01, step_size_up=size, mode="triangular2")
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=5, threshold=0.001)
    seen = []
    for loss in losses:
        for _ in range(steps):
            seen.append(_now(optimizer))
            optimizer.step()
            if cadence == "batch":
                cycle.step()
        if cadence == "epoch":
            cycle.step()
        plateau.step(loss)
    return seen


@pytest.mark.parametrize(
    "losses",
    [FLAT_AFTER_14, [1.0] * 40, [1.0 / (1 + epoch) for epoch in range(40)], [0.9992**epoch for epoch in range(40)]],
    ids=["flat after 14", "flat", "falling", "falling by less than the threshold"],
)
def test_birender_drops_the_rate_for_a_whole_epoch(losses: list[float]) -> None:
    """At epoch cadence, a drop of the plateau rule lasts until the cycle sets the rate an epoch later."""
    policy = load_recipe("birender-cnn", faithful=True).config.policy
    expected = _both("epoch", size=8, losses=losses, steps=STEPS)
    assert _is_same(_found(policy, 0.01, epochs=40, losses=losses), expected)


def test_birender_drops_the_rate_before_the_published_epochs() -> None:
    """With a test loss that is flat after epoch 14; the corrected recipe does not drop it at all."""
    faithful, corrected = (
        _found(load_recipe("birender-cnn", faithful=on).config.policy, 0.01, epochs=40, losses=FLAT_AFTER_14, steps=1)
        for on in (True, False)
    )
    ratios = [low / high for (low, _), (high, _) in zip(faithful, corrected, strict=True)]
    assert [epoch for epoch, ratio in enumerate(ratios, start=1) if ratio < 1] == [21, 27, 33, 39]
    assert {round(ratio, 9) for ratio in ratios} == {0.1, 1.0}
    assert _is_same(corrected, _found(BIRENDER_EPOCHS, 0.01, epochs=40, steps=1))


@pytest.mark.slow
def test_birender_drops_the_rate_for_a_single_batch() -> None:
    """At batch cadence, in epochs of the published 8,750 batches: the cycle sets the rate at the next one."""
    policy = load_recipe("birender-resnet", faithful=True).config.policy
    losses = [1.0] * 8
    expected = _both("batch", size=2_000, losses=losses, steps=8_750)
    found = _found(policy, 0.01, epochs=8, losses=losses, steps=8_750)
    assert _is_same(found, expected)
    corrected, dropped = build_policy(BIRENDER_BATCHES, steps_of_epochs=[8_750] * 8), 7 * 8_750
    ratios = [found[step][0] / (0.01 * corrected.factor(step)) for step in range(dropped - 1, dropped + 2)]
    assert ratios == pytest.approx([1.0, 0.1, 1.0])


def test_ramana_never_steps() -> None:
    """Its scheduler was created but never stepped."""
    assert _is_same(_found(RAMANA, 1e-3, epochs=EPOCHS), _published(None, _sgd(1e-3), per="epoch", epochs=EPOCHS))


@pytest.mark.parametrize("epochs", [EPOCHS, 5])
def test_monimoyd_steps_every_second_epoch(epochs: int) -> None:
    """To a tenth, in a run of five epochs or of three."""
    optimizer = _sgd(0.01)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    expected = _published(scheduler, optimizer, per="epoch", epochs=epochs)
    assert _is_same(_found(MONIMOYD, 0.01, epochs=epochs), expected)


def test_recipes_hold_the_policies_that_are_compared_here() -> None:
    """Another number in a recipe file would otherwise go unnoticed."""
    pair = load_recipe("divyansh-pair", faithful=True).config
    assert (pair.policy, pair.depth_policy) == (DIVYANSH_MASK, DIVYANSH_DEPTH)
    assert (
        load_recipe("birender-cnn-v1", faithful=True).config.policy
        == load_recipe("birender-resnet", faithful=True).config.policy
    )
    found = {
        name: load_recipe(name).config.policy
        for name in (
            "raguram-resunet",
            "birender-cnn",
            "birender-cnn-v1",
            "birender-resnet",
            "ramana-dnn",
            "monimoyd-unet",
        )
    }
    assert found == {
        "raguram-resunet": RAGURAM.model_copy(update={"horizon_epochs": 3}),
        "birender-cnn": BIRENDER_EPOCHS,
        "birender-cnn-v1": BIRENDER_BATCHES,
        "birender-resnet": BIRENDER_BATCHES,
        "ramana-dnn": RAMANA,
        "monimoyd-unet": MONIMOYD,
    }


@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_a_run_beyond_its_horizon_stays_at_the_end(name: str) -> None:
    """A curve ends at its horizon, and is constant afterwards."""
    policy = build_policy(_policy(name=name, horizon_epochs=2), steps_of_epochs=[STEPS] * 4)
    last = policy.factor(2 * STEPS - 1)
    assert [policy.factor(step) for step in range(2 * STEPS, 4 * STEPS)] == [last] * 2 * STEPS


@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_finite_curve_is_shortened_by_the_hold(name: str) -> None:
    """It ends where the horizon does: eight of twelve steps, of which torch is given as many."""
    optimizer = _sgd(0.1)
    scheduler: lr_scheduler.LRScheduler
    if name == "onecycle":
        scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=8, final_div_factor=1000.0)
        start = (0.1, 0.95)  # the momentum that the rule begins with
    else:
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
        start = (0.1, MOMENTUM)
    expected = [start] * 4 + _published(scheduler, optimizer, per="batch", epochs=2, steps=4)
    onecycle = {"pct_start": 0.3, "cycle_momentum": True}
    policy = _policy(name=name, horizon_epochs=3, hold=1 / 3, onecycle=onecycle)
    assert _is_same(_found(policy, 0.1, epochs=3, steps=4), expected)


@pytest.mark.parametrize("cadence", ["batch", "epoch"])
def test_cycle_starts_after_the_hold(cadence: str) -> None:
    """It starts at its floor; its length is a share of the whole horizon, not of the rest."""
    optimizer = _sgd(0.001)
    half = 2 if cadence == "epoch" else 2 * STEPS
    scheduler = lr_scheduler.CyclicLR(optimizer, base_lr=0.001, max_lr=0.1, step_size_up=half, mode="triangular2")
    expected = [(0.1, 0.9)] * 2 * STEPS + _published(scheduler, optimizer, per=cadence, epochs=8)
    cyclic = {"period": 0.4, "floor": 0.01, "cadence": cadence, "cycle_momentum": True}
    assert _is_same(_found(_policy(name="cyclic", hold=0.2, cyclic=cyclic), 0.1, epochs=10), expected)


def test_epochs_may_differ_in_length() -> None:
    """Small images come in larger batches, so their epochs have fewer steps but still count as one."""
    lengths = [2, 2, 5, 5]
    step = build_policy(_policy(name="step", step={"every": 0.5, "factor": 0.1}), steps_of_epochs=lengths)
    assert [step.factor(index) for index in range(14)] == pytest.approx([1.0] * 4 + [0.1] * 10)
    cyclic = {"period": 1.0, "floor": 0.5, "cadence": "epoch"}
    cycle = build_policy(_policy(name="cyclic", cyclic=cyclic), steps_of_epochs=lengths)
    assert [cycle.factor(index) for index in range(14)] == [0.5] * 2 + [0.75] * 2 + [1.0] * 5 + [0.75] * 5
    held = build_policy(_policy(name="step", hold=0.5, step={"every": 0.25, "factor": 0.1}), steps_of_epochs=lengths)
    assert [held.factor(index) for index in range(14)] == pytest.approx([1.0] * 9 + [0.1] * 5)


def test_epoch_based_policies_hold_whole_epochs() -> None:
    """The hold's share, a quarter of five epochs, ends within an epoch, in which the rate is to stay."""
    config = _policy(name="cyclic", hold=0.25, cyclic={"period": 0.8, "floor": 0.5, "cadence": "epoch"})
    policy = build_policy(config, steps_of_epochs=[3] * 5)
    rates = [1.0, 0.5, 0.75, 1.0, 0.75]
    assert [policy.factor(step) for step in range(15)] == [rate for rate in rates for _ in range(3)]


def test_a_horizon_of_batches_may_end_within_an_epoch() -> None:
    """Ten batches of epochs of four are two and a half epochs, and six tenths of those are one and a half: two."""
    policy = build_policy(
        _policy(name="step", horizon_batches=10, step={"every": 0.6, "factor": 0.5}), steps_of_epochs=[4] * 4
    )
    assert [policy.factor(step) for step in range(16)] == [1.0] * 8 + [0.5] * 8


@pytest.mark.parametrize("horizon", [{"horizon_epochs": 5}, {"horizon_batches": 19}])
def test_epochs_beyond_the_run_repeat_the_last(horizon: dict[str, int]) -> None:
    """The horizon of a run with short first epochs: 2 + 2 + 5 steps, and ten more that are never taken."""
    found = build_policy(_policy(name="cosine", **horizon), steps_of_epochs=[2, 2, 5])
    expected = build_policy(_policy(name="cosine"), steps_of_epochs=[19])
    assert [found.factor(step) for step in range(9)] == [expected.factor(step) for step in range(9)]


@pytest.mark.parametrize(("warmup", "hold"), [(0.5, 0.0), (0.0, 0.5), (0.5, 0.25)])
def test_momentum_is_constant_during_warmup_and_hold(warmup: float, hold: float) -> None:
    """Until then it is what the cycle begins with; it was made to go against a rate that is not cycled yet."""
    config = _policy(name="onecycle", warmup=warmup, hold=hold, onecycle={"cycle_momentum": True})
    policy = build_policy(config, steps_of_epochs=[STEPS] * 4)
    assert [policy.momentum(step) for step in range(10)] == [0.95] * 10
    assert policy.momentum(11) != 0.95


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_adam_cycles_its_first_beta(kind: type[torch.optim.Adam]) -> None:
    """That is its momentum."""
    optimizer = kind([torch.nn.Parameter(torch.zeros(1))], lr=0.1, betas=(0.9, 0.99))
    policy = build_policy(_policy(name="onecycle", onecycle={"cycle_momentum": True}), steps_of_epochs=[STEPS])
    policy.apply(optimizer.param_groups, 0)
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.99)
