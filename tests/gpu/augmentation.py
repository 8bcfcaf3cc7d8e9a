"""Augmentation on the device against that of the CPU, through the loader as trials use it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.augment.cpu import Augmenter
from data.augment.device import DeviceAugmenter, is_on_device
from data.augment.erase import Erase
from data.cache.cache import DecodedImages
from data.cache.decoded import IMAGES
from data.loader import Loader
from data.schema import Batch
from tests.gpu.findings import Measure
from tests.gpu.session import Session, write

BATCH = 32
GEOMETRY: dict[str, Any] = {"hflip": 0.5, "vflip": 0.3, "rotate": 30.0, "rotate_p": 0.7, "zoom": 0.3}
COLOURS: dict[str, Any] = {"jitter": 0.2, "hue": 0.1, "shift": 0.5, "erase": Erase(p=0.5, count=2)}
NOISE: dict[str, Any] = {"noise": 0.1, "noise_low": 0.02}
EVERYTHING: dict[str, Any] = {**GEOMETRY, **COLOURS, **NOISE}


class SmoothNoise:
    """A split in memory: smooth noise without symmetry, so that a shift shows and interpolation costs little."""

    def __init__(self, side: int, count: int) -> None:
        coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 8), np.uint8)
        eight = np.stack([cv2.resize(sample, (side, side), interpolation=cv2.INTER_CUBIC) for sample in coarse])
        bg, fg_bg, mask, depth = (part.copy() for part in np.split(eight, [3, 6, 7], axis=3))
        self.images = DecodedImages(bg, fg_bg, mask[..., 0], depth[..., 0])

    def __len__(self) -> int:
        return len(self.images.mask)

    def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
        """Copies of the images of `rows`."""
        return DecodedImages(*(stack[rows] for stack in self.images[:4]))

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Nothing: all are in memory."""


def check_augmentation(session: Session) -> None:
    """Levels of difference, repeatability, waiting and prefetching."""
    split = SmoothNoise(session.sizes.augmented_side, session.sizes.augmented_count)
    chosen = is_on_device("auto", session.device)
    session.add("'auto' augments on a GPU only", _count("wrong choices", int(chosen != session.on_gpu)))
    geometry = _difference(session, split, GEOMETRY)
    session.add(
        "geometry is the CPU's", Measure(name="largest difference in levels", value=float(geometry.max()), at_most=1)
    )
    colours = _difference(session, split, {**GEOMETRY, **COLOURS})
    session.add(
        "colours are the CPU's",
        Measure(name="levels of photographs, 99 %", value=float(np.quantile(colours[:, :6], 0.99)), at_most=8),
        Measure(name="mean", value=float(colours[:, :6].mean()), at_most=1.5),
        Measure(name="of mask and depth", value=float(colours[:, 6:].max()), at_most=1),
        note="OpenCV rounds hues to one of 256",
    )
    augmenter = DeviceAugmenter(**EVERYTHING)
    whole = _epoch(session, split, augmenter, prefetch=False)
    again = _epoch(session, split, augmenter, prefetch=False)
    session.add("the same key gives the same images", _count("batches that differ", _differing(whole, again)))
    prefetched = _epoch_beside_work(session, split, augmenter)
    session.add("prefetching changes nothing", _count("batches that differ", _differing(whole, prefetched)))
    _check_waits(session, split, augmenter)


def _check_waits(session: Session, split: SmoothNoise, augmenter: DeviceAugmenter) -> None:
    check = "the host does not wait for the device"
    if not session.on_gpu:
        session.add(check, note="needs a GPU")
        return
    batch = _loader(session.device, split, None, prefetch=False).batch(np.arange(BATCH))
    augmenter(batch, 0)
    waits = 0
    torch.cuda.set_sync_debug_mode("error")
    try:
        augmenter(batch, 1)
    except RuntimeError as error:
        write(f"    waited: {error}")
        waits = 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
    session.add(check, _count("waits", waits))


def _difference(session: Session, split: SmoothNoise, strengths: dict[str, Any]) -> NDArray[np.int64]:
    """(N, 8, H, W): levels by which device and CPU differ; the channels are bg, fg_bg, mask and depth."""
    found = _batches(session.device, split, DeviceAugmenter(**strengths))
    reference = _batches(torch.device("cpu"), split, Augmenter(**strengths))
    return np.asarray((torch.cat(found).int() - torch.cat(reference).int()).abs().numpy())


def _batches(device: torch.device, split: SmoothNoise, augmenter: Augmenter | DeviceAugmenter) -> list[Tensor]:
    return [_stacked(batch) for batch in _loader(device, split, augmenter, prefetch=False).epoch(1)]


def _epoch(session: Session, split: SmoothNoise, augmenter: DeviceAugmenter, *, prefetch: bool) -> list[Tensor]:
    return [_stacked(batch) for batch in _loader(session.device, split, augmenter, prefetch=prefetch).epoch(1)]


def _epoch_beside_work(session: Session, split: SmoothNoise, augmenter: DeviceAugmenter) -> list[Tensor]:
    """Other work uses the device before each batch is read, as a step does, while the next ones are prepared."""
    side = 4096 if session.on_gpu else 64
    load = torch.rand(side, side, device=session.device)
    batches = []
    for batch in _loader(session.device, split, augmenter, prefetch=True).epoch(1):
        for _ in range(20):
            load = (load @ load).softmax(dim=1)
        batches.append(_stacked(batch))
    return batches


def _loader(device: torch.device, split: SmoothNoise, augmenter: Any, *, prefetch: bool) -> Loader:
    return Loader(
        split=split,  # type: ignore[arg-type]
        batch_size=BATCH, device=device, shuffle=True, augmenter=augmenter, seed=1, prefetch=prefetch,
    )  # fmt: skip


def _stacked(batch: Batch) -> Tensor:
    """(B, 8, H, W) on the CPU."""
    return torch.cat([getattr(batch, name) for name in IMAGES], dim=1).cpu()


def _differing(found: list[Tensor], reference: list[Tensor]) -> int:
    return sum(not torch.equal(*pair) for pair in zip(found, reference, strict=True))


def _count(name: str, value: int) -> Measure:
    return Measure(name=name, value=value, at_most=0)
