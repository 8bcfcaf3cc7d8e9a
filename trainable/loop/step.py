"""One optimizer step of a trial, whose batch is computed in pieces where a whole one runs out of memory."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from data.schema import Batch
from trainable.loop.clock import Clock
from trainable.loop.precision import autocast
from trainable.loop.state import Training, World
from trainable.models.prediction import Prediction


def train_step(training: Training, batch: Batch, step: int, world: World, clock: Clock) -> dict[str, torch.Tensor]:
    """Forward, loss, backward, clip, optimizer: `loss` and its unweighted parts, detached.

    Out of memory, the batch is halved into pieces, and their gradients are added up: the optimizer sees the batch as
    before, but batch norm the pieces. Several workers cannot do so, for one of them alone may run out.

    Raises:
        torch.OutOfMemoryError: if there are several workers, or a single sample is too much.
    """
    optimizer, config = training.optimizer, training.config.optimizer
    for policy, groups in zip(training.policies, _groups(training), strict=True):
        policy.apply(groups, step)
    while True:
        try:
            losses = _gradients(training, batch, clock)
            break
        except torch.OutOfMemoryError:
            if world.size > 1 or training.micro_batches >= len(batch):
                raise
        training.micro_batches *= 2
        after_out_of_memory(
            f"A batch of {len(batch)} samples ran out of memory; it is computed in {training.micro_batches} pieces "
            "from here on, with the same effective batch. A smaller data.batch_size or model.width avoids it.",
            world.device,
        )
    with clock.during("optimizer"):
        for weight in training.loss.parameters():  # nobody else adds up what is not the network's
            if weight.grad is not None:
                world.sum(weight.grad).div_(world.size)
        if config.clip_norm:
            clip_grad_norm_(training.network.parameters(), config.clip_norm)
        for _ in range(config.steps_per_batch):
            optimizer.step()
    return losses


def after_out_of_memory(sentence: str, device: torch.device) -> None:
    """Say what happens now, and let go of what the device held for the attempt that failed."""
    warnings.warn(sentence, RuntimeWarning, stacklevel=3)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _gradients(training: Training, batch: Batch, clock: Clock) -> dict[str, torch.Tensor]:
    """The losses of a batch, whose gradients lie with the parameters afterwards."""
    training.optimizer.zero_grad(set_to_none=True)
    losses: dict[str, torch.Tensor] = {}
    for number, piece in enumerate(batch.split(training.micro_batches)):
        share = len(piece) / len(batch)
        with clock.during("transfer"):
            inputs, targets = piece.inputs(), piece.targets()
        with clock.during("forward"), autocast(training.config.model, inputs[0].device):
            prediction: Prediction = training.model(*inputs)
        with clock.during("loss"):
            total, parts = training.loss(prediction, *targets)
            total = total * share
            if number == 0:
                total = total + training.loss.penalty(training.network)
        with clock.during("backward"):
            total.backward()
        parts = {name: part.detach() * share for name, part in parts.items()}
        for name, value in ({"loss": total.detach()} | parts).items():
            losses[name] = losses[name] + value if name in losses else value
    return losses


def _groups(training: Training) -> list[list[dict[str, Any]]]:
    """The optimizer's groups that each policy governs: its part of the network; the first, the loss's weights too."""
    first, *others = training.optimizer.param_groups
    parts = len(training.policies)
    return [[first, *others[parts - 1 :]], *([group] for group in others[: parts - 1])]
