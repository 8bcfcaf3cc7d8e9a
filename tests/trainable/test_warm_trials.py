"""An interrupted trial leaves no trace in its process: the next one has the same curve and all the memory."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from data.loader import Loader
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop import loop
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.state import DistributedContext, Training
from trainable.models.network import Network
from trainable.models.prediction import Prediction

ALONE = DistributedContext(device=torch.device("cpu"))
MEASURED = re.compile(r"second|^time_|^memory_")
Break = Callable[[pytest.MonkeyPatch], dict[str, Any]]
"""Makes the next trial fail; returns the changes to its configuration."""


def config(**sections: Any) -> TrialConfig:
    plain: dict[str, Any] = {
        "data": {"image_size": 16, "batch_size": 8, "augment": {"rotate": 5.0, "noise": 0.1}},
        "model": {"family": "resunet", "width": 2, "precision": "bf16"},
        "epochs": 2,
    }
    return build(TrialConfig, plain | sections, source="the test")


def curve(config: TrialConfig, data: TrialData, *, stopped: bool = False) -> list[dict[str, float]]:
    """The reported metrics without times and memory."""
    metrics: list[dict[str, float]] = []

    def report(end: EpochEnd, training: Training, val: Loader | None) -> None:
        metrics.append(end.metrics)
        if stopped:
            sys.exit(0)  # as Ray Tune does it

    with trial.releasing_memory(ALONE.device):
        trial.run(config, data, context=ALONE, report=report)
    return [{name: value for name, value in each.items() if not MEASURED.search(name)} for each in metrics]


def tensors() -> int:
    """The number of objects that are still referenced."""
    return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())


def in_an_epoch(error: Exception) -> Break:
    """The second step raises an error, in the middle of a backward pass."""

    def broken(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        step, steps = loop.train_step, []

        def train_step(*given: Any) -> dict[str, torch.Tensor]:
            steps.append(None)
            losses = step(*given)
            if len(steps) == 2:
                raise error
            return losses

        monkeypatch.setattr(loop, "train_step", train_step)
        return {}

    return broken


def out_of_memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Every piece of a batch is too large, down to a single sample."""

    def forward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Network, "forward", forward)
    return {}


def out_of_memory_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A single sample is too large for the evaluation, but not for a step."""
    forward = Network.forward

    def cramped(self: Network, *images: torch.Tensor) -> Prediction:
        if not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, *images)

    monkeypatch.setattr(Network, "forward", cramped)
    return {}


def diverging(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"optimizer": {"name": "sgd", "lr": 1e30, "clip_norm": 0.0}, "policy": {"name": "constant"}}


@pytest.mark.parametrize(
    ("broken", "error"),
    [
        (in_an_epoch(ValueError("a bug")), ValueError),
        (out_of_memory, torch.OutOfMemoryError),
        (out_of_memory_in_evaluation, torch.OutOfMemoryError),
        (diverging, NonFiniteLossError),
    ],
    ids=["bug", "memory", "evaluation", "diverged"],
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:(A batch of .*|Evaluation) ran out of memory")
def test_failed_trial_restores_global_state(
    trial_data: TrialData, monkeypatch: pytest.MonkeyPatch, broken: Break, error: type[Exception]
) -> None:
    """The next trial runs in the same process, while the error may still be referenced."""
    alone = curve(config(seed=1), trial_data)
    gc.collect()
    before = tensors()
    with monkeypatch.context() as patch, pytest.raises(error) as raised:
        curve(config(**broken(patch)), trial_data)
    left = tensors()

    assert left == before
    assert curve(config(seed=1), trial_data) == alone
    assert isinstance(raised.value, error)  # which is held until here


@pytest.mark.slow
def test_stopped_trial_restores_global_state(trial_data: TrialData) -> None:
    """Most trials of a search end this way."""
    alone = curve(config(seed=1), trial_data)
    gc.collect()
    before = tensors()
    with pytest.raises(SystemExit) as raised:
        curve(config(), trial_data, stopped=True)
    left = tensors()

    assert left == before
    assert curve(config(seed=1), trial_data) == alone
    assert raised.value.code == 0
