"""The learning-rate policies against torch's schedulers, step by step, and how they resume and replay."""

import json
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from data.errors import InputError
from trainable.config import OptimizerConfig
from trainable.config.policy import (
    CosinePolicy,
    CyclicPolicy,
    OneCyclePolicy,
    PlateauPolicy,
    PolicyConfig,
    StepPolicy,
)
from trainable.optim.optimizers import build_optimizer
from trainable.optim.policies import POLICIES
from trainable.optim.schedules import build_policy, build_replay

PEAK = 0.3
SCORES = [0.1, 0.3, 0.3004, 0.31, 0.31, 0.3, 0.29, math.nan, 0.2, 0.5, 0.4, 0.4]


def _optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)


def _rates(policy, *, steps_per_epoch, epochs, scores=None):
    """The learning rate of each step in an optimizer."""
    optimizer, rates = _optimizer(), []
    for epoch in range(epochs):
        for index in range(steps_per_epoch):
            policy.apply(optimizer.param_groups, epoch * steps_per_epoch + index)
            rates.append(optimizer.param_groups[0]["lr"])
        policy.epoch_end({"score": scores[epoch]} if scores else {})
    return rates


def _torch_rates(build, *, steps_per_epoch, epochs, per, scores=None):
    """The same with a scheduler of torch, stepped after each 'batch' or 'epoch'."""
    optimizer, rates = _optimizer(), []
    scheduler = build(optimizer)
    for epoch in range(epochs):
        for index in range(steps_per_epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            is_last = epoch == epochs - 1 and index == steps_per_epoch - 1
            if per == "batch" and not is_last:
                scheduler.step()
        if per == "epoch":
            scheduler.step(*([scores[epoch]] if scores else []))
    return rates


def _steps(*, steps_per_epoch, epochs):
    return [steps_per_epoch] * epochs


def _policy(config, length):
    return build_policy(config, steps_of_epochs=_steps(**length))


@pytest.mark.parametrize(("share", "every"), [(0.33, 4), (0.25, 3), (0.01, 1), (1.0, 12)])
def test_step_agrees_with_torch(share, every):
    """A share of the run is the same number of epochs for any batch size and number of workers."""
    length = {"steps_per_epoch": 4, "epochs": 12}
    config = PolicyConfig(name="step", step=StepPolicy(every=share, factor=0.3))
    expected = _torch_rates(
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=every, gamma=0.3), per="epoch", **length
    )
    assert _rates(_policy(config, length), **length) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("share", "patience"), [(0.0, 0), (0.1, 1), (0.17, 2), (0.3, 4)])
def test_plateau_agrees_with_torch(share, patience):
    """It lowers the rate after the patience; a change within the threshold or to NaN is no improvement."""
    length = {"steps_per_epoch": 3, "epochs": 12}
    plateau = PlateauPolicy(patience=share, factor=0.3, threshold=1e-3)
    expected = _torch_rates(
        lambda optimizer: lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", factor=0.3, patience=patience, threshold=1e-3, threshold_mode="abs"
        ),
        per="epoch",
        scores=SCORES,
        **length,
    )
    found = _rates(_policy(PolicyConfig(name="plateau", plateau=plateau), length), scores=SCORES, **length)
    assert found == pytest.approx(expected, rel=1e-12)
    assert len(set(found)) > 1


@pytest.mark.parametrize(("halve", "mode"), [(True, "triangular2"), (False, "triangular")])
@pytest.mark.parametrize(("period", "half"), [(0.2, 4), (0.33, 7), (1.0, 20), (0.001, 1)])
def test_cyclic_agrees_with_torch(halve, mode, period, half):
    """Triangles from the floor, whose length is a share of the run rounded to whole steps."""
    length = {"steps_per_epoch": 10, "epochs": 4}
    config = PolicyConfig(name="cyclic", cyclic=CyclicPolicy(period=period, floor=0.01, halve=halve))
    expected = _torch_rates(
        lambda optimizer: lr_scheduler.CyclicLR(
            optimizer, base_lr=0.01 * PEAK, max_lr=PEAK, step_size_up=half, mode=mode, cycle_momentum=False
        ),
        per="batch",
        **length,
    )
    assert _rates(_policy(config, length), **length) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(("steps_per_epoch", "epochs"), [(7, 4), (10, 3), (1, 1), (1, 2), (5, 1)])
@pytest.mark.parametrize("pct_start", [0.25, 0.3, 0.9])
def test_onecycle_agrees_with_torch(anneal, steps_per_epoch, epochs, pct_start):
    """The peak may lie between two steps, as in torch, down to runs of a single step."""
    length = {"steps_per_epoch": steps_per_epoch, "epochs": epochs}
    onecycle = OneCyclePolicy(pct_start=pct_start, div=25.0, final_div=1000.0, anneal=anneal)
    expected = _torch_rates(
        lambda optimizer: lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=PEAK,
            total_steps=steps_per_epoch * epochs,
            pct_start=pct_start,
            anneal_strategy=anneal,
            cycle_momentum=False,
            div_factor=25.0,
            final_div_factor=1000.0,
        ),
        per="batch",
        **length,
    )
    found = _rates(_policy(PolicyConfig(name="onecycle", onecycle=onecycle), length), **length)
    assert found == pytest.approx(expected, rel=1e-9)


