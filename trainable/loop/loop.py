"""The training loop of a trial: load, step, evaluate, checkpoint, report.

Its distributed context and its `report` callback are arguments, so that the same loop runs inside Ray, in a plain
process under a debugger, and on a machine without Ray.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from data.loader import Loader
from data.schema import Batch
from trainable.config import TrialConfig
from trainable.loop.clock import Clock, peaks, reset_peaks
from trainable.loop.memory import in_batches_that_fit
from trainable.loop.precision import autocast
from trainable.loop.state import DistributedContext, Training
from trainable.loop.step import train_step
from trainable.loss.dual_loss import DualLoss
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.objective import SCORE, Objective
from trainable.metrics.pooled import MetricSums
from trainable.models.prediction import Prediction

MAX_CHECKPOINT_SHARE = 0.1
"""Share of the time of a trial above which every second epoch may go without a checkpoint."""


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or NaN. The trial ends, and the search avoids its configuration.

    Args:
        message: what happened, with the settings that decide it.
        epoch: epoch of the trial, also after a resume.
    """

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message)
        self.epoch = epoch

    def __reduce__(self) -> tuple[type[NonFiniteLossError], tuple[str, int]]:
        """Pickle the arguments, because the constructor takes more than the message."""
        return NonFiniteLossError, (str(self), self.epoch)


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """The argument of the `report` callback after each epoch."""

    epoch: int
    """Counted from the first epoch of the trial, also after a resume."""
    metrics: dict[str, float]
    """The validation metrics (if there is a validation split), training losses, learning rate and seconds.

    Also: `time_PHASE`, the share of wall time since the last report in each phase of `trainable.loop.clock`;
    `memory_host_gb` and `memory_device_gb`, the peaks since the start; `samples_per_second` of the training without
    evaluation; `micro_batches` per batch; `threads` of torch in this process; and the number of `workers`.
    """
    save: Callable[[Path], None] | None
    """Writes a checkpoint into a directory; None if no checkpoint is due after this epoch."""


Report = Callable[[EpochEnd], None]


def fit(
    training: Training,
    train: Sequence[Loader],
    val: Loader | None,
    *,
    context: DistributedContext,
    report: Report,
    checkpoint_epochs: frozenset[int] = frozenset(),
    objective: Objective = SCORE,
) -> None:
    """Train from `training.epoch` to the last epoch, with one loader of `train` per epoch, and report every epoch.

    A change of the loader starts another stage of the run, and resets the state of the optimizer. A checkpoint is due
    after the epochs in `checkpoint_epochs`, after each new best epoch by `objective`, after the last one, and after the
    others as `_CheckpointPace` decides.

    Raises:
        NonFiniteLossError: at the first loss that is not finite.
    """
    config = training.config
    clock, pace = Clock(context.device), _CheckpointPace()
    reset_peaks(context.device)
    for epoch in range(training.epoch + 1, config.epochs + 1):
        if epoch > 1 and train[epoch - 1] is not train[epoch - 2]:
            training.optimizer.state.clear()
        metrics = train_epoch(training, train, epoch, context, clock)
        if val is not None:
            with clock.during("evaluation"):
                measured = evaluate(training.model, val, config, context, loss=_watched_loss(training))
            metrics |= objective.with_value(measured)
        metrics |= _time_and_memory(clock, context, samples=len(train[epoch - 1].split))
        due = _end_epoch(training, epoch, metrics, objective) or epoch in checkpoint_epochs or epoch == config.epochs
        save = functools.partial(training.save, metrics=metrics) if due or pace.is_due() else None
        started = time.perf_counter()
        with clock.during("checkpoint"):
            report(EpochEnd(epoch=epoch, metrics=metrics, save=save))
        pace.add(time.perf_counter() - started if save else None)


