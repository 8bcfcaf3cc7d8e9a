"""Steps that do not fit into memory, and the time of steps by phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from data.schema import Batch
from tests.gpu.memory import Cramped
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.clock import PHASES, Clock, peaks, reset_peaks
from trainable.loop.loaders import evaluation_loader
from trainable.loop.loop import evaluate
from trainable.loop.state import DistributedContext, Training, start
from trainable.loop.step import train_step

ALONE = DistributedContext(device=torch.device("cpu"))


def config(**sections: object) -> TrialConfig:
    plain = {"family": "debug", "width": 4, "precision": "fp32"}
    small = {"data": {"image_size": 32, "batch_size": 8}, "model": plain, "optimizer": {"name": "sgd", "lr": 0.1}}
    return build(TrialConfig, small | sections, source="the test")


def batch(samples: int) -> Batch:
    draw = torch.Generator().manual_seed(1)
    images = [torch.randint(256, (samples, channels, 32, 32), generator=draw).byte() for channels in (3, 3, 1, 1)]
    return Batch(bg=images[0], fg_bg=images[1], mask=images[2], depth=images[3])


def training(most: int | None = None) -> Training:
    """A trial whose network supports at most `most` samples at once."""
    wrap: Callable[[nn.Module], nn.Module] = lambda network: Cramped(network, most) if most else network  # noqa: E731
    return start(config(), steps_of_epochs=[3], context=ALONE, data_fingerprint="0", wrap=wrap)


def weights(of: Training) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in of.network.parameters()])


def test_batch_too_large_for_memory_is_split() -> None:
    """The optimizer must see the same effective batch: otherwise a trial would depend on the device's memory."""
    whole, cramped = training(), training(most=3)
    clock = Clock(ALONE.device)
    expected = [train_step(whole, batch(8), step, ALONE, clock) for step in range(3)]
    with pytest.warns(RuntimeWarning, match="same effective batch") as said:
        found = [train_step(cramped, batch(8), step, ALONE, clock) for step in range(3)]

    assert cramped.micro_batches == 4
    assert len(said) == 2  # 8 to 4 to 2 at once; the steps after that know it
    torch.testing.assert_close(weights(cramped), weights(whole), rtol=1e-4, atol=1e-6)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours["loss"], theirs["loss"], rtol=1e-4, atol=1e-6)


def test_error_that_splitting_cannot_fix_is_raised() -> None:
    """If not even a single sample fits, the trial must end instead of halving for ever."""
    cramped = training(most=3)
    cramped.model = Cramped(cramped.network, 0)

    with pytest.warns(RuntimeWarning), pytest.raises(torch.OutOfMemoryError):
        train_step(cramped, batch(4), 0, ALONE, Clock(ALONE.device))


def test_evaluation_out_of_memory_continues_with_smaller_batches(trial_data: TrialData) -> None:
    """Evaluation batches are larger than training batches; running out of memory must not change the metrics."""
    chosen = config()
    network = training().network
    loader = evaluation_loader(chosen, trial_data, "val", ALONE)
    expected = evaluate(network, loader, chosen, ALONE)
    with pytest.warns(RuntimeWarning, match="Evaluation ran out of memory"):
        found = evaluate(Cramped(network, 2), loader, chosen, ALONE)

    assert found == pytest.approx(expected, rel=1e-5)


def test_the_shares_of_time_add_up() -> None:
    """The phases must add up to the whole time."""
    clock = Clock(ALONE.device)
    with clock.during("data"):
        time.sleep(0.02)
    with clock.during("forward"):
        time.sleep(0.01)
    wall, shares = clock.read()

    assert set(shares) == {*PHASES, "other"}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["data"] > shares["forward"] > shares["backward"] == 0
    assert wall >= 0.03
    assert clock.read()[1]["data"] == 0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_peak_memory_is_that_of_the_trial() -> None:
    """A process has many trials: the peak of a large one must not count for those after it."""
    large = torch.ones(60_000_000)
    reset_peaks(ALONE.device)
    before = peaks(ALONE.device)["host"]
    del large
    reset_peaks(ALONE.device)

    assert before - peaks(ALONE.device)["host"] > 0.15
