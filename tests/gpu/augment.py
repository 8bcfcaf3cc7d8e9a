"""Augmentation on a GPU, as trials use it but without Ray: does it show what the CPU's would, and without waiting?

python tests/gpu/augment.py

Each line is a check and what was seen; the last line counts those that failed. Where there is no GPU it says so.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter, is_on_device
from data.augment.erase import Erase
from data.cache.cache import DecodedImages
from data.cache.decoded import IMAGES
from data.loader import Loader
from data.schema import Batch

COUNT, SIDE = 256, 224
GEOMETRY: dict[str, Any] = {"hflip": 0.5, "vflip": 0.3, "rotate": 30.0, "rotate_p": 0.7, "zoom": 0.3}
COLOURS: dict[str, Any] = {"jitter": 0.2, "hue": 0.1, "shift": 0.5, "erase": Erase(p=0.5, count=2)}
NOISE: dict[str, Any] = {"noise": 0.1, "noise_low": 0.02}


class Split:
    """Smooth pictures of noise, in memory."""

    def __init__(self) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 8), np.uint8)
        eight = np.stack([cv2.resize(one, (SIDE, SIDE)) for one in coarse])
        bg, fg_bg, mask, depth = (part.copy() for part in np.split(eight, [3, 6, 7], axis=3))
        self.pictures = DecodedImages(bg, fg_bg, mask[..., 0], depth[..., 0])

    def __len__(self) -> int:
        return COUNT

    def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
        """Copies of the pictures of `rows`."""
        return DecodedImages(*(stack[rows] for stack in self.pictures[:4]))

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Nothing: all are in memory."""


def main() -> int:
    """Make all checks; the number of those that failed."""
    if not torch.cuda.is_available():
        _write("no GPU here: nothing was checked")
        return 0
    gpu, split = torch.device("cuda", 0), Split()
    checks = {
        "'auto' changes pictures on the GPU": is_on_device("auto", gpu),
        "geometry is the CPU's to a level": _apart(split, GEOMETRY, gpu)[0] <= 1,
        "colours are the CPU's to a few levels": _apart(split, {**GEOMETRY, **COLOURS}, gpu)[1] <= 8,
        "an equal key makes equal pictures": _repeats(split, gpu),
        "the host does not wait": _never_waits(split, gpu),
        "prefetching changes nothing": _prefetches(split, gpu),
    }
    for name, passed in checks.items():
        _write(f"{'ok' if passed else 'FAILED'}  {name}")
    for name, rate in _rates(split, gpu).items():
        _write(f"{rate:,.0f} samples/s  {name}")
    failed = sum(not passed for passed in checks.values())
    _write(f"{failed} of {len(checks)} checks failed")
    return failed


def _loader(split: Split, device: torch.device, augmenter: Any, *, prefetch: bool) -> Loader:
    return Loader(
        split=split,  # type: ignore[arg-type]
        batch_size=32, device=device, shuffle=True, augmenter=augmenter, seed=1, prefetch=prefetch,
    )  # fmt: skip


def _stacked(batch: Batch) -> torch.Tensor:
    """(B, 8, H, W)"""
    return torch.cat([getattr(batch, field) for field in IMAGES], dim=1).cpu()


def _epoch(split: Split, device: torch.device, augmenter: Any, *, prefetch: bool) -> list[torch.Tensor]:
    return [_stacked(batch) for batch in _loader(split, device, augmenter, prefetch=prefetch).epoch(1)]


def _apart(split: Split, strengths: dict[str, Any], gpu: torch.device) -> tuple[int, float]:
    """Levels by which the two sides differ at most, and in 99 of 100 values."""
    ours = _epoch(split, gpu, DeviceAugmenter(**strengths), prefetch=False)
    reference = _epoch(split, torch.device("cpu"), Augmenter(**strengths), prefetch=False)
    apart = (torch.cat(ours).int() - torch.cat(reference).int()).abs().numpy()
    return int(apart.max()), float(np.quantile(apart, 0.99))


def _repeats(split: Split, gpu: torch.device) -> bool:
    augmenter = DeviceAugmenter(**GEOMETRY, **COLOURS, **NOISE)
    first, again = (_epoch(split, gpu, augmenter, prefetch=False) for _ in range(2))
    return all(map(torch.equal, first, again))


def _never_waits(split: Split, gpu: torch.device) -> bool:
    augmenter = DeviceAugmenter(**GEOMETRY, **COLOURS, **NOISE)
    batch = _loader(split, gpu, None, prefetch=False).batch(np.arange(32))
    augmenter(batch, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmenter(batch, 1)
    except RuntimeError as error:
        _write(f"waited: {error}")
        return False
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True


def _prefetches(split: Split, gpu: torch.device) -> bool:
    """Each batch is used by other work before the next one is asked for, as a step does."""
    augmenter = DeviceAugmenter(**GEOMETRY, **COLOURS, **NOISE)
    whole = _epoch(split, gpu, augmenter, prefetch=False)
    load = torch.rand(4096, 4096, device=gpu)
    seen = []
    for batch in _loader(split, gpu, augmenter, prefetch=True).epoch(1):
        for _ in range(20):
            load = (load @ load).softmax(dim=1)
        seen.append(_stacked(batch))
    return all(map(torch.equal, whole, seen))


def _rates(split: Split, gpu: torch.device) -> dict[str, float]:
    """Samples a second of an epoch of batches, by the side that changes them."""
    sides = {"on the CPU": Augmenter, "on the GPU": DeviceAugmenter}
    rates = {}
    for name, kind in sides.items():
        for prefetch in (False, True):
            loader = _loader(split, gpu, kind(**GEOMETRY, **COLOURS, **NOISE), prefetch=prefetch)
            for batch in loader.epoch(0):
                _stacked(batch)
            torch.cuda.synchronize(gpu)
            started = time.perf_counter()
            for batch in loader.epoch(1):
                batch.inputs()
            torch.cuda.synchronize(gpu)
            label = f"changed {name}, {'prefetched' if prefetch else 'one after the other'}"
            rates[label] = COUNT / (time.perf_counter() - started)
    return rates


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