def test_onecycle_starts_at_the_peak_when_its_rise_is_one_step():
    """Torch divides by zero here."""
    policy = build_policy(
        PolicyConfig(name="onecycle", onecycle=OneCyclePolicy(pct_start=0.25)), steps_of_epochs=[2] * 2
    )
    assert policy.factor(0) == 1.0
    assert [policy.factor(step) for step in range(4)] == sorted(map(policy.factor, range(4)), reverse=True)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_cosine_agrees_with_torch(floor):
    """It reaches its floor after the last step, so that no step is taken with a learning rate of 0."""
    length = {"steps_per_epoch": 7, "epochs": 4}
    expected = _torch_rates(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=28, eta_min=floor * PEAK),
        per="batch",
        **length,
    )
    found = _rates(_policy(PolicyConfig(name="cosine", cosine=CosinePolicy(floor=floor)), length), **length)
    assert found == pytest.approx(expected, rel=1e-9)


def test_constant_stays_at_the_peak():
    """The baseline of the other policies."""
    length = {"steps_per_epoch": 3, "epochs": 3}
    assert _rates(_policy(PolicyConfig(name="constant"), length), **length) == [PEAK] * 9


def test_warmup_agrees_with_torch():
    """Linear over the first share of the steps, multiplied by the factor of the policy."""
    length = {"steps_per_epoch": 5, "epochs": 4}

    def build(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / 7, end_factor=1.0, total_iters=6)
        cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
        return lr_scheduler.ChainedScheduler([warmup, cosine])

    found = _rates(_policy(PolicyConfig(name="cosine", warmup=0.3), length), **length)
    assert found == pytest.approx(_torch_rates(build, per="batch", **length), rel=1e-9)


@settings(max_examples=100, deadline=None)
@example(name="onecycle", warmup=0.0, hold=0.9, horizon={}, lengths=[2, 3])
@example(name="cosine", warmup=0.0, hold=0.9, horizon={"horizon_batches": 1}, lengths=[2, 3])
@given(
    name=st.sampled_from(sorted(POLICIES)),
    warmup=st.floats(0, 0.5),
    hold=st.floats(0, 0.99),
    horizon=st.one_of(
        st.just({}),
        st.builds(lambda count: {"horizon_epochs": count}, st.integers(1, 12)),
        st.builds(lambda count: {"horizon_batches": count}, st.integers(1, 60)),
    ),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=6),
)
def test_learning_rate_stays_positive_and_below_the_peak(name, warmup, hold, horizon, lengths):
    """For any length, down to one epoch of one step, and with a hold that leaves no step; constant after the run."""
    onecycle = OneCyclePolicy(cycle_momentum=True)
    cyclic = CyclicPolicy(cycle_momentum=True, plateau=PlateauPolicy(patience=0.0))
    config = PolicyConfig(name=name, warmup=warmup, hold=hold, onecycle=onecycle, cyclic=cyclic, **horizon)
    policy = build_policy(config, steps_of_epochs=lengths)
    steps = sum(lengths)
    assert all(0 < policy.factor(step) <= 1 for step in range(steps))
    assert policy.factor(steps) == policy.factor(10 * steps) == policy.factor(steps - 1)
    assert all(0.8 <= (policy.momentum(step) or 0.8) <= 0.95 for step in range(steps))


RESUMED = {
    **{name: PolicyConfig(name=name, warmup=0.2) for name in sorted(POLICIES)},
    "plateau on the training loss after a hold": PolicyConfig(
        name="plateau", hold=0.4, plateau=PlateauPolicy(patience=0.1, watch="train_loss")
    ),
    "cycle of the momentum": PolicyConfig(
        name="cyclic", hold=0.1, cyclic=CyclicPolicy(cadence="epoch", cycle_momentum=True)
    ),
    "cycle by epochs with a plateau rule beside it, interrupted after a drop": PolicyConfig(
        name="cyclic",
        hold=0.1,
        cyclic=CyclicPolicy(cadence="epoch", plateau=PlateauPolicy(patience=0.25, watch="train_loss")),
    ),
    "cycle by batches with a plateau rule beside it, interrupted before a drop": PolicyConfig(
        name="cyclic", cyclic=CyclicPolicy(plateau=PlateauPolicy(patience=0.6, watch="train_loss"))
    ),
    "one cycle of the momentum, interrupted in its hold": PolicyConfig(
        name="onecycle", hold=0.7, horizon_batches=40, onecycle=OneCyclePolicy(cycle_momentum=True)
    ),
}


