"""Whether the forward pass runs in bf16 or fp32: measured once for each network and machine, and remembered.

A rule would be wrong somewhere: on an AMD EPYC with AVX-512 bf16, a step at 64 px was 1.5 to 2.0 times as fast in
bf16 in every family at its published width (`tests/benchmarks/step.py --parts`), and a ResUNet's at 96 px 1.55, 1.75
and 1.93 times at widths 8, 16 and 32 (`tests/benchmarks/precision.py`); on another CPU it was slower at width 32.
fp16 is not offered: it needs its losses scaled, and devices without bf16 run in fp32.

Nor are networks compiled: on that EPYC, at 64 px in bf16, torch.compile took 79 s for a ResUNet of width 16 and 97 s
for the small U-Net of width 32, and their steps then 1.2 and 1.4 times as long. On a GPU it was not measured.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from data.cache.cache import cache_root
from trainable.config import ModelConfig, TrialConfig
from trainable.loss.dual_loss import DualLoss
from trainable.models import build_model
from trainable.optim.optimizers import build_optimizer

Precision = Literal["fp32", "bf16"]
Step = Callable[[ModelConfig], None]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_PICTURES = 8
"""At most, of a measured step: of more, each costs the same."""
_ROUNDS = 3
_CLEAR = 1.15
"""A ratio of two steps' seconds that a further round would not turn round."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What 'auto' takes, and why."""

    precision: Precision
    seconds: Mapping[Precision, float]
    """Of a training step in each precision."""
    pictures: int
    """In the batch of that step."""


def autocast(model: ModelConfig, device: torch.device) -> AbstractContextManager[object]:
    """The context that a forward pass runs in.

    Raises:
        ValueError: if the precision is still 'auto'; `resolve` decides it before the first step.
    """
    if model.precision == "auto":
        raise ValueError("model.precision is 'auto'; call resolve() before the first step")
    return torch.autocast(device.type, torch.bfloat16, enabled=model.precision == "bf16")


def resolve(config: TrialConfig, device: torch.device) -> TrialConfig:
    """`config` with a precision of 'auto' replaced by the faster one on this machine.

    What was measured is kept in the node's cache, so that equal configurations get equal answers there.
    """
    if config.model.precision != "auto":
        return config
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return _with_precision(config, "fp32")
    return _with_precision(config, choice(config, device).precision)


def choice(config: TrialConfig, device: torch.device) -> Choice:
    """The faster precision for the network of `config` on this machine, whatever precision it asks for.

    It is measured if this node does not remember it, which takes two to four steps in each precision.
    """
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    path = root / "precision.json"
    key = _key(config, device)
    with FileLock(f"{path}.lock"):
        measured = _measured(path)
        if key not in measured:
            measured[key] = _step_seconds(config, device)
            _replace(path, json.dumps(measured, indent=1))
    seconds = measured[key]
    return Choice(precision=min(_PRECISIONS, key=seconds.__getitem__), seconds=seconds, pictures=_pictures(config))


def _with_precision(config: TrialConfig, precision: Precision) -> TrialConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"precision": precision})})


def _measured(path: Path) -> dict[str, dict[Precision, float]]:
    """Seconds by network and precision; what cannot be read is left out, for it can be measured again."""
    try:
        entries = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    return {key: measured for key, measured in entries.items() if _is_measurement(measured)}


def _is_measurement(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), float) for name in _PRECISIONS)


def _key(config: TrialConfig, device: torch.device) -> str:
    """What the precisions' order depends on; loss and optimizer take the same time in both, and are left out."""
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    threads = f"{torch.get_num_threads()} threads"
    network = f"{config.model.family} {config.model.width} at {config.data.image_size} by {_pictures(config)}"
    return " | ".join((chip, threads, f"torch {torch.__version__}", network))


def _cpu_name() -> str:
    """The CPU's model and features that matter: cloud machines of one name differ in them."""
    features = torch.cpu.get_capabilities()
    names = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16") if features.get(name)]
    return f"{features.get('cpu_name', platform.machine())} {' '.join(names)}".strip()


def _pictures(config: TrialConfig) -> int:
    return min(_PICTURES, config.data.batch_size)


def _step_seconds(config: TrialConfig, device: torch.device) -> dict[Precision, float]:
    """Seconds of the fastest of a few steps in each precision, which take turns after one for warming up."""
    models = {name: _with_precision(config, name).model for name in _PRECISIONS}
    seconds: dict[Precision, list[float]] = {name: [] for name in _PRECISIONS}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        step = _step(config, device)
        for model in models.values():
            step(model)
        for _ in range(_ROUNDS):
            for name, model in models.items():
                started = time.perf_counter()
                step(model)
                seconds[name].append(time.perf_counter() - started)
            fastest = {name: min(taken) for name, taken in seconds.items()}
            if max(fastest.values()) > _CLEAR * min(fastest.values()):
                break
    return fastest


def _step(config: TrialConfig, device: torch.device) -> Step:
    """A training step of `config` in the precision that it is given, on a few pictures of noise."""
    network, loss = build_model(config.model).on(device), DualLoss(config.loss).to(device)
    optimizer = build_optimizer([list(network.parameters())], config.optimizer, undecayed=list(loss.parameters()))
    side, pictures = config.data.image_size, _pictures(config)
    photo = torch.rand(pictures, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    plane = torch.rand(pictures, 1, side, side, device=device)

    def step(model: ModelConfig) -> None:
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

    return step


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
