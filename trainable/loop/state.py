"""The state of a trial between two epochs, and the distributed context of its processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from data.errors import InputError
from trainable.config import PolicyConfig, TrialConfig
from trainable.loop import checkpoint
from trainable.loop.checkpoint_files import Origin
from trainable.loss.dual_loss import DualLoss
from trainable.models import Network, build_model
from trainable.optim.optimizers import build_optimizer
from trainable.optim.schedules import Policy, build_policy, build_replay

AVERAGED = 1 / 20
"""Share of a training's steps over which its weights are averaged, where no validation part picks an epoch."""

T = TypeVar("T")
Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def default_device() -> torch.device:
    """The GPU of this process; the CPU if there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def reserved_device(gpus: float) -> torch.device:
    """The device of a process that reserves so many GPUs: Ray leaves those of its node visible to one without any."""
    return default_device() if gpus else torch.device("cpu")


def device_named(name: str | None) -> torch.device:
    """The device of a name such as 'cpu' or 'cuda:1'; the default one for None.

    Raises:
        InputError: if this machine has no such device.
    """
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        has = "cpu" if default_device().type == "cpu" else f"cpu and cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        raise InputError(
            f"The value of '--device' is '{name}', but this machine has {has}; give one of them, or leave it out."
        ) from None
    return device


@dataclass(frozen=True, kw_only=True)
class DistributedContext:
    """Device and rank of this process among the workers of its trial."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """Sum `tensor` over all workers, in place on every worker."""
        if self.world_size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def broadcast(self, value: T) -> T:
        """The value of the worker with rank 0, on every worker."""
        if self.world_size > 1:
            shared = [value]
            torch.distributed.broadcast_object_list(shared, src=0, device=self.device)
            value = shared[0]
        return value


@dataclass(kw_only=True)
class Training:
    """The state of a trial between two epochs: everything that a checkpoint restores."""

    config: TrialConfig
    network: Network
    """The bare network, whose weights are saved."""
    model: nn.Module
    """The module to call: the network, or its wrapper for several workers."""
    optimizer: torch.optim.Optimizer
    policies: list[Policy]
    """One for the whole network, or one for each part with its own policy."""
    loss: DualLoss
    data_fingerprint: str
    average: AveragedModel | None = None
    """The moving average of the weights, which are the result in place of those of the last step; None for none."""
    epoch: int = 0
    best_score: float = -math.inf
    """Best value of the objective, oriented so that larger is better."""
    best_epoch: int = 0
    micro_batches: int = 1
    """Pieces of a batch that are computed one after the other; more than 1 after an out-of-memory error."""
    note: str = ""
    """Which checkpoints are damaged, and where the training resumed instead; '' if none is."""

    def save(self, directory: Path, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint for `resume`; that of the last epoch has the averaged weights, if there are any."""
        origin = Origin(config=self.config, data_fingerprint=self.data_fingerprint, epoch=self.epoch)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "policies": [policy.state_dict() for policy in self.policies],
            "loss": self.loss.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "micro_batches": self.micro_batches,
        }
        network: nn.Module = self.network
        if self.average is not None:
            state |= {"average": self.average.state_dict()}
            network = self.average.module if self.epoch == self.config.epochs else network
        checkpoint.save(directory, network, origin, metrics, state=state)

    def resume(self, directory: Path, *, world_size: int = 1) -> None:
        """Restore a checkpoint written by `save`.

        Args:
            directory: the checkpoint.
            world_size: number of workers; several do not split their batches.

        Raises:
            InputError: if it has no state or belongs to another network; the subclass DamagedCheckpointError if it is
                damaged. The training is then unchanged.
        """
        state = checkpoint.load_state(directory)
        checkpoint.load_weights(self.network, directory)
        peaks = [group["lr"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["initial_lr"] = peak  # that of the checkpoint was of another number of workers, if it is scaled
        for policy, policy_state in zip(self.policies, state["policies"], strict=True):
            policy.load_state_dict(policy_state)
        self.loss.load_state_dict(state["loss"])
        if self.average is not None and "average" in state:
            self.average.load_state_dict(state["average"])
        elif self.average is not None:  # earlier versions did not average
            self.average.module.load_state_dict(self.network.state_dict())
        self.epoch = state["epoch"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        if world_size == 1:
            self.micro_batches = state.get("micro_batches", 1)  # earlier versions did not save it


def start(
    config: TrialConfig,
    *,
    steps_of_epochs: Sequence[int],
    context: DistributedContext,
    data_fingerprint: str,
    replay: list[float] | None = None,
    lr_scale: float = 1.0,
    averaged: bool = False,
    wrap: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Training:
    """Create the training of a trial before its first epoch.

    Args:
        config: configuration of the trial.
        steps_of_epochs: optimizer steps of each epoch.
        context: distributed context of this process.
        data_fingerprint: fingerprint of the data set, for the checkpoints.
        replay: learning-rate factors of an earlier run, one per epoch. They replace a plateau policy that watches the
            validation split. They are those of `config.policy` alone.
        lr_scale: factor of the learning rate.
        averaged: whether the result is the moving average of the weights: with a weight that falls exponentially over
            `AVERAGED` of all steps, and the statistics of batch norm alike (Polyak and Juditsky 1992). Integers are
            those of the last step.
        wrap: wraps the network for several workers.

    Raises:
        InputError: if `depth_policy` is a plateau policy that needs a replay.
    """
    if replay is not None and config.depth_policy is not None and _is_replayed(config.depth_policy):
        raise InputError(
            f"The value of 'depth_policy.plateau.watch' is '{config.depth_policy.watched}', which a training without a "
            "validation split does not measure; use train_loss, or another depth_policy."
        )
    torch.manual_seed(config.seed)
    network = build_model(config.model).on(context.device)
    average = _average(network, sum(steps_of_epochs)) if averaged else None
    loss = DualLoss(config.loss).to(context.device)
    parts = network.parts() if config.depth_policy is not None else [list(network.parameters())]
    policies = [policy for policy in (config.policy, config.depth_policy) if policy is not None]
    scaled = config.optimizer.model_copy(update={"lr": config.optimizer.lr * lr_scale})
    return Training(
        config=config,
        network=network,
        model=wrap(network),
        optimizer=build_optimizer(parts, scaled, undecayed=list(loss.parameters())),
        policies=[_policy(policy, steps_of_epochs, replay) for policy in policies],
        loss=loss,
        data_fingerprint=data_fingerprint,
        average=average,
    )


def _average(network: Network, steps: int) -> AveragedModel:
    decay = 1 - 1 / max(1.0, AVERAGED * steps)
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, count: torch.Tensor | int) -> None:
        """Update tensors of one type."""
        if averaged[0].is_floating_point():
            average(averaged, current, count)
        else:  # such as the indices in a buffer of a plugin's network, whose mean with themselves would be rounded down
            torch._foreach_copy_(averaged, current)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def _is_replayed(config: PolicyConfig) -> bool:
    """Whether a policy watches the validation split, which a retraining does not have."""
    return config.name == "plateau" and config.watched != "train_loss"


def _policy(config: PolicyConfig, steps_of_epochs: Sequence[int], replay: list[float] | None) -> Policy:
    if replay is not None and _is_replayed(config):
        return build_replay(replay, config, steps_of_epochs=steps_of_epochs)
    return build_policy(config, steps_of_epochs=steps_of_epochs)
