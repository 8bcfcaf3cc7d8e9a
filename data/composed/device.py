"""Compose the batches of a recipe on their device, from sources that lie there: the CPU sends a row for each sample.

Shapes: B samples of a batch, M backgrounds. S is the side of the composed images in pixels, H and W are height and
width of the split's; h and w are height and width of a cutout.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.cache.composed import ComposedSplit
from data.cache.sources import CachedSources
from data.dataset.statistics import FOREGROUND_ABOVE
from data.images import Resize, resize_to
from data.schema import Batch

MAX_MEMORY_SHARE = 0.05
"""Of the device's memory: sources that need more stay on the CPU, which then composes the batches."""
MAX_PIXELS = 2**23
"""Pixels (S, S) that are composed at once; each takes about 100 bytes until it is done."""


def device_composer(split: object, device: torch.device) -> DeviceComposer | None:
    """A composer of `split` on a GPU; None if it is no recipe, or must be composed on the CPU.

    That is so if its sources are not in the cache or too large, and if images are cropped or padded.
    """
    if device.type != "cuda" or not isinstance(split, ComposedSplit) or not isinstance(split.sources, CachedSources):
        return None
    if not split.is_whole or split.has_validity:
        return None
    if split.sources.nbytes > MAX_MEMORY_SHARE * torch.cuda.get_device_properties(device).total_memory:
        return None
    return DeviceComposer(split, device)


class DeviceComposer:
    """Composes the samples of a split like its `gather`, to within one grey level.

    Args:
        split: a recipe whose sources are in the cache.
        device: of the batches.

    Raises:
        TypeError: if the sources are not in the cache.
        ValueError: if images are cropped or padded.
    """

    def __init__(self, split: ComposedSplit, device: torch.device) -> None:
        if not isinstance(split.sources, CachedSources):
            raise TypeError("Only sources in the cache can be copied to a device.")
        if not split.is_whole or split.has_validity:
            raise ValueError("Images that are cropped or padded are composed on the CPU.")
        self._split, self._device = split, device
        self._sources = _sources(split.sources, device)
        size, how = self._sources.depth.shape[1], split.fitting.how
        grows = max(split.sides) > size
        self._weights = (
            [_weights(size, side, how, grows).to(device) for side in split.sides] if split.is_resized else None
        )

    def __call__(self, rows: NDArray[np.int64]) -> Batch:
        """Compose the samples of `rows` (B,), in that order: uint8 on the device, photographs channels-last."""
        placements = torch.from_numpy(self._split.device_rows(rows))
        if self._device.type == "cuda":
            placements = placements.pin_memory()
        placements = placements.to(self._device, non_blocking=True)
        step = max(1, MAX_PIXELS // self._sources.depth.shape[1] ** 2)
        parts = [self._compose(part) for part in torch.split(placements, step)]
        bg, fg_bg, mask, depth = (torch.cat(images) for images in zip(*parts, strict=True))
        return Batch(
            bg=bg.permute(0, 3, 1, 2),
            fg_bg=fg_bg.permute(0, 3, 1, 2),
            mask=mask.unsqueeze(1),
            depth=depth.unsqueeze(1),
        )

    def _compose(self, placements: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Photographs (B, H, W, 3) and planes (B, H, W), uint8, of placements (B, 8)."""
        background, start, height, width, mirrored, top, left, level = placements[:, :, None, None].unbind(1)
        rows = background.view(-1)
        sources = self._sources
        side = torch.arange(sources.depth.shape[1], device=self._device)
        row, column = side[:, None] - top, side[None, :] - left
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        column = torch.where(mirrored > 0, width - 1 - column, column)
        pixel = torch.where(inside, row * width + column, 0)
        alpha = torch.where(inside, sources.cutouts[start + 3 * height * width + pixel], 0)
        channels = (start + 3 * pixel)[..., None] + torch.arange(3, device=self._device)
        rgb = torch.where(inside[..., None], sources.cutouts[channels], 0)
        opacity = (255 - alpha.float())[..., None]
        blended = (sources.bg[rows].float() * opacity / 255).round() + rgb
        ceiling = torch.where(alpha > FOREGROUND_ABOVE, level, 255)
        depth = torch.minimum(sources.depth[rows], ceiling.to(torch.uint8))
        fg_bg, bg = blended.clamp(max=255), sources.resized_bg[rows]
        if self._weights is None:
            return bg, fg_bg.to(torch.uint8), alpha, depth
        # Outside of what a cutout changes, images are the resized background to the last level.
        changed = _resized(inside[..., None].float(), [weights.abs() for weights in self._weights])[..., 0] > 0
        planes = _resized(torch.stack([alpha, depth], dim=3).float(), self._weights)
        fg_bg, mask, depth = _levels(_resized(fg_bg, self._weights)), _levels(planes[..., 0]), _levels(planes[..., 1])
        return (
            bg,
            torch.where(changed[..., None], fg_bg, bg),
            torch.where(changed, mask, 0),
            torch.where(changed, depth, sources.resized_depth[rows]),
        )


class _Sources:
    """The sources of a recipe on a device, uint8."""

    def __init__(self, sources: CachedSources, device: torch.device) -> None:
        arrays = sources.arrays()
        self.bg, self.depth, self.cutouts, self.resized_bg, self.resized_depth = (
            torch.from_numpy(np.array(array)).to(device) for array in arrays
        )
        """(M, S, S, 3), (M, S, S), (bytes of all cutouts,), (M, H, W, 3) and (M, H, W)."""


@lru_cache(maxsize=2)
def _sources(sources: CachedSources, device: torch.device) -> _Sources:
    """Cached: the loaders of all epochs and of the evaluation have the same sources."""
    return _Sources(sources, device)


def _weights(source: int, target: int, how: Resize, grows: bool) -> Tensor:
    """(T, S): how OpenCV weighs the pixels of an axis: resizing is linear, and separate along each axis.

    `grows` is whether any axis grows: 'area' is then bilinear along both.
    """
    identity = np.eye(source, dtype=np.float32)
    how = "bilinear" if how == "area" and grows else how
    return torch.from_numpy(resize_to(identity, target, source, how=how).copy())


def _resized(images: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Resize (B, S, S, C) to (B, H, W, C)."""
    return torch.einsum("ty,byxc,ux->btuc", weights[0], images, weights[1])


def _levels(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
