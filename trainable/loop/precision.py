"""Whether the forward pass runs in bf16 or fp32: 'auto' is decided once for each network of a search.

A rule would be wrong somewhere: on an AMD EPYC with AVX-512 bf16, a step at 64 px was 1.5 to 2.0 times as fast in
bf16 in every family at its published width (`tests/benchmarks/step.py --parts`), and a ResUNet's at 96 px 1.55, 1.75
and 1.93 times at widths 8, 16 and 32 (`tests/benchmarks/precision.py`); on another CPU it was slower at width 32.
fp16 is not offered: it needs its losses scaled, and devices without bf16 run in fp32.

The two precisions are measured in turn. On a CPU, processor time decides, which counts a step's own work: beside other
load, the time that a step takes says more of the load. (On two cores with a load of 5 to 13, five measurements each
found 1.20 to 1.31 for a ResUNet of width 4 and 1.78 to 1.94 for one of width 16.) The decision is kept with the search,
by kind of machine and network, and the precision that a trial ran in is part of its checkpoint's configuration: what
continues, retrains or evaluates it does not measure again.

Nor are networks compiled: on that EPYC, at 64 px in bf16, torch.compile took 79 s for a ResUNet of width 16 and 97 s
for the small U-Net of width 32, and their steps then 1.2 and 1.4 times as long. On a GPU it was not measured.
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
from trainable.config import ModelConfig, TrialConfig
from trainable.loop.checkpoint import load_origin
from trainable.loop.state import World
from trainable.loss.dual_loss import DualLoss
from trainable.measurements import machine_kind, recall
from trainable.models import build_model
from trainable.optim.optimizers import build_optimizer

Precision = Literal["fp32", "bf16"]
Step = Callable[[ModelConfig], float]

PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
MAX_IMAGES = 8
"""Of a measured step; a larger batch costs each image the same."""
_MIN_ROUNDS, _MAX_ROUNDS = 3, 7
"""A round is a step in each precision. Rounds end when all of the first three decide alike."""
_GAIN = 1.1
"""bf16 must be so many times as fast: where it gains less, measurements of one network would not agree."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What 'auto' takes, and why."""

    precision: Precision
    seconds: Mapping[Precision, float]
    """Of a training step in each precision, the median of several: on a CPU, processor time of all threads."""
    step_seconds: float
    """Of a training step in the precision taken, as a clock on the wall has them."""
    images: int
    """In the batch of that step."""