@pytest.mark.parametrize("name", RESUMED)
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_resumed_run_continues_the_schedule(name, kind, tmp_path):
    """Via plain JSON values, into a new policy and a new optimizer with its own state."""
    lengths, losses = [2] * 4 + [4] * 8, [1.0] * 9 + [0.5, 0.5, 0.5]

    def begin():
        optimizer = build_optimizer([[torch.nn.Parameter(torch.zeros(1))]], OptimizerConfig(name=kind, lr=PEAK))
        return build_policy(RESUMED[name], steps_of_epochs=lengths), optimizer

    def train(policy, optimizer, epochs):
        group, seen = optimizer.param_groups[0], []
        for epoch in epochs:
            for index in range(lengths[epoch]):
                policy.apply(optimizer.param_groups, sum(lengths[:epoch]) + index)
                seen.append((group["lr"], group["betas"] if kind == "adam" else group["momentum"]))
            policy.epoch_end({"score": SCORES[epoch], "train_loss": losses[epoch]})
        return seen

    whole, optimizer = begin()
    expected = train(whole, optimizer, range(12))
    first, before = begin()
    train(first, before, range(7))
    torch.save({"policy": first.state_dict(), "optimizer": before.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second, after = begin()
    second.load_state_dict(state["policy"])
    after.load_state_dict(state["optimizer"])
    assert train(second, after, range(7, 12)) == expected[sum(lengths[:7]) :]
    assert second.history == whole.history
    assert json.loads(json.dumps(second.state_dict())) == whole.state_dict()


@pytest.mark.parametrize(
    ("cadence", "expected"),
    [("epoch", [0.75, 0.75, 0.5, 0.5, 0.75, 0.75]), ("batch", [0.75, 0.875, 0.5, 0.875, 0.75, 0.625])],
)
def test_a_drop_beside_a_cycle_lasts_until_the_cycle_sets_the_rate(cadence, expected):
    """That is one epoch or one batch; the peak, which the third epoch begins with, is halved here."""
    cyclic = CyclicPolicy(period=0.8, floor=0.5, cadence=cadence, plateau=PlateauPolicy(patience=0.0, factor=0.5))
    policy = build_policy(PolicyConfig(name="cyclic", cyclic=cyclic), steps_of_epochs=[2] * 5)
    for score in (0.5, 0.4):
        policy.epoch_end({"score": score})
    assert [policy.factor(step) for step in range(2, 8)] == pytest.approx(expected)


def test_history_holds_the_last_factor_of_each_epoch():
    """A retraining without validation split has no score to watch."""
    config = PolicyConfig(name="plateau", plateau=PlateauPolicy(patience=0.0, factor=0.5))
    policy = build_policy(config, steps_of_epochs=[2] * 4)
    returned = [policy.epoch_end({"score": score}) for score in (0.5, 0.4, 0.6, 0.6)]
    assert policy.history == returned == [1.0, 1.0, 0.5, 0.5]
    assert policy.factor(7) == 0.25


@pytest.mark.parametrize("horizon", [{}, {"horizon_epochs": 20}, {"horizon_batches": 30}])
def test_replay_repeats_the_learning_rates(horizon):
    """The history has no warm-up; it is passed again, with its horizon."""
    length = {"steps_per_epoch": 3, "epochs": 12}
    policy = _policy(PolicyConfig(name="plateau", warmup=0.25, hold=0.1, **horizon), length)
    expected = _rates(policy, scores=SCORES, **length)
    replay = build_replay(policy.history, PolicyConfig(warmup=0.25, **horizon), steps_of_epochs=_steps(**length))
    assert _rates(replay, **length) == expected
    assert replay.history == policy.history


@pytest.mark.parametrize(
    ("history", "epochs", "expected"),
    [
        ([1.0, 0.5, 0.25], 6, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]),
        ([1.0, 1.0, 0.5, 0.5], 2, [1.0, 0.5]),
        ([1.0, 0.5], 3, [1.0, 0.5, 0.5]),
        ([0.5], 4, [0.5] * 4),
    ],
)
def test_a_replay_of_another_length_is_stretched(history, epochs, expected):
    """The reduction is at the same share of the run; a tie goes to the later epoch."""
    replay = build_replay(history, PolicyConfig(), steps_of_epochs=[2] * epochs)
    assert [replay.factor(2 * epoch) for epoch in range(epochs)] == expected
    assert [replay.factor(2 * epoch + 1) for epoch in range(epochs)] == expected


@pytest.mark.parametrize("history", [[], [1.0, 0.0], [1.5]])
def test_invalid_history_is_refused(history):
    """A trial that stops in its first epoch has no history."""
    with pytest.raises(InputError, match=r"'history' is .* must be a factor in"):
        build_replay(history, PolicyConfig(), steps_of_epochs=[2] * 2)


def test_every_policy_of_the_configuration_has_its_rule():
    """A name without a rule would pass validation and fail at the start of the trial."""
    names = PolicyConfig.model_json_schema()["properties"]["name"]["enum"]
    assert set(names) == set(POLICIES)
