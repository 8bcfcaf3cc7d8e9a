"""Latency of a network for a pair of images, measured once for each network and node of a search."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

from data.fitting.sizes import size_text
from trainable.config import TrialConfig
from trainable.loop.precision import autocast, preserving_random_state
from trainable.measurements import recall
from trainable.models import build_model

_WARMUP_PASSES, _MAX_PASSES = 3, 30
_SECONDS = 0.5
"""Time limit of a measurement, which has at least two passes."""


def ms_per_picture(config: TrialConfig, device: torch.device, measurements: Path | None = None) -> float:
    """Milliseconds of a forward pass for a batch of one pair of images.

    It is the minimum over several passes in evaluation mode, on noise with the configuration's image size and
    precision, because other load of the machine only makes a pass slower. The weights are random.

    Args:
        config: configuration with its precision resolved.
        device: device of the network.
        measurements: the search's file of measurements, so that equal networks get the same value; None to measure
            without a file.
    """
    found = recall(measurements, _key(config, device), lambda: _measure(config, device), _is_time)
    return float(found)


def _is_time(value: object) -> bool:
    return isinstance(value, float)


def _key(config: TrialConfig, device: torch.device) -> str:
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    network = f"{config.model.model_dump_json()} at {size_text(config.data.image_size)}"
    return " | ".join(("ms_per_picture", platform.node(), chip, f"torch {torch.__version__}", network))


def _measure(config: TrialConfig, device: torch.device) -> float:
    with preserving_random_state(device):
        network = build_model(config.model).on(device).eval()
        photo = torch.rand(1, 3, *config.data.sides, device=device).contiguous(memory_format=torch.channels_last)
    seconds: list[float] = []
    deadline = time.perf_counter() + _SECONDS
    with torch.inference_mode(), autocast(config.model, device):
        for number in range(_WARMUP_PASSES + _MAX_PASSES):
            started = time.perf_counter()
            network(photo, photo)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number >= _WARMUP_PASSES:
                seconds.append(time.perf_counter() - started)
            if len(seconds) > 1 and time.perf_counter() > deadline:
                break
    return 1e3 * min(seconds)
