"""The joint transforms of `data/augment/cpu.py` on a whole batch, on the device where it lies.

Colours are changed by kornia's functions. Its random pipelines draw one order of changes for a whole batch, and their
warp inverts its matrices on the way, for which the host waits on a GPU: draws are those of `data/augment/draws.py`,
and the one warp of the four pictures is torch's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data.augment.draws import BRIGHTNESS, BY_HSV, BY_RGB, CONTRAST, SATURATION, Changes, Strengths
from data.schema import Batch

Where = Literal["auto", "cpu", "device"]
Number = TypeVar("Number", bound=np.generic)


def is_on_device(where: Where, device: torch.device) -> bool:
    """Whether a batch is changed after it was moved; 'auto' is the faster one.

    That is the device if it is a GPU. On a CPU, OpenCV is faster: in one thread of an AMD EPYC it changed 4 to 13
    times as many samples as the functions here at 64 to 224 px (`tests/benchmarks/augment.py`).
    """
    return device.type != "cpu" if where == "auto" else where == "device"


@dataclass(kw_only=True, eq=False)
class DeviceAugmenter(Strengths):
    """Changes a batch as an `Augmenter` of equal strengths does with an equal key, but for rounding and the noise."""

    def __call__(self, batch: Batch, *key: int) -> Batch:
        """`batch`, which stays as it is, changed as `key` decides: uint8 on its device, photographs channels-last.

        Equal keys make equal pictures on devices of one kind; a GPU's noise is not a CPU's.
        """
        count, _, height, width = batch.mask.shape
        drawn = self.draw(count, height, width, np.random.default_rng(key))
        pictures = _warped(_flipped([batch.bg, batch.fg_bg, batch.mask, batch.depth], drawn), drawn)
        photos, planes = torch.cat(pictures[:2]), torch.cat(pictures[2:])
        photos = _coloured(photos, drawn, slice(0, 2))
        if self.targets_too:
            planes = _coloured(planes, drawn, slice(2, 4))
        photos, planes = _levels(photos), _levels(planes)
        if self.erase and drawn.holes is not None:
            fills = np.rint([self.erase.bg_fill, self.erase.fg_bg_fill])
            photos = _erased(photos, _by_picture(drawn.holes), np.repeat(fills, count, axis=0))
        bg, fg_bg = photos.contiguous(memory_format=torch.channels_last).chunk(2)
        mask, depth = planes.chunk(2)
        return Batch(bg=bg, fg_bg=fg_bg, mask=mask, depth=depth)


def _flipped(pictures: list[Tensor], drawn: Changes) -> list[Tensor]:
    if drawn.flips is None:
        return pictures
    flipped = []
    for place, pixels in enumerate(pictures):
        for side, axis in enumerate((3, 2)):
            chosen = _sent(drawn.flips[:, place, side], pixels.device).view(-1, 1, 1, 1)
            pixels = torch.where(chosen, pixels.flip(axis), pixels)
        flipped.append(pixels)
    return flipped


def _warped(pictures: list[Tensor], drawn: Changes) -> list[Tensor]:
    """In levels as floats, if any sample is warped: all eight channels at once."""
    if not drawn.warped.any():
        return pictures
    eight = torch.cat([pixels.float() for pixels in pictures], dim=1)
    count, _, height, width = eight.shape
    places = F.affine_grid(
        _sent(_in_sides(drawn.warps, height, width), eight.device), [count, 1, height, width], align_corners=True
    )
    warped = F.grid_sample(eight, places, mode="bilinear", padding_mode="reflection", align_corners=True)
    return list(torch.split(warped, [pixels.shape[1] for pixels in pictures], dim=1))


def _in_sides(warps: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """`warps`, which are of pixels, for places from -1 to 1, the centres of the first and the last pixel."""
    half = np.array([width - 1, height - 1]) / 2
    turn, start = warps[:, :, :2], warps[:, :, 2]
    middle = np.einsum("nij,j->ni", turn, half) + start - half
    return np.concatenate([turn * half / half[:, None], (middle / half)[:, :, None]], axis=2)


def _coloured(pixels: Tensor, drawn: Changes, places: slice) -> Tensor:
    """Levels (2B, C, H, W) of the pictures at `places` of the K, one after the other, after jitter, shift and noise."""
    if not (drawn.jitter or drawn.shift or drawn.noise):
        return pixels
    pixels = pixels.float() / 255
    if drawn.jitter:
        order, factor = drawn.jitter
        pixels = _jittered(pixels, _by_picture(order[:, places]), _by_picture(factor[:, places]))
    if drawn.shift and places.start == 0:
        pixels = _shifted(pixels, _by_picture(drawn.shift.kind), _by_picture(drawn.shift.levels))
    if drawn.noise:
        pixels = _noisy(pixels, _by_picture(drawn.noise.deviation[:, places]), int(drawn.noise.seed[0, places.start]))
    return pixels * 255


def _jittered(pixels: Tensor, order: NDArray[np.int64], factor: NDArray[np.float64]) -> Tensor:
    """Each picture in its own order: those that are due the same change lie side by side for it."""
    now_at = np.arange(len(pixels))
    for step in range(order.shape[1]):
        kinds = order[now_at, step]
        together = np.argsort(kinds, kind="stable")
        now_at = now_at[together]
        parts = torch.split(pixels[_sent(together, pixels.device)], np.bincount(kinds).tolist())
        factors = factor[now_at, kinds[together]]
        changed, first = [], 0
        for kind, part in enumerate(parts):
            last = first + len(part)
            if last > first:
                changed.append(_jittered_alike(part, kind, _sent(factors[first:last], pixels.device)))
            first = last
        pixels = torch.cat(changed)
    return pixels[_sent(np.argsort(now_at), pixels.device)]


def _jittered_alike(pixels: Tensor, kind: int, factors: Tensor) -> Tensor:
    from kornia import enhance

    if kind == BRIGHTNESS:
        return enhance.adjust_brightness_accumulative(pixels, factors)
    if kind == CONTRAST:
        return enhance.adjust_contrast_with_mean_subtraction(pixels, factors)
    if pixels.shape[1] == 1:
        return pixels
    if kind == SATURATION:
        return enhance.adjust_saturation_with_gray_subtraction(pixels, factors)
    return enhance.adjust_hue(pixels, 2 * math.pi * factors)


def _shifted(photos: Tensor, kinds: NDArray[np.int64], levels: NDArray[np.float64]) -> Tensor:
    photos = photos.clone()
    for kind, change in ((BY_RGB, _shifted_by_rgb), (BY_HSV, _shifted_by_hsv)):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            here = _sent(rows, photos.device)
            photos[here] = change(photos[here], _sent(levels[rows], photos.device))
    return photos


def _shifted_by_rgb(photos: Tensor, levels: Tensor) -> Tensor:
    from kornia import enhance

    return enhance.shift_rgb(photos, *(levels / 255).unbind(1))


def _shifted_by_hsv(photos: Tensor, levels: Tensor) -> Tensor:
    from kornia import color

    hue, saturation, value = color.rgb_to_hsv(photos).unbind(1)
    hues, saturations, values = levels[:, :, None, None].unbind(1)
    hue = torch.remainder(hue + math.pi / 90 * hues, 2 * math.pi)
    is_grey = saturation < 0.5 / 255  # it has no hue to bring out
    saturation = (saturation + saturations / 255).clamp(0, 1).masked_fill(is_grey, 0)
    return color.hsv_to_rgb(torch.stack([hue, saturation, (value + values / 255).clamp(0, 1)], dim=1))


def _noisy(pixels: Tensor, deviations: NDArray[np.float64], seed: int) -> Tensor:
    rows = np.flatnonzero(deviations)
    if not len(rows):
        return pixels
    here = _sent(rows, pixels.device)
    deviation = _sent(deviations[rows] / 255, pixels.device).view(-1, 1, 1, 1)
    random = torch.Generator(pixels.device).manual_seed(seed)
    drawn = torch.randn((len(rows), *pixels.shape[1:]), generator=random, device=pixels.device)
    return pixels.index_add(0, here, drawn * deviation)


def _erased(photos: Tensor, holes: NDArray[np.int64], fills: NDArray[np.float64]) -> Tensor:
    """(N, 3, H, W) with the holes (N, C, 4) of each painted in its fill (N, 3)."""
    top, bottom, left, right = _sent(holes, photos.device)[:, :, :, None].unbind(2)
    rows, columns = (torch.arange(length, device=photos.device) for length in photos.shape[2:])
    tall, wide = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    hidden = (tall[:, :, :, None] & wide[:, :, None, :]).any(dim=1, keepdim=True)
    return torch.where(hidden, _sent(fills.astype(np.uint8), photos.device)[:, :, None, None], photos)


def _levels(pixels: Tensor) -> Tensor:
    return pixels if pixels.dtype == torch.uint8 else pixels.round().clamp(0, 255).to(torch.uint8)


def _by_picture(values: NDArray[Number]) -> NDArray[Number]:
    """(B, P, ...) as (P * B, ...): all of the first picture, then all of the next."""
    return np.swapaxes(values, 0, 1).reshape(-1, *values.shape[2:])


def _sent(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """On `device`, numbers in float32, without waiting for it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