class _CheckpointPace:
    """Decides after which epochs a checkpoint is due that nothing else needs: for a process that dies.

    After each epoch; but while reports with a checkpoint take more than `MAX_CHECKPOINT_SHARE` of the time, after every
    second one. So a trial whose process dies repeats at most one epoch that it had completed.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds = 0.0
        self._was_skipped = False

    def is_due(self) -> bool:
        """Whether a checkpoint is due after this epoch."""
        return self._was_skipped or self._seconds <= MAX_CHECKPOINT_SHARE * (time.perf_counter() - self._started)

    def add(self, seconds: float | None) -> None:
        """Add the time of a report with a checkpoint; None for a report without one."""
        self._was_skipped = seconds is None
        self._seconds += seconds or 0.0


def train_epoch(
    training: Training, train: Sequence[Loader], epoch: int, context: DistributedContext, clock: Clock
) -> dict[str, float]:
    """Train on one pass over the training split; return the mean of each loss and the last learning rate.

    The random numbers of the network, such as the masks of dropout, depend on (seed, epoch, rank) alone, so that a
    resumed training has those of an uninterrupted one, and each worker has its own.
    """
    torch.manual_seed(_seed_of_epoch(training.config.seed, epoch, context.rank))
    loader, steps_before = train[epoch - 1], sum(len(earlier) for earlier in train[: epoch - 1])
    training.model.train()
    means = _LossMeans(training, context, epoch)
    for index, batch in enumerate(_timed_batches(loader.epoch(epoch), clock)):
        step = steps_before + index
        means.add(train_step(training, batch, step, context, clock), len(batch), step)
    return {f"train_{name}": mean for name, mean in means.compute().items()} | {
        "lr": float(training.optimizer.param_groups[0]["lr"]),
        "micro_batches": training.micro_batches,
    }


def _seed_of_epoch(*key: int) -> int:
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


class _LossMeans:
    """Means of the losses of an epoch, accumulated on the device.

    Each loss is checked for finiteness one step later, so that the device has a step to do while the host waits.
    """

    def __init__(self, training: Training, context: DistributedContext, epoch: int) -> None:
        self._training, self._context, self._epoch = training, context, epoch
        self._sums: dict[str, torch.Tensor] = {}
        self._samples = 0
        self._unchecked: tuple[torch.Tensor, torch.cuda.Event | None, int] | None = None

    def add(self, losses: Mapping[str, torch.Tensor], samples: int, step: int) -> None:
        """Add the losses of a step.

        Raises:
            NonFiniteLossError: if the loss of the previous step was not finite.
        """
        self._check_finite()
        # item() of a tensor on the device would wait for this step too, which is queued before it.
        loss = self._context.all_reduce(losses["loss"].clone()).to("cpu", non_blocking=True)
        self._unchecked = loss, _event_after_work(self._context.device), step
        self._samples += samples
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value * samples

    def compute(self) -> dict[str, float]:
        """The means over all workers' samples.

        Raises:
            NonFiniteLossError: if the last loss was not finite.
        """
        self._check_finite()
        names = sorted(self._sums)
        count = torch.tensor(self._samples, dtype=torch.float64, device=self._context.device)
        totals = self._context.all_reduce(torch.stack([*(self._sums[name].double() for name in names), count]))
        return dict(zip(names, (totals[:-1] / totals[-1]).tolist(), strict=True))

    def _check_finite(self) -> None:
        if self._unchecked is None:
            return
        copied_loss, copied, step = self._unchecked
        if copied is not None:
            copied.synchronize()
        loss = copied_loss.item()
        if not math.isfinite(loss):
            settings = _key_settings(self._training.config)
            raise NonFiniteLossError(
                f"The loss became {loss} at step {step} (epoch {self._epoch}) with {settings}; "
                "lower optimizer.lr or optimizer.clip_norm.",
                self._epoch,
            )


def _event_after_work(device: torch.device) -> torch.cuda.Event | None:
    """An event after all work that a GPU has so far; None for a CPU, which has done it."""
    return torch.cuda.current_stream(device).record_event() if device.type == "cuda" else None


def _key_settings(config: TrialConfig) -> str:
    """The settings that decide whether a training diverges, as dotted keys and values."""
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


def _timed_batches(batches: Iterator[Batch], clock: Clock) -> Iterator[Batch]:
    """Yield `batches`, and count the wait for each as the phase 'data'."""
    while True:
        with clock.during("data"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _time_and_memory(clock: Clock, context: DistributedContext, *, samples: int) -> dict[str, float]:
    """Time and memory of an epoch as metrics. `samples` counts the training samples of all workers."""
    seconds, shares = clock.read()
    trained = seconds * max(1 - shares["evaluation"] - shares["checkpoint"], 1e-9)
    return {
        **{f"time_{phase}": share for phase, share in shares.items()},
        **{f"memory_{where}_gb": gigabytes for where, gigabytes in peaks(context.device).items()},
        "samples_per_second": samples / trained,
        "train_seconds": trained,
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "workers": context.world_size,
    }


def _watched_loss(training: Training) -> DualLoss | None:
    """The training loss, if a policy watches it on the validation split; else None."""
    policies = (training.config.policy, training.config.depth_policy)
    return training.loss if any(policy and policy.watched == "val_loss" for policy in policies) else None


@torch.no_grad()
def evaluate(
    model: nn.Module, loader: Loader, config: TrialConfig, context: DistributedContext, *, loss: DualLoss | None = None
) -> dict[str, float]:
    """Evaluate `model`: metrics pooled over the whole split and all workers.

    On an out-of-memory error, the evaluation starts over with half the batch size.

    Args:
        model: takes the `model_inputs` of a batch and returns a `Prediction`.
        loader: loader of the split.
        config: configuration of the trial.
        context: distributed context of this process.
        loss: a loss whose mean over the samples is added as 'val_loss'.

    Raises:
        torch.OutOfMemoryError: with several workers, or if a single sample does not fit.
    """
    model.eval()
    # Not a closure, which the traceback of an error would keep alive, and the model with it.
    sums, losses = in_batches_that_fit(loader, functools.partial(_measure, model, config, loss))
    sums.load(context.all_reduce(sums.state()))
    if loss is None:
        return sums.compute()
    total, samples = context.all_reduce(losses).tolist()
    return sums.compute() | {"val_loss": total / samples}


def _measure(
    model: nn.Module, config: TrialConfig, loss: DualLoss | None, loader: Loader
) -> tuple[MetricSums, torch.Tensor]:
    """The sums of the metrics over this worker's samples, and those of the loss and of the samples, (2,)."""
    sums, losses = MetricSums(loader.device), torch.zeros(2, dtype=torch.float64, device=loader.device)
    for batch in loader.epoch(0):
        with autocast(config.model, batch.bg.device):
            prediction: Prediction = model(*batch.model_inputs())
        regions = batch.regions()
        sums.update(prediction, batch.mask, batch.depth, *regions)
        if loss is not None:
            total, _ = loss(prediction, *batch.targets(), *regions)
            losses += torch.stack([total.double() * len(batch), torch.full_like(losses[0], len(batch))])
    return sums, losses


def _own_losses(training: Training, metrics: Mapping[str, float]) -> list[dict[str, float]]:
    """The training loss of each policy if mask network and depth network have their own; else nothing."""
    if len(training.policies) == 1:
        return [{}]
    parts = {name.removeprefix("train_"): value for name, value in metrics.items()}
    return [{"train_loss": loss} for loss in training.loss.of_heads(parts)]


def _end_epoch(training: Training, epoch: int, metrics: Mapping[str, float], objective: Objective) -> bool:
    """Record the epoch in `training`; True if it is the best so far."""
    training.epoch = epoch
    score = objective.rank(metrics)
    watched = {**metrics, **({OBJECTIVE: score} if objective.is_in(metrics) else {})}
    for policy, own in zip(training.policies, _own_losses(training, metrics), strict=True):
        policy.epoch_end({**watched, **own})
    if score > training.best_score:
        training.best_score, training.best_epoch = score, epoch
        return True
    return False
