"""How long a network takes for a pair of pictures: measured once for each network and node, and remembered."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path

import torch
from filelock import FileLock

from data.cache.cache import cache_root
from trainable.config import TrialConfig
from trainable.loop.precision import autocast, resolve
from trainable.models import build_model

_WARM, _MOST = 3, 30
_SECONDS = 0.5
"""A measurement ends after so long, but not before two passes."""


def ms_per_picture(config: TrialConfig, device: torch.device) -> float:
    """Milliseconds of a forward pass for one pair of pictures, alone in its batch.

    It is the fastest of some passes in evaluation, on noise of the configuration's image size and in its precision:
    what others do on the machine makes a pass slower, never faster. The weights are fresh, for they do not matter.
    """
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    path = root / "latency.json"
    config = resolve(config, device)
    key = _key(config, device)
    with FileLock(f"{path}.lock"):
        known = _known(path)
        if key not in known:
            known[key] = _measure(config, device)
            beside = path.with_name(f".{path.name}.{os.getpid()}")
            beside.write_text(json.dumps(known, indent=1), encoding="utf-8")
            beside.replace(path)
    return known[key]


def _known(path: Path) -> dict[str, float]:
    """Milliseconds by network; what cannot be read is left out, for it can be measured again."""
    try:
        entries = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
    return {key: value for key, value in entries.items() if isinstance(value, float)}


def _key(config: TrialConfig, device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    network = f"{config.model.model_dump_json()} at {config.data.image_size}"
    return " | ".join((platform.node(), chip, f"torch {torch.__version__}", network))


def _measure(config: TrialConfig, device: torch.device) -> float:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        network = build_model(config.model).on(device).eval()
        side = config.data.image_size
        photo = torch.rand(1, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    taken: list[float] = []
    ends = time.perf_counter() + _SECONDS
    with torch.inference_mode(), autocast(config.model, device):
        for number in range(_WARM + _MOST):
            started = time.perf_counter()
            network(photo, photo)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= _WARM:
                taken.append(time.perf_counter() - started)
            if len(taken) > 1 and time.perf_counter() > ends:
                break
    return 1e3 * min(taken)
