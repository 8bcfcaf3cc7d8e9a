"""One optimizer step of a trial, with gradient accumulation if a whole batch does not fit into memory."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_

from data.schema import Batch
from trainable.loop.clock import Clock
from trainable.loop.memory import warn_out_of_memory
from trainable.loop.precision import autocast
from trainable.loop.state import DistributedContext, Training
from trainable.models.prediction import Prediction


def train_step(
    training: Training, batch: Batch, step: int, context: DistributedContext, clock: Clock
) -> dict[str, torch.Tensor]:
    """Run forward, loss, backward, clipping and optimizer; return `loss` and its unweighted parts, detached.

    On an out-of-memory error, the batch is split into twice as many pieces, whose gradients are accumulated. The
    optimizer still sees the whole batch, but batch norm sees the pieces. Several workers cannot do this, because only
    one of them may run out of memory.

    Raises:
        torch.OutOfMemoryError: with several workers, or if a single sample does not fit.
    """
    optimizer, config = training.optimizer, training.config.optimizer
    for policy, groups in zip(training.policies, _groups(training), strict=True):
        policy.apply(groups, step)
    while True:
        try:
            losses = _gradients(training, batch, context, clock)
            break
        except torch.OutOfMemoryError:
            if context.world_size > 1 or training.micro_batches >= len(batch):
                raise
        training.micro_batches *= 2
        warn_out_of_memory(
            f"A batch of {len(batch)} samples ran out of memory; from now on, batches are computed in "
            f"{training.micro_batches} pieces, with the same effective batch size. "
            "A smaller data.batch_size or model.width avoids this.",
            context.device,
        )
    with clock.during("optimizer"):
        for weight in training.loss.parameters():  # DistributedDataParallel wraps the network alone
            if weight.grad is not None:
                context.all_reduce(weight.grad).div_(context.world_size)
        if config.clip_norm:
            clip_grad_norm_(training.network.parameters(), config.clip_norm)
        for _ in range(config.steps_per_batch):
            optimizer.step()
        if training.average is not None:
            training.average.update_parameters(training.network)
    return losses


def _gradients(training: Training, batch: Batch, context: DistributedContext, clock: Clock) -> dict[str, torch.Tensor]:
    """The losses of a batch; their gradients are accumulated in the parameters."""
    training.optimizer.zero_grad(set_to_none=True)
    weight = _weight_of_rank(batch, context)
    losses: dict[str, torch.Tensor] = {}
    for number, piece in enumerate(batch.split(training.micro_batches)):
        share = len(piece) / len(batch)
        with clock.during("transfer"):
            inputs, targets = piece.model_inputs(), piece.targets()
        with clock.during("forward"), autocast(training.config.model, inputs[0].device):
            prediction: Prediction = training.model(*inputs)
        with clock.during("loss"):
            total, parts = training.loss(prediction, *targets, *piece.regions())
            total = total * share
            penalty = training.loss.penalty(training.network) if number == 0 else 0.0
        with clock.during("backward"):
            (total * weight + penalty).backward()
        total = total + penalty
        parts = {name: part.detach() * share for name, part in parts.items()}
        for name, value in ({"loss": total.detach()} | parts).items():
            losses[name] = losses[name] + value if name in losses else value
    return losses


def _weight_of_rank(batch: Batch, context: DistributedContext) -> torch.Tensor | float:
    """Weight of the mean over this worker's samples, so that the mean over all workers is that over all samples.

    It differs from 1 if the samples of a batch are not divisible among the workers.
    """
    if context.world_size == 1:
        return 1.0
    samples = torch.full((), float(len(batch)), device=batch.bg.device)  # full() avoids a synchronising copy
    return samples.clone() * context.world_size / context.all_reduce(samples)


def _groups(training: Training) -> list[list[dict[str, Any]]]:
    """The optimizer's parameter groups of each policy. The first policy also has the group of the loss."""
    first, *others = training.optimizer.param_groups
    parts = len(training.policies)
    return [[first, *others[parts - 1 :]], *([group] for group in others[: parts - 1])]
