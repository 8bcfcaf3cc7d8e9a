"""The training loop of a trial: load, step, evaluate, checkpoint, report.

It is handed its device, its place among the workers and a `report`, and asks nobody for them: the same loop runs inside
Ray, in a plain process under a debugger, and on a machine that has no Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from data.loader import Loader
from data.schema import Batch
from trainable import checkpoint
from trainable.config import PolicyConfig, TrialConfig
from trainable.metrics import OBJECTIVE, MetricSums
from trainable.models import Network, build_model
from trainable.models.prediction import Prediction
from trainable.objective import DualLoss
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
    network: Network
    """The network itself, whose weights are saved."""
    model: nn.Module
    """What is called: the network, or what spreads it over the workers."""
    optimizer: torch.optim.Optimizer
    policies: list[Policy]
    """One for all of the network, or one for each of its parts that are trained apart."""
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
            "policies": [policy.state_dict() for policy in self.policies],
            "loss": self.loss.state_dict(),
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
        for policy, policy_state in zip(self.policies, state["policies"], strict=True):
            policy.load_state_dict(policy_state)
        self.loss.load_state_dict(state["loss"])
        self.epoch = state["epoch"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]


def start(
    config: TrialConfig,
    *,
    steps_of_epochs: Sequence[int],
    world: World,
    data_fingerprint: str,
    replay: list[float] | None = None,
    spread: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Training:
    """A trial before its first epoch.

    Args:
        config: what to train.
        steps_of_epochs: optimizer steps of each epoch.
        world: where this process stands.
        data_fingerprint: of the data set, for the checkpoints.
        replay: learning-rate factors of an earlier run, one an epoch, that take the place of a plateau of scores.
        spread: wraps the network for several workers.
    """
    torch.manual_seed(config.seed)
    network = build_model(config.model).to(world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loss = DualLoss(config.loss).to(world.device)
    apart = config.depth_policy is not None
    parts = network.parts() if apart else [list(network.parameters())]
    policies = [config.policy, config.depth_policy] if config.depth_policy is not None else [config.policy]
    return Training(
        config=config,
        network=network,
        model=spread(network),
        optimizer=build_optimizer(parts, config.optimizer, undecayed=list(loss.parameters())),
        policies=[_policy(policy, steps_of_epochs, replay) for policy in policies],
        loss=loss,
        data_fingerprint=data_fingerprint,
    )


def _policy(config: PolicyConfig, steps_of_epochs: Sequence[int], replay: list[float] | None) -> Policy:
    if replay is not None and config.name == "plateau" and config.plateau.watch == "score":
        return build_replay(
            replay,
            warmup=config.warmup,
            steps_of_epochs=steps_of_epochs,
            horizon_epochs=config.horizon_epochs,
            horizon_batches=config.horizon_batches,
        )
    return build_policy(config, steps_of_epochs=steps_of_epochs)


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
    for epoch in range(training.epoch + 1, config.epochs + 1):
        started = time.perf_counter()
        if epoch > 1 and train[epoch - 1] is not train[epoch - 2]:
            training.optimizer.state.clear()
        metrics = train_epoch(training, train, epoch, world)
        trained = time.perf_counter()
        if val is not None:
            metrics |= evaluate(training.model, val, config, world)
        metrics |= {"train_seconds": trained - started, "seconds": time.perf_counter() - started}
        due = _end_epoch(training, epoch, metrics) or epoch in checkpoint_epochs or epoch == config.epochs
        save = (lambda path, metrics=metrics: training.save(path, metrics)) if due else None
        report(EpochEnd(epoch=epoch, metrics=metrics, save=save))


def train_epoch(training: Training, train: Sequence[Loader], epoch: int, world: World) -> dict[str, float]:
    """One pass over the training split; the mean of each loss over its samples, and the last learning rate."""
    loader, steps_before = train[epoch - 1], sum(len(earlier) for earlier in train[: epoch - 1])
    training.model.train()
    sums: dict[str, torch.Tensor] = {}
    samples = 0
    for index, batch in enumerate(loader.epoch(epoch)):
        step = steps_before + index
        parts = train_step(training, batch, step, world)
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


def train_step(training: Training, batch: Batch, step: int, world: World) -> dict[str, torch.Tensor]:
    """Forward, loss, backward, clip, optimizer: `loss` and its unweighted parts, detached."""
    optimizer, config = training.optimizer, training.config.optimizer
    for policy, groups in zip(training.policies, _groups(training), strict=True):
        policy.apply(groups, step)
    prediction = _forward(training.model, batch, training.config)
    total, parts = training.loss(prediction, *batch.targets())
    penalised = total + training.loss.penalty(training.network)
    optimizer.zero_grad(set_to_none=True)
    penalised.backward()
    for weight in training.loss.parameters():  # nobody else adds up what is not the network's
        if weight.grad is not None:
            world.sum(weight.grad).div_(world.size)
    if config.clip_norm:
        clip_grad_norm_(training.network.parameters(), config.clip_norm)
    for _ in range(config.steps_per_batch):
        optimizer.step()
    return {"loss": penalised.detach()} | {name: part.detach() for name, part in parts.items()}


def _groups(training: Training) -> list[list[dict[str, Any]]]:
    """The optimizer's groups that each policy governs: its part of the network; the first, the loss's weights too."""
    first, *others = training.optimizer.param_groups
    parts = len(training.policies)
    return [[first, *others[parts - 1 :]], *([group] for group in others[: parts - 1])]


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
    for policy in training.policies:
        policy.epoch_end(metrics)
    if score > training.best_score:
        training.best_score, training.best_epoch = score, epoch
        return True
    return False