def autocast(model: ModelConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context that a forward pass runs in.

    Raises:
        ValueError: if the precision is still 'auto'; `resolve` decides it before the first step.
    """
    if model.precision == "auto":
        raise ValueError("model.precision is 'auto'; call resolve() before the first step")
    return torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16")


def resolve(config: TrialConfig, device: torch.device, measurements: Path | None = None) -> TrialConfig:
    """`config` with a precision of 'auto' replaced by the faster one on this machine.

    Args:
        config: a trial's.
        device: where it trains.
        measurements: the search's file of decisions, which gives equal networks the same answer; None measures anew.
    """
    if config.model.precision != "auto":
        return config
    if offered(device) == ("fp32",):
        return with_precision(config, "fp32")
    return with_precision(config, choice(config, device, measurements).precision)


def settle(
    config: TrialConfig, world: World, *, measurements: Path | None = None, resume_from: Sequence[Path] = ()
) -> TrialConfig:
    """`config` with its precision decided: that of the checkpoint it continues from, else the faster one.

    Args:
        config: a trial's.
        world: the first worker decides for all.
        measurements: see `resolve`.
        resume_from: checkpoints of the same trial; the first whose configuration is whole decides.
    """
    if config.model.precision != "auto":
        return config
    for checkpoint in resume_from:
        with contextlib.suppress(InputError):
            return with_precision(config, as_recorded(load_origin(checkpoint).config).model.precision)
    return world.first(resolve(config, world.device, measurements) if world.rank == 0 else config)


def choice(config: TrialConfig, device: torch.device, measurements: Path | None = None) -> Choice:
    """The faster precision for the network of `config` on this machine, whatever precision it has.

    It is measured, with four to eight steps in each precision, unless `measurements` has it.
    """
    key = f"precision | {machine_kind(device)} | {_network(config)}"
    found = recall(measurements, key, lambda: _measure(config, device), _is_choice)
    return Choice(
        precision=found["precision"],
        seconds=found["seconds"],
        step_seconds=found["step_seconds"],
        images=_images(config),
    )


def faster(seconds: Mapping[Precision, float]) -> Precision:
    """The precision to use: bf16 where it is faster by a margin.

    Args:
        seconds: of a step in each precision that the device has.
    """
    return "bf16" if "bf16" in seconds and seconds["fp32"] >= _GAIN * seconds["bf16"] else "fp32"


def offered(device: torch.device) -> tuple[Precision, ...]:
    """What `device` computes in without imitating it."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return ("fp32",)
    return PRECISIONS


def as_recorded(config: TrialConfig) -> TrialConfig:
    """A checkpoint's configuration, for its evaluation: in the precision that it names.

    A training writes the precision that it ran in. 'auto' is in none of its checkpoints, and taken for fp32.
    """
    return with_precision(config, "fp32") if config.model.precision == "auto" else config


def with_precision(config: TrialConfig, precision: str) -> TrialConfig:
    """`config` with another precision."""
    return config.model_copy(update={"model": config.model.model_copy(update={"precision": precision})})


def build_step(config: TrialConfig, device: torch.device, *, images: int) -> Step:
    """A training step of `config` on noise; it takes a precision's model section, and gives its seconds.

    The random state is left as it was.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network, loss = build_model(config.model).on(device), DualLoss(config.loss).to(device)
        side = config.data.image_size
        photo = torch.rand(images, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
        plane = torch.rand(images, 1, side, side, device=device)
    optimizer = build_optimizer([list(network.parameters())], config.optimizer, undecayed=list(loss.parameters()))

    def step(model: ModelConfig) -> float:
        started = time.perf_counter()
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
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


def _network(config: TrialConfig) -> str:
    """What the precisions' order depends on; loss and optimizer take the same time in both, and are left out."""
    return f"{config.model.family} {config.model.width} at {config.data.image_size} by {_images(config)}"


def _images(config: TrialConfig) -> int:
    return min(MAX_IMAGES, config.data.batch_size)


def _measure(config: TrialConfig, device: torch.device) -> dict[str, Any]:
    """The decision, and the median seconds of a step in each precision."""
    models = {name: with_precision(config, name).model for name in offered(device)}
    step = build_step(config, device, images=_images(config))
    for model in models.values():
        step(model)  # the first one is slower
    rounds: list[dict[Precision, float]] = []
    elapsed: dict[Precision, list[float]] = {name: [] for name in models}
    while len(rounds) < _MAX_ROUNDS:
        rounds.append({})
        for name, model in models.items():
            before = time.process_time()
            elapsed[name].append(step(model))
            rounds[-1][name] = time.process_time() - before if device.type == "cpu" else elapsed[name][-1]
        ahead = {faster(taken) for taken in rounds}
        if len(rounds) == _MIN_ROUNDS and len(ahead) == 1:
            break
    seconds = {name: statistics.median(taken[name] for taken in rounds) for name in models}
    precision = faster(seconds)
    return {"precision": precision, "seconds": seconds, "step_seconds": statistics.median(elapsed[precision])}


def _is_choice(value: Any) -> bool:
    seconds = value.get("seconds") if isinstance(value, dict) else None
    if not isinstance(seconds, dict) or value.get("precision") not in seconds or not seconds.keys() <= set(PRECISIONS):
        return False
    return all(isinstance(taken, float) for taken in (*seconds.values(), value.get("step_seconds")))
