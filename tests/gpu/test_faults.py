"""Each check of correctness notices the fault that it is for, which is put into the code here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.augment.device import DeviceAugmenter
from data.composed.device import DeviceComposer
from data.schema import Batch
from tests.gpu import augmentation, composition, memory, networks
from tests.gpu.findings import MEASURED, OK
from tests.gpu.parts import PARTS
from tests.gpu.session import ON_CPU, Session
from trainable.loop.step import train_step
from trainable.models.network import Network

CPU = torch.device("cpu")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    yield Session(device=CPU, directory=tmp_path, ends=time.perf_counter() + 600)


@pytest.fixture
def one_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "WIDTHS", {"dmnet-cnn": 16})


def failed(session: Session, part: str) -> list[str]:
    """Run a part; the checks that failed."""
    session.part, session.group = part, PARTS[part].group
    PARTS[part].run(session)
    return [finding.check for finding in session.findings if finding.state == "FAILED"]


def change_first_gradient(monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Change the gradient of a float32 network's first weight, as a wrong kernel would."""
    build = networks.build_model

    def built(config: Any) -> Network:
        network = build(config)
        first = next(network.parameters())
        first.register_hook(lambda gradient: change(gradient) if gradient.dtype == torch.float32 else gradient)
        return network

    monkeypatch.setattr(networks, "build_model", built)


@pytest.mark.usefixtures("one_family")
def test_wrong_gradient_of_one_weight_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    change_first_gradient(monkeypatch, torch.zeros_like)
    assert failed(session, "families") == ["dmnet-cnn"]


@pytest.mark.usefixtures("one_family")
def test_gradient_that_is_not_finite_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    change_first_gradient(monkeypatch, lambda gradient: gradient * float("nan"))
    assert failed(session, "families") == ["dmnet-cnn"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_family")
def test_lower_precision_that_does_not_train_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of gradients are large in bf16: whether it trains is what matters."""
    monkeypatch.setattr(networks, "LOSS_SCALE", float("inf"))
    assert failed(session, "precision") == ["dmnet-cnn, fp16"]


def test_limits_refuse_a_gradient_of_zero() -> None:
    """Its relative error is 1."""
    for precision, limits in networks.TOLERANCES.items():
        assert limits.gradients is not None, precision
        assert limits.gradients < 0.9, precision
    for families in networks.SENSITIVE.values():
        assert families.keys() == networks.TOLERANCES.keys()


@pytest.mark.slow
def test_augmentation_that_is_a_pixel_off_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted(DeviceAugmenter):
        def __call__(self, batch: Batch, *key: int) -> Batch:
            changed = super().__call__(batch, *key)
            return replace(changed, mask=changed.mask.roll(1, dims=3))

    monkeypatch.setattr(augmentation, "DeviceAugmenter", Shifted)
    assert failed(session, "augmentation") == ["geometry is the CPU's", "colours are the CPU's"]


@pytest.mark.slow
def test_augmentation_that_ignores_its_key_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unseeded(DeviceAugmenter):
        def __call__(self, batch: Batch, *key: int) -> Batch:
            return super().__call__(batch, *key, time.perf_counter_ns())

    monkeypatch.setattr(augmentation, "DeviceAugmenter", Unseeded)
    assert "the same key gives the same images" in failed(session, "augmentation")


@pytest.mark.slow
def test_composition_that_is_two_levels_off_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bright(DeviceComposer):
        def __call__(self, rows: NDArray[np.int64]) -> Batch:
            batch = super().__call__(rows)
            return replace(batch, depth=batch.depth.clamp(max=253) + 2)

    monkeypatch.setattr(composition, "DeviceComposer", Bright)
    assert len(failed(session, "composition")) == 3


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four trials without a data set, for tests that replace what a trial does."""
    monkeypatch.setattr(memory, "TRIALS", 4)
    monkeypatch.setattr(memory, "_dataset", lambda _: None)


@pytest.mark.slow
@pytest.mark.usefixtures("few_trials")
def test_trials_that_leave_tensors_fail(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(memory.trial, "run", lambda *_, **__: kept.append(torch.ones(100_000)))
    assert failed(session, "trials") == ["memory after twenty trials"]
    assert "growth since the first 1.2 MB" in str(session.findings[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("few_trials")
def test_trials_that_leave_nothing_pass(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.trial, "run", lambda *_, **__: torch.ones(100_000).sum())
    assert failed(session, "trials") == []
    assert session.findings[-1].state == OK


@pytest.mark.slow
def test_batch_that_loses_samples_without_room_fails(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if out of memory were answered by leaving out what does not fit."""

    def step(training: Any, batch: Batch, *rest: Any) -> dict[str, torch.Tensor]:
        if isinstance(training.model, memory.Cramped):
            batch = batch.split(len(batch) // training.model.most)[0]
        return train_step(training, batch, *rest)

    monkeypatch.setattr(memory, "train_step", step)
    assert failed(session, "out-of-memory") == ["a training step without room"]


def test_goal_of_a_gpu_is_no_goal_of_a_cpu(session: Session) -> None:
    assert session.goal(3.0) is None
    assert session.sizes == ON_CPU
    session.add("a step", networks.Measure(name="times as fast", value=1.0, at_least=session.goal(3.0)))
    assert session.findings[-1].state == MEASURED
