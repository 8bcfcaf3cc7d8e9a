"""The training loop of a trial: load, step, evaluate, checkpoint, report.

It is handed its device, its place among the workers and a `report`, and asks nobody for them: the same loop runs inside
Ray, in a plain process under a debugger, and on a machine that has no Ray.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from data.loader import Loader
from data.schema import Batch
from trainable.config import TrialConfig
from trainable.loop.clock import Clock, forget_peaks, peaks
from trainable.loop.precision import autocast
from trainable.loop.state import Training, World
from trainable.loop.step import after_out_of_memory, train_step
from trainable.loss.dual_loss import DualLoss
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.pooled import MetricSums
from trainable.models.prediction import Prediction


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number: the trial ends, and its configuration is to be avoided."""


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What the loop tells its listener after each epoch."""

    epoch: int
    """Absolute: a resumed trial goes on counting."""
    metrics: dict[str, float]
    """The validation metrics (if there is a validation split), training losses, learning rate and seconds.

    Beside them: `time_PHASE`, the share of wall time since the last report that went into each phase of
    `trainable.clock`; `memory_host_gb` and `memory_device_gb`, the peaks since the start; `samples_per_second` of
    training alone; `micro_batches`, the pieces that a batch is computed in; and `threads`, of this process's torch.
    """
    save: Callable[[Path], None] | None
    """Writes a checkpoint into a directory; None when none is due after this epoch."""


Report = Callable[[EpochEnd], None]


def fit(
    training: Training,
    train: Sequence[Loader],
    val: Loader | None,
    *,
    world: World,
    report: Report,
    checkpoint_epochs: frozenset[int] = frozenset(),
) -> None:
    """Train from `training.epoch` to the end of the run, on each epoch's loader of `train`, and report every epoch.

    Where the loader changes, another stage of the run begins: the optimizer forgets what it has gathered. A checkpoint
    is due after the epochs in `checkpoint_epochs`, after the best epoch so far, and after the last one.

    Raises:
        NonFiniteLossError: at the first loss that is not finite.
    """
    config = training.config
    clock = Clock(world.device)
    forget_peaks(world.device)
    for epoch in range(training.epoch + 1, config.epochs + 1):
        if epoch > 1 and train[epoch - 1] is not train[epoch - 2]:
            training.optimizer.state.clear()
        metrics = train_epoch(training, train, epoch, world, clock)
        if val is not None:
            with clock.during("evaluation"):
                metrics |= evaluate(training.model, val, config, world, loss=_watched_loss(training))
        metrics |= _spent(clock, world, samples=len(train[epoch - 1].split))
        due = _end_epoch(training, epoch, metrics) or epoch in checkpoint_epochs or epoch == config.epochs
        save = functools.partial(training.save, metrics=metrics) if due else None
        with clock.during("checkpoint"):
            report(EpochEnd(epoch=epoch, metrics=metrics, save=save))


def train_epoch(
    training: Training, train: Sequence[Loader], epoch: int, world: World, clock: Clock
) -> dict[str, float]:
    """One pass over the training split; the mean of each loss over its samples, and the last learning rate."""
    loader, steps_before = train[epoch - 1], sum(len(earlier) for earlier in train[: epoch - 1])
    training.model.train()
    means = _Means(training, world, epoch)
    for index, batch in enumerate(_timed(loader.epoch(epoch), clock)):
        step = steps_before + index
        means.add(train_step(training, batch, step, world, clock), len(batch), step)
    return {f"train_{name}": mean for name, mean in means.compute().items()} | {
        "lr": float(training.optimizer.param_groups[0]["lr"]),
        "micro_batches": training.micro_batches,
    }


class _Means:
    """Means of the losses of an epoch, gathered where they lie: nothing waits for the device.

    Whether a loss is finite is looked at one step later, when it has long been known.
    """

    def __init__(self, training: Training, world: World, epoch: int) -> None:
        self._training, self._world, self._epoch = training, world, epoch
        self._sums: dict[str, torch.Tensor] = {}
        self._samples = 0
        self._unseen: tuple[torch.Tensor, int] | None = None

    def add(self, losses: Mapping[str, torch.Tensor], samples: int, step: int) -> None:
        """Take the losses of a step.

        Raises:
            NonFiniteLossError: if the loss of the step before was not finite.
        """
        self._look()
        self._unseen = self._world.sum(losses["loss"].clone()), step
        self._samples += samples
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * samples

    def compute(self) -> dict[str, float]:
        """The means over all workers' samples.

        Raises:
            NonFiniteLossError: if the last loss was not finite.
        """
        self._look()
        names = sorted(self._sums)
        count = torch.tensor(self._samples, dtype=torch.float64, device=self._world.device)
        totals = self._world.sum(torch.stack([*(self._sums[name].double() for name in names), count]))
        return dict(zip(names, (totals[:-1] / totals[-1]).tolist(), strict=True))

    def _look(self) -> None:
        if self._unseen is None:
            return
        loss, step = self._unseen[0].item(), self._unseen[1]
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss became {loss} at step {step} (epoch {self._epoch}) with {_decisive(self._training.config)}; "
                "lower optimizer.lr or optimizer.clip_norm."
            )


def _decisive(config: TrialConfig) -> str:
    """What of a configuration makes a training diverge, as dotted keys and values; the study has all of it."""
    weights = {
        f"loss.{head}.{name}": weight
        for head in ("mask", "depth")
        for name, weight in getattr(config.loss, head).model_dump().items()
        if weight
    }
    optimizer = {f"optimizer.{name}": getattr(config.optimizer, name) for name in ("name", "lr", "clip_norm")}
    named = optimizer | {"policy.name": config.policy.name} | weights
    texts = {key: f"{value:g}" if isinstance(value, float) else value for key, value in named.items()}
    return ", ".join(f"{key} {text}" for key, text in texts.items())


def _timed(batches: Iterator[Batch], clock: Clock) -> Iterator[Batch]:
    """`batches`, with the wait for each of them told to the clock."""
    while True:
        with clock.during("data"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _spent(clock: Clock, world: World, *, samples: int) -> dict[str, float]:
    """Time and memory of an epoch, as metrics; `samples` were trained on, over all workers."""
    seconds, shares = clock.read()
    trained = seconds * max(1 - shares["evaluation"] - shares["checkpoint"], 1e-9)
    return {
        **{f"time_{phase}": share for phase, share in shares.items()},
        **{f"memory_{where}_gb": gigabytes for where, gigabytes in peaks(world.device).items()},
        "samples_per_second": samples / trained,
        "train_seconds": trained,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
    }


def _watched_loss(training: Training) -> DualLoss | None:
    """The loss, where a policy watches it on the validation split."""
    policies = (training.config.policy, training.config.depth_policy)
    return training.loss if any(policy and policy.watched == "val_loss" for policy in policies) else None


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Loader, config: TrialConfig, world: World, *, loss: DualLoss | None = None
) -> dict[str, float]:
    """The metrics of `model`, pooled over the whole split and all workers.

    Out of memory, it begins again with batches of half the size.

    Args:
        model: takes a batch's inputs, and returns a `Prediction`.
        loader: of the split.
        config: of the trial.
        world: the device, and the worker's place among the others.
        loss: adds its mean over the samples, as 'val_loss'.

    Raises:
        torch.OutOfMemoryError: if there are several workers, or a single sample is too much.
    """
    model.eval()
    while True:
        try:
            sums, losses = MetricSums(world.device), torch.zeros(2, dtype=torch.float64, device=world.device)
            for batch in loader.epoch(0):
                with autocast(config.model, batch.bg.device):
                    prediction: Prediction = model(*batch.inputs())
                sums.update(prediction, batch.mask, batch.depth)
                if loss is not None:
                    total, _ = loss(prediction, *batch.targets())
                    losses += torch.stack([total.double() * len(batch), torch.full_like(losses[0], len(batch))])
            break
        except torch.OutOfMemoryError:
            if world.size > 1 or loader.batch_size == 1:
                raise
        loader = replace(loader, batch_size=loader.batch_size // 2)
        after_out_of_memory(
            f"Evaluation ran out of memory; it goes on with batches of {loader.batch_size} samples.", world.device
        )
    sums.load(world.sum(sums.state()))
    if loss is None:
        return sums.compute()
    total, samples = world.sum(losses).tolist()
    return sums.compute() | {"val_loss": total / samples}


def _end_epoch(training: Training, epoch: int, metrics: dict[str, Any]) -> bool:
    """Book the epoch; True if it is the best so far."""
    training.epoch = epoch
    score = float(metrics.get(OBJECTIVE, math.nan))
    for policy in training.policies:
        policy.epoch_end(metrics)
    if score > training.best_score:
        training.best_score, training.best_epoch = score, epoch
        return True
    return False
