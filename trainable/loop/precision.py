"""Precision of the forward pass, bf16 or fp32. 'auto' is resolved once for each network of a search, by measurement.

No fixed rule fits all machines. On an AMD EPYC with AVX-512 bf16, a step at 64 px was 1.5 to 2.0 times as fast in bf16
in every family at its published width (`tests/benchmarks/step.py --parts`), and a step of a ResUNet at 96 px 1.55, 1.75
and 1.93 times as fast at widths 8, 16 and 32 (`tests/benchmarks/precision.py`). On another CPU, bf16 was slower at
width 32. fp16 is not supported: it needs loss scaling. Devices without bf16 use fp32.

Steps in the two precisions are measured alternately. On a CPU, processor time decides, because wall time depends on the
other load of the machine. (On two cores with a load of 5 to 13, five measurements each found a speed-up of 1.20 to 1.31
for a ResUNet of width 4, and of 1.78 to 1.94 at width 16.) The decision is stored with the search, by kind of machine
and network. The precision of a trial is part of the configuration in its checkpoint, so that it is not measured again
when the trial is resumed, retrained or evaluated.

Networks are not compiled. On that EPYC, at 64 px in bf16, torch.compile took 79 s for a ResUNet of width 16 and 97 s
for the small U-Net of width 32, and made their steps 1.2 and 1.4 times as long. On a GPU it was not measured.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from data.errors import InputError
from data.fitting.sizes import size_text
from trainable.config import ModelConfig, TrialConfig
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.memory import release_memory
from trainable.loop.state import DistributedContext
from trainable.loss.dual_loss import DualLoss
from trainable.measurements import machine_kind, recall
from trainable.models import build_model
from trainable.optim.optimizers import build_optimizer

Precision = Literal["fp32", "bf16"]
Step = Callable[[ModelConfig], float]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MAX_IMAGES = 8
"""Maximum batch size of a step that is measured on a CPU, where larger batches take the same time per image.

On a GPU, a step of few small images takes as long as its kernels take to launch, of which bf16 has more: it is measured
with the whole batch.
"""
_MIN_ROUNDS, _MAX_ROUNDS = 3, 7
"""A round is a step in each precision. The measurement ends early if the first three rounds agree."""
_MAX_SECONDS = 60.0
"""Time after which the measurement ends with the round that it is in."""
_GAIN = 1.1
"""Minimum speed-up for bf16; with a smaller one, repeated measurements would disagree."""


@dataclass(frozen=True, kw_only=True)
class PrecisionChoice:
    """The precision chosen for 'auto', and the measurement behind it."""

    precision: Precision
    seconds: Mapping[Precision, float]
    """Median seconds of a training step in each precision; on a CPU, processor time of all threads."""
    step_seconds: float
    """Median wall time of a training step in the chosen precision."""
    images: int
    """Batch size of the measured steps."""


def autocast(model: ModelConfig, device: torch.device) -> AbstractContextManager[object]:
    """The autocast context of a forward pass.

    Raises:
        ValueError: if the precision is 'auto', which `resolve` replaces before the first step.
    """
    if model.precision == "auto":
        raise ValueError("model.precision is 'auto'; call resolve() before the first step")
    return torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16")


def preserving_random_state(device: torch.device) -> AbstractContextManager[None]:
    """A context after which torch's random state is as before, on the CPU and on `device`."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def resolve(config: TrialConfig, device: torch.device, measurements: Path | None = None) -> TrialConfig:
    """`config` with the precision 'auto' replaced by the faster one on this machine.

    Args:
        config: configuration of the trial.
        device: device of the training.
        measurements: the search's file of measurements, so that equal networks get the same precision; None to measure
            without a file.
    """
    if config.model.precision != "auto":
        return config
    if supported_precisions(device) == ("fp32",):
        return with_precision(config, "fp32")
    return with_precision(config, choose_precision(config, device, measurements).precision)


def resolve_for_trial(
    config: TrialConfig,
    context: DistributedContext,
    *,
    measurements: Path | None = None,
    resume_from: Sequence[Path] = (),
) -> TrialConfig:
    """`config` with its precision resolved: that of the checkpoint it resumes from, else the faster one.

    Args:
        config: configuration of the trial.
        context: distributed context; the worker with rank 0 decides for all.
        measurements: see `resolve`.
        resume_from: checkpoints of the same trial; the first with an undamaged configuration decides.
    """
    if config.model.precision != "auto":
        return config
    # Each worker calls it, whatever it can read: a worker without its counterpart in a broadcast waits for ever.
    return context.broadcast(
        _resolved(config, context.device, measurements, resume_from) if context.rank == 0 else config
    )


def _resolved(
    config: TrialConfig, device: torch.device, measurements: Path | None, resume_from: Sequence[Path]
) -> TrialConfig:
    for checkpoint in resume_from:
        with contextlib.suppress(InputError):
            return with_precision(config, as_recorded(load_origin(checkpoint).config).model.precision)
    return resolve(config, device, measurements)


