"""The training loop of a trial: load, step, evaluate, checkpoint, report.

It is handed its device, its place among the workers and a `report`, and asks nobody for them: the same loop runs inside
Ray, in a plain process under a debugger, and on a machine that has no Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from data.loader import Loader
from data.schema import Batch
from trainable import checkpoint
from trainable.config import TrialConfig
from trainable.losses import DualLoss
from trainable.metrics import OBJECTIVE, MetricSums
from trainable.models import build_model
from trainable.models.prediction import Prediction
from trainable.optim import build_optimizer
from trainable.policies import Policy, build_policy, build_replay
from trainable.precision import autocast

T = TypeVar("T")


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number: the trial ends, and its configuration is to be avoided."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Where this process stands among the workers of its trial."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` added up over all workers, on every one of them."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def first(self, value: T) -> T:
        """What the first worker has, on every one of them."""
        if self.size > 1:
            shared = [value]
            torch.distributed.broadcast_object_list(shared, src=0, device=self.device)
            value = shared[0]
        return value


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """What the loop tells its listener after each epoch."""

    epoch: int
    """Absolute: a resumed trial goes on counting."""
    metrics: dict[str, float]
    """The validation metrics (if there is a validation split), training losses, learning rate and seconds."""
    save: Callable[[Path], None] | None
    """Writes a checkpoint into a directory; None when none is due after this epoch."""


Report = Callable[[EpochEnd], None]


@dataclass(kw_only=True)
class Training:
    """A trial between two epochs: all that a checkpoint has to bring back."""

    config: TrialConfig
    network: nn.Module
    """The network itself, whose weights are saved."""
    model: nn.Module
    """What is called: the network, or what spreads it over the workers."""
    optimizer: torch.optim.Optimizer
    policy: Policy
    loss: DualLoss
    data_fingerprint: str
    epoch: int = 0
    best_score: float = -math.inf
    best_epoch: int = 0

    def save(self, directory: Path, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint that `resume` goes on from."""
        origin = checkpoint.Origin(config=self.config, data_fingerprint=self.data_fingerprint, epoch=self.epoch)
        checkpoint.save(directory, self.network, origin, metrics)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "policy": self.policy.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
        }
        checkpoint.save_state(directory, state)

    def resume(self, directory: Path) -> None:
        """Go on from a checkpoint that `save` wrote.

        Raises:
            InputError: if it is not whole, or of another network.
        """
        checkpoint.load_weights(self.network, directory)
        state = checkpoint.load_state(directory)
        self.optimizer.load_state_dict(state["optimizer"])
        self.policy.load_state_dict(state["policy"])
        self.epoch = state["epoch"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]


def start(
    config: TrialConfig,
    *,
    steps_per_epoch: int,
    world: World,
    data_fingerprint: str,
    replay: list[float] | None = None,
    spread: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Training:
    """A trial before its first epoch.

    Args:
        config: what to train.
        steps_per_epoch: optimizer steps of an epoch.
        world: where this process stands.
        data_fingerprint: of the data set, for the checkpoints.
        replay: learning-rate factors of an earlier run, one an epoch, that take the place of a plateau policy.
        spread: wraps the network for several workers.
    """
    torch.manual_seed(config.seed)
    network = build_model(config.model).to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    schedule = {"steps_per_epoch": steps_per_epoch, "epochs": config.epochs}
    if replay is not None and config.policy.name == "plateau":
        policy = build_replay(replay, warmup=config.policy.warmup, **schedule)
    else:
        policy = build_policy(config.policy, **schedule)
    return Training(
        config=config,
        network=network,
        model=spread(network),
        optimizer=build_optimizer(network, config.optimizer),
        policy=policy,
        loss=DualLoss(config.loss),
        data_fingerprint=data_fingerprint,
    )


def fit(
    training: Training,
    train: Loader,
    val: Loader | None,
    *,
    world: World,
    report: Report,
    checkpoint_epochs: frozenset[int] = frozenset(),
) -> None:
    """Train from `training.epoch` to the end of the run, and report every epoch.

    A checkpoint is due after the epochs in `checkpoint_epochs`, after the best epoch so far, and after the last one.

    Raises:
        NonFiniteLossError: at the first loss that is not finite.
    """
    config = training.config
    for epoch in range(training.epoch + 1, config.epochs + 1):
        started = time.perf_counter()
        metrics = train_epoch(training, train, epoch, world)
        trained = time.perf_counter()
        if val is not None:
            metrics |= evaluate(training.model, val, config, world)
        metrics |= {"train_seconds": trained - started, "seconds": time.perf_counter() - started}
        due = _end_epoch(training, epoch, metrics) or epoch in checkpoint_epochs or epoch == config.epochs
        save = (lambda path, metrics=metrics: training.save(path, metrics)) if due else None
        report(EpochEnd(epoch=epoch, metrics=metrics, save=save))


def train_epoch(training: Training, loader: Loader, epoch: int, world: World) -> dict[str, float]:
    """One pass over the training split; the mean of each loss over its samples, and the last learning rate."""
    training.model.train()
    sums: dict[str, torch.Tensor] = {}
    samples = 0
    for index, batch in enumerate(loader.epoch(epoch)):
        step = (epoch - 1) * len(loader) + index
        parts = train_step(training, batch, step)
        if not math.isfinite(world.sum(parts["loss"].clone()).item()):
            raise NonFiniteLossError(
                f"The loss became {parts['loss'].item()} at step {step} (epoch {epoch}) with the configuration "
                f"{training.config.model_dump_json()}; lower optimizer.lr or optimizer.clip_norm."
            )
        samples += len(batch)
        for name, value in parts.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value * len(batch)
    names = sorted(sums)
    count = torch.tensor(samples, dtype=torch.float64, device=world.device)
    totals = world.sum(torch.stack([*(sums[name].double() for name in names), count]))
    means = (totals[:-1] / totals[-1]).tolist()
    return {f"train_{name}": mean for name, mean in zip(names, means, strict=True)} | {
        "lr": float(training.optimizer.param_groups[0]["lr"])
    }


def train_step(training: Training, batch: Batch, step: int) -> dict[str, torch.Tensor]:
    """Forward, loss, backward, clip, optimizer: `loss` and its unweighted parts, detached."""
    training.policy.apply(training.optimizer, step)
    prediction = _forward(training.model, batch, training.config)
    total, parts = training.loss(prediction, *batch.targets())
    training.optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if training.config.optimizer.clip_norm:
        clip_grad_norm_(training.network.parameters(), training.config.optimizer.clip_norm)
    training.optimizer.step()
    return {"loss": total.detach()} | {name: part.detach() for name, part in parts.items()}


@torch.no_grad()
def evaluate(model: nn.Module, loader: Loader, config: TrialConfig, world: World) -> dict[str, float]:
    """The metrics of `model`, pooled over the whole split and all workers."""
    model.eval()
    sums = MetricSums(world.device)
    for batch in loader.epoch(0):
        sums.update(_forward(model, batch, config), batch.mask, batch.depth)
    sums.load(world.sum(sums.state()))
    return sums.compute()


def _forward(model: nn.Module, batch: Batch, config: TrialConfig) -> Prediction:
    with autocast(config.model, batch.bg.device):
        prediction: Prediction = model(*batch.inputs())
    return prediction


def _end_epoch(training: Training, epoch: int, metrics: dict[str, Any]) -> bool:
    """Book the epoch; True if it is the best so far."""
    training.epoch = epoch
    score = float(metrics.get(OBJECTIVE, math.nan))
    training.policy.epoch_end(score)
    if score > training.best_score:
        training.best_score, training.best_epoch = score, epoch
        return True
    return False
