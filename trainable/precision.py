"""Whether the forward pass runs in bf16 or fp32: measured once for each network and machine, and remembered.

A rule would be wrong somewhere: on an AMD EPYC with AVX-512 bf16, a ResUNet step at 96 px was 1.55, 1.75 and 1.93 times
faster in bf16 at widths 8, 16 and 32 (`tests/benchmarks/precision.py`); on another CPU it was slower at width 32.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

from data.cache import cache_root
from trainable.config import ModelConfig, TrialConfig
from trainable.models import build_model

Precision = Literal["fp32", "bf16"]

_PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_PICTURES = 4
_TIMED_STEPS = 2


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
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    path = root / "precision.json"
    key = _key(config, device)
    with FileLock(f"{path}.lock"):
        seconds = _measured(path)
        if key not in seconds:
            seconds[key] = {name: _step_seconds(config, device, name) for name in _PRECISIONS}
            _replace(path, json.dumps(seconds, indent=1))
    faster = min(_PRECISIONS, key=seconds[key].__getitem__)
    return config.model_copy(update={"model": config.model.model_copy(update={"precision": faster})})


def _measured(path: Path) -> dict[str, dict[Precision, float]]:
    """Seconds by network and precision; what cannot be read is left out, for it can be measured again."""
    try:
        entries = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
    return {key: measured for key, measured in entries.items() if _is_measurement(measured)}


def _is_measurement(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), float) for name in _PRECISIONS)


def _key(config: TrialConfig, device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    threads = f"{torch.get_num_threads()} threads"
    network = f"{config.model.family} {config.model.width} at {config.data.image_size}"
    return " | ".join((chip, threads, f"torch {torch.__version__}", network))


def _cpu_name() -> str:
    """The CPU's model and features that matter: cloud machines of one name differ in them."""
    features = torch.cpu.get_capabilities()
    names = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16") if features.get(name)]
    return f"{features.get('cpu_name', platform.machine())} {' '.join(names)}".strip()


def _step_seconds(config: TrialConfig, device: torch.device, precision: Precision) -> float:
    """Seconds of the fastest of a few forward and backward passes on a few pictures."""
    model = config.model.model_copy(update={"precision": precision})
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = build_model(model).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        size = config.data.image_size
        photo = torch.rand(_PICTURES, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(1 + _TIMED_STEPS):
        started = time.perf_counter()
        with autocast(model, device):
            prediction = network(photo, photo)
        (prediction.mask.mean() + prediction.depth.mean()).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)
