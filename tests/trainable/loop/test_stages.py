"""Features that recipes need of the loop: stages, parts, and learned loss weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop import loop
from trainable.loop.clock import Clock
from trainable.loop.loaders import evaluation_loader, optimizer_steps, sample_count, training_loaders
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext, Training, start
from trainable.loop.step import train_step

ALONE = DistributedContext(device=torch.device("cpu"))


def config(**changes: Any) -> TrialConfig:
    """A tiny network at 32 px on 24 images; sections are merged with what is given."""
    values: dict[str, Any] = {
        "data": {"image_size": 32, "batch_size": 8, "augment": {"hflip": 0.0}},
        "model": {"family": "debug", "width": 4, "precision": "fp32"},
        "optimizer": {"name": "sgd", "lr": 0.02},
        "policy": {"name": "constant"},
    }
    for name, change in changes.items():
        values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
    return build(TrialConfig, values, source="the test")


def run(config: TrialConfig, data: TrialData) -> tuple[Training, list[EpochEnd]]:
    train, val = training_loaders(config, data, ALONE), evaluation_loader(config, data, "val", ALONE)
    training = start(
        config,
        steps_of_epochs=[len(loader) for loader in train],
        context=ALONE,
        data_fingerprint=data.fingerprint,
    )
    ends: list[EpochEnd] = []
    loop.fit(training, train, val, context=ALONE, report=ends.append)
    return training, ends


STAGES = [{"share": 1 / 3, "scale": 0.5, "batch_size": 4}, {"share": 1 / 3, "scale": 0.5}]


@pytest.mark.parametrize(
    ("epochs", "sides", "steps"),
    [
        (9, [16] * 6 + [32] * 3, [6] * 3 + [3] * 6),
        (3, [16, 16, 32], [6, 3, 3]),
        (2, [16, 32], [6, 3]),
        (1, [32], [3]),
    ],
)
def test_images_grow_over_the_run(trial_data: TrialData, epochs: int, sides: list[int], steps: list[int]) -> None:
    """Each stage has its share of the epochs, and the last epoch sees what the network is measured on."""
    loaders = training_loaders(
        config(data={"image_size": 32, "progression": STAGES, "batch_size": 8}, epochs=epochs), trial_data, ALONE
    )

    assert [next(loader.epoch(1)).bg.shape[-1] for loader in loaders] == sides
    assert [len(loader) for loader in loaders] == steps


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": {"batch_size": 7}},
        {"data": {"progression": STAGES}},
        {"data": {"progression": STAGES}, "optimizer": {"steps_per_batch": 3}},
    ],
)
def test_predicted_steps_equal_those_taken(trial_data: TrialData, changes: dict[str, Any]) -> None:
    """If the plan counted differently, it would warn of the wrong budgets."""
    chosen, taken = config(epochs=3, **changes), []
    hook = register_optimizer_step_post_hook(lambda *_: taken.append(1))
    try:
        run(chosen, trial_data)
    finally:
        hook.remove()

    assert len(taken) == optimizer_steps(chosen, sample_count(chosen.data, trial_data, "train"))


@pytest.mark.slow
def test_next_stage_keeps_weights_and_resets_the_optimizer(trial_data: TrialData) -> None:
    """Large images start with the weights of small ones; the momentum is reset."""
    chosen = config(data={"image_size": 32, "progression": STAGES[:1], "batch_size": 8}, epochs=3)
    seen: list[tuple[int, bool]] = []
    training, _ = run(chosen, trial_data)
    train = training_loaders(chosen, trial_data, ALONE)
    again = start(
        chosen,
        steps_of_epochs=[len(loader) for loader in train],
        context=ALONE,
        data_fingerprint=trial_data.fingerprint,
    )
    step = loop.train_step

    def watched(training: Training, *others: Any) -> Any:
        seen.append((others[0].bg.shape[-1], bool(training.optimizer.state)))
        return step(training, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", watched)
        loop.fit(again, train, None, context=ALONE, report=lambda _: None)

    fresh = [index for index, (_, has_state) in enumerate(seen) if not has_state]
    assert fresh == [0, 6]  # the first step of either stage
    assert [side for side, _ in seen] == [16] * 6 + [32] * 6
    for left, right in zip(training.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(left, right)


def test_two_networks_can_have_a_policy_each(trial_data: TrialData) -> None:
    """One published project trained mask and depth separately."""
    chosen = config(
        model={"family": "pair", "width": 2},
        policy={"name": "step", "step": {"every": 0.5, "factor": 0.5}},
        depth_policy={"name": "step", "step": {"every": 0.25, "factor": 0.1}},
        epochs=4,
    )
    training, _ = run(chosen, trial_data)

    assert [group["lr"] for group in training.optimizer.param_groups] == pytest.approx([0.02 * 0.5, 0.02 * 1e-3])
    networks = [set(map(id, network.parameters())) for network in training.network.body.networks()]
    assert [set(map(id, group["params"])) for group in training.optimizer.param_groups] == networks


def test_weights_of_losses_are_learned_and_kept(trial_data: TrialData, tmp_path: Any) -> None:
    """They are not part of the network, and must survive an interruption as well."""
    training, ends = run(config(loss={"combine": "uncertainty"}, epochs=3), trial_data)
    learned = [parameter.detach().clone() for parameter in training.loss.parameters()]

    assert len(learned) == 1
    assert (learned[0] != 0).all()
    assert training.optimizer.param_groups[-1]["weight_decay"] == 0
    assert ends[-1].save is not None
    ends[-1].save(tmp_path)
    other, _ = run(config(loss={"combine": "uncertainty"}, epochs=1, seed=1), trial_data)
    other.resume(tmp_path)
    assert torch.equal(next(other.loss.parameters()), learned[0])


def test_gradient_can_be_applied_twice(trial_data: TrialData) -> None:
    """A published program did so by mistake, where it meant its learning-rate policy."""
    plain = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 0.0}
    moved = []
    for steps in (1, 2):
        chosen = config(optimizer={**plain, "steps_per_batch": steps})
        train = training_loaders(chosen, trial_data, ALONE)
        training = start(chosen, steps_of_epochs=[3] * 9, context=ALONE, data_fingerprint="0")
        before = [parameter.detach().clone() for parameter in training.network.parameters()]
        train_step(training, next(train[0].epoch(1)), 0, ALONE, Clock(ALONE.device))
        after = training.network.parameters()
        moved.append(torch.cat([(new - old).flatten() for new, old in zip(after, before, strict=True)]))
    torch.testing.assert_close(moved[1], 2 * moved[0])


def test_a_penalty_is_part_of_the_loss(trial_data: TrialData) -> None:
    """It is minimised with the rest, and is part of the training loss."""
    _, plain = run(config(epochs=1, optimizer={"lr": 1e-9}), trial_data)
    training, penalised = run(config(epochs=1, optimizer={"lr": 1e-9}, loss={"norm_sum": 0.5}), trial_data)
    norms = sum(float(parameter.detach().norm()) for parameter in training.network.parameters())
    gap = penalised[0].metrics["train_loss"] - plain[0].metrics["train_loss"]
    assert gap == pytest.approx(0.5 * norms, rel=1e-4)


def test_evaluation_images_are_augmented_on_request_only(trial_data: TrialData) -> None:
    """A published program augmented its test images, in the same way every time."""
    plain, changed = (
        evaluation_loader(
            config(data={"augment": {"jitter": 0.9, "in_evaluation": asked}, "image_size": 32}),
            trial_data,
            "val",
            ALONE,
        )
        for asked in (False, True)
    )
    [before], [after], [again] = list(plain.epoch(0)), list(changed.epoch(0)), list(changed.epoch(0))
    assert not torch.equal(before.bg, after.bg)
    assert torch.equal(after.bg, again.bg)