def choose_precision(config: TrialConfig, device: torch.device, measurements: Path | None = None) -> PrecisionChoice:
    """The faster precision for the network of `config` on this machine, whatever precision `config` has.

    It is measured with four to eight steps in each precision, fewer if they take longer than `_MAX_SECONDS`, unless it
    is already in the file `measurements`. If they run out of memory, they have half as many images.

    Raises:
        torch.OutOfMemoryError: if a single image does not fit.
    """
    key = f"precision | {machine_kind(device)} | {_network(config, device)}"
    found = recall(measurements, key, lambda: _measure(config, device), _is_choice)
    return PrecisionChoice(
        precision=found["precision"],
        seconds=found["seconds"],
        step_seconds=found["step_seconds"],
        images=found.get("images", _images(config, device)),  # earlier versions did not record it
    )


def faster_precision(seconds: Mapping[Precision, float]) -> Precision:
    """The precision to use: bf16 if it is faster by a margin.

    Args:
        seconds: seconds of a step in each precision that the device supports.
    """
    return "bf16" if "bf16" in seconds and seconds["fp32"] >= _GAIN * seconds["bf16"] else "fp32"


def supported_precisions(device: torch.device) -> tuple[Precision, ...]:
    """The precisions that `device` supports without emulation."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ("fp32",)
    return PRECISIONS


def as_recorded(config: TrialConfig) -> TrialConfig:
    """The configuration of a checkpoint, for its evaluation.

    A training records the precision that it used, never 'auto'; 'auto' is read as fp32.
    """
    return with_precision(config, "fp32") if config.model.precision == "auto" else config


def with_precision(config: TrialConfig, precision: str) -> TrialConfig:
    """`config` with another precision."""
    return config.model_copy(update={"model": config.model.model_copy(update={"precision": precision})})


def build_step(config: TrialConfig, device: torch.device, *, images: int) -> Step:
    """Build a training step of `config` on noise. It takes a model configuration and returns its seconds.

    The random state is preserved.
    """
    with preserving_random_state(device):
        network, loss = build_model(config.model).on(device), DualLoss(config.loss).to(device)
        photo = torch.rand(images, 3, *config.data.sides, device=device).contiguous(memory_format=torch.channels_last)
        plane = torch.rand(images, 1, *config.data.sides, device=device)
    optimizer = build_optimizer([list(network.parameters())], config.optimizer, undecayed=list(loss.parameters()))

    def step(model: ModelConfig) -> float:
        started = time.perf_counter()
        with preserving_random_state(device):
            with autocast(model, device):
                prediction = network(photo, photo)
            total: Tensor = loss(prediction, plane, plane)[0] + loss.penalty(network)
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            if config.optimizer.clip_norm:
                clip_grad_norm_(network.parameters(), config.optimizer.clip_norm)
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return step


def _network(config: TrialConfig, device: torch.device) -> str:
    """Key of what decides which precision is faster; loss and optimizer take the same time in both."""
    images = _images(config, device)
    return f"{config.model.family} {config.model.width} at {size_text(config.data.image_size)} by {images}"


def _images(config: TrialConfig, device: torch.device) -> int:
    return min(MAX_IMAGES, config.data.batch_size) if device.type == "cpu" else config.data.batch_size


def _measure(config: TrialConfig, device: torch.device) -> dict[str, object]:
    """Measure with as many images as fit; a training splits its batches if they do not."""
    images = _images(config, device)
    while True:
        try:
            return _measure_steps(config, device, images)
        except torch.OutOfMemoryError:
            if images == 1:
                raise
        images //= 2
        release_memory(device)


def _measure_steps(config: TrialConfig, device: torch.device, images: int) -> dict[str, object]:
    """Measure the median seconds of a step in each precision, and choose one."""
    models = {name: with_precision(config, name).model for name in supported_precisions(device)}
    step = build_step(config, device, images=images)
    for model in models.values():
        step(model)  # warm-up: the first step is slower
    started = time.monotonic()
    rounds: list[dict[Precision, float]] = []
    elapsed: dict[Precision, list[float]] = {name: [] for name in models}
    while len(rounds) < _MAX_ROUNDS:
        rounds.append({})
        for name, model in models.items():
            before = time.process_time()
            elapsed[name].append(step(model))
            rounds[-1][name] = time.process_time() - before if device.type == "cpu" else elapsed[name][-1]
        choices = {faster_precision(taken) for taken in rounds}
        if len(rounds) == _MIN_ROUNDS and len(choices) == 1:
            break
        if time.monotonic() - started > _MAX_SECONDS:
            break
    seconds = {name: statistics.median(taken[name] for taken in rounds) for name in models}
    precision = faster_precision(seconds)
    step_seconds = statistics.median(elapsed[precision])
    return {"precision": precision, "seconds": seconds, "step_seconds": step_seconds, "images": images}


def _is_choice(value: Any) -> bool:
    seconds = value.get("seconds") if isinstance(value, dict) else None
    if not isinstance(seconds, dict) or value.get("precision") not in seconds or not seconds.keys() <= set(PRECISIONS):
        return False
    if not isinstance(images := value.get("images", 1), int) or images < 1:
        return False
    return all(isinstance(taken, float) for taken in (*seconds.values(), value.get("step_seconds")))
