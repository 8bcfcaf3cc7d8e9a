"""A trial between two epochs: all that its loop works on, and that a checkpoint has to bring back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from trainable.config import PolicyConfig, TrialConfig
from trainable.loop import checkpoint
from trainable.loss.dual_loss import DualLoss
from trainable.models import Network, build_model
from trainable.optim.optimizers import build_optimizer
from trainable.optim.schedules import Policy, build_policy, build_replay

T = TypeVar("T")


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
    micro_batches: int = 1
    """Pieces that a batch is computed in, one after the other: more than one where a whole one ran out of memory."""
    note: str = ""
    """Which checkpoints could not be gone on from, and where the training began in their place; '' if all is well."""

    def save(self, directory: Path, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint that `resume` goes on from."""
        origin = checkpoint.Origin(config=self.config, data_fingerprint=self.data_fingerprint, epoch=self.epoch)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "policies": [policy.state_dict() for policy in self.policies],
            "loss": self.loss.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
        }
        checkpoint.save(directory, self.network, origin, metrics, state=state)

    def resume(self, directory: Path) -> None:
        """Go on from a checkpoint that `save` wrote.

        Raises:
            InputError: if it has no state, or is of another network; a DamagedCheckpointError if it is damaged. The
                training is then as it was.
        """
        state = checkpoint.load_state(directory)
        checkpoint.load_weights(self.network, directory)
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
        replay: learning-rate factors of an earlier run, one an epoch, for a plateau policy that watches validation.
        spread: wraps the network for several workers.
    """
    torch.manual_seed(config.seed)
    network = build_model(config.model).on(world.device)
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
    if replay is not None and config.name == "plateau" and config.watched != "train_loss":
        return build_replay(
            replay,
            warmup=config.warmup,
            steps_of_epochs=steps_of_epochs,
            horizon_epochs=config.horizon_epochs,
            horizon_batches=config.horizon_batches,
        )
    return build_policy(config, steps_of_epochs=steps_of_epochs)
