"""The joint augmentation of `data/augment/cpu.py` for a whole batch on its device.

Colours are changed with kornia's functions. Its random pipelines are not used: they draw one order of transforms for a
whole batch, and their warp inverts matrices, for which the host waits for the GPU. The random parameters come from
`data/augment/draws.py`, and torch warps the four images at once.
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

from data.augment.cpu import DEPTH
from data.augment.draws import BRIGHTNESS, BY_HSV, BY_RGB, CONTRAST, SATURATION, Changes, Strengths
from data.schema import Batch

AugmentOn = Literal["auto", "cpu", "device"]
Number = TypeVar("Number", bound=np.generic)


def is_on_device(augment_on: AugmentOn, device: torch.device) -> bool:
    """Whether a batch is augmented after it was moved to `device`; 'auto' chooses the faster way.

    That is the device if it is a GPU. On a CPU, OpenCV is faster: in one thread of an AMD EPYC, it augmented 4 to 13
    times as many samples per second as this module at 64 to 224 px (`tests/benchmarks/augment.py`).
    """
    return device.type != "cpu" if augment_on == "auto" else augment_on == "device"


@dataclass(kw_only=True, eq=False)
class DeviceAugmenter(Strengths):
    """Augments batches like an `Augmenter` with the same strengths and key, except for rounding and noise values."""

    def __call__(self, batch: Batch, *key: int) -> Batch:
        """Augment `batch`, which is not modified, with the random numbers of `key`.

        Returns:
            uint8 on the batch's device, with photographs in channels-last format. The same key gives the same images on
            devices of one kind; the noise of a GPU differs from that of a CPU.
        """
        count, _, height, width = batch.mask.shape
        changes = self.draw(count, height, width, np.random.default_rng(key))
        images = _warp(_flip([batch.bg, batch.fg_bg, batch.mask, batch.depth], changes), changes)
        valid = None if batch.valid is None else _move_valid(batch.valid, changes)
        photos, planes = torch.cat(images[:2]), torch.cat(images[2:])
        photos = self._change_colours(photos, changes, slice(0, 2))
        if self.targets_too:
            planes = self._change_colours(planes, changes, slice(2, 4))
        photos, planes = _to_uint8(photos), _to_uint8(planes)
        if self.erase and changes.holes is not None:
            fills = np.rint([self.erase.bg_fill, self.erase.fg_bg_fill])
            photos = _erase(photos, _by_image(changes.holes), np.repeat(fills, count, axis=0))
        bg, fg_bg = photos.contiguous(memory_format=torch.channels_last).chunk(2)
        mask, depth = planes.chunk(2)
        return Batch(bg=bg, fg_bg=fg_bg, mask=mask, depth=depth, valid=valid)

    def _change_colours(self, pixels: Tensor, changes: Changes, images: slice) -> Tensor:
        """Apply jitter, shift and noise to levels (2B, C, H, W): the two `images` of the K, one after the other."""
        if not (changes.jitter or changes.shift or changes.noise):
            return pixels
        pixels = pixels.float() / 255
        if changes.jitter:
            order, factor = changes.jitter
            pixels = _jitter(pixels, _by_image(order[:, images]), _by_image(factor[:, images]))
        if changes.shift and images.start == 0:
            pixels = _shift(pixels, _by_image(changes.shift.kind), _by_image(changes.shift.levels))
        if changes.noise:
            seed = int(changes.noise.seed[0, images.start])
            planes = pixels.shape[1] if self.noise_per_channel else 1
            pixels = _add_noise(pixels, _by_image(changes.noise.deviation[:, images]), seed, planes)
        return pixels * 255


def _flip(images: list[Tensor], changes: Changes) -> list[Tensor]:
    if changes.flips is None:
        return images
    return [_flip_image(pixels, changes.flips[:, image]) for image, pixels in enumerate(images)]


def _flip_image(pixels: Tensor, flips: NDArray[np.bool_]) -> Tensor:
    """Flip the images (B, C, H, W) that `flips` (B, 2) says."""
    for side, axis in enumerate((3, 2)):
        chosen = _to_device(flips[:, side], pixels.device).view(-1, 1, 1, 1)
        pixels = torch.where(chosen, pixels.flip(axis), pixels)
    return pixels


def _move_valid(valid: Tensor, changes: Changes) -> Tensor:
    """Flip and warp validity masks (B, 1, H, W) like the depth, as `data/augment/cpu.py` does."""
    if changes.flips is not None:
        valid = _flip_image(valid, changes.flips[:, DEPTH])
    if not changes.warped.any():
        return valid
    safe = -F.max_pool2d(-valid.float(), 3, stride=1, padding=1)
    warped = F.grid_sample(safe, _grid(safe, changes), mode="nearest", padding_mode="zeros", align_corners=True)
    chosen = _to_device(changes.warped, valid.device).view(-1, 1, 1, 1)
    return torch.where(chosen, _to_uint8(warped), valid)


def _warp(images: list[Tensor], changes: Changes) -> list[Tensor]:
    """If any sample is warped, all eight channels of the four images at once, to float levels."""
    if not changes.warped.any():
        return images
    channels = torch.cat([pixels.float() for pixels in images], dim=1)
    grid = _grid(channels, changes)
    warped = F.grid_sample(channels, grid, mode="bilinear", padding_mode="reflection", align_corners=True)
    return list(torch.split(warped, [pixels.shape[1] for pixels in images], dim=1))


def _grid(images: Tensor, changes: Changes) -> Tensor:
    """The source of each pixel of images (B, C, H, W), as `grid_sample` takes it."""
    count, _, height, width = images.shape
    theta = _to_device(_normalised(changes.warps, height, width), images.device)
    return F.affine_grid(theta, [count, 1, height, width], align_corners=True)


def _normalised(warps: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Convert `warps` from pixels to coordinates from -1 to 1, the centres of the first and the last pixel."""
    half = np.array([width - 1, height - 1]) / 2
    linear, offset = warps[:, :, :2], warps[:, :, 2]
    centre = np.einsum("nij,j->ni", linear, half) + offset - half
    return np.concatenate([linear * half / half[:, None], (centre / half)[:, :, None]], axis=2)


def _jitter(pixels: Tensor, order: NDArray[np.int64], factor: NDArray[np.float64]) -> Tensor:
    """Jitter each image in its own order: in each step, images are sorted by the kind of jitter that is next."""
    rows = np.arange(len(pixels))
    for step in range(order.shape[1]):
        kinds = order[rows, step]
        by_kind = np.argsort(kinds, kind="stable")
        rows = rows[by_kind]
        parts = torch.split(pixels[_to_device(by_kind, pixels.device)], np.bincount(kinds).tolist())
        factors = factor[rows, kinds[by_kind]]
        changed, first = [], 0
        for kind, part in enumerate(parts):
            last = first + len(part)
            if last > first:
                changed.append(_jitter_one_kind(part, kind, _to_device(factors[first:last], pixels.device)))
            first = last
        pixels = torch.cat(changed)
    return pixels[_to_device(np.argsort(rows), pixels.device)]


def _jitter_one_kind(pixels: Tensor, kind: int, factors: Tensor) -> Tensor:
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


def _shift(photos: Tensor, kinds: NDArray[np.int64], levels: NDArray[np.float64]) -> Tensor:
    photos = photos.clone()
    for kind, change in ((BY_RGB, _shift_rgb), (BY_HSV, _shift_hsv)):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            indices = _to_device(rows, photos.device)
            photos[indices] = change(photos[indices], _to_device(levels[rows], photos.device))
    return photos


def _shift_rgb(photos: Tensor, levels: Tensor) -> Tensor:
    from kornia import enhance

    return enhance.shift_rgb(photos, *(levels / 255).unbind(1))


def _shift_hsv(photos: Tensor, levels: Tensor) -> Tensor:
    from kornia import color

    hue, saturation, value = color.rgb_to_hsv(photos).unbind(1)
    hues, saturations, values = levels[:, :, None, None].unbind(1)
    hue = torch.remainder(hue + math.pi / 90 * hues, 2 * math.pi)
    is_grey = saturation < 0.5 / 255  # its hue is undefined: it must stay grey
    saturation = (saturation + saturations / 255).clamp(0, 1).masked_fill(is_grey, 0)
    return color.hsv_to_rgb(torch.stack([hue, saturation, (value + values / 255).clamp(0, 1)], dim=1))


def _add_noise(pixels: Tensor, deviations: NDArray[np.float64], seed: int, planes: int) -> Tensor:
    """Add noise of 1 or C `planes` to each of (N, C, H, W) images."""
    rows = np.flatnonzero(deviations)
    if not len(rows):
        return pixels
    deviation = _to_device(deviations[rows] / 255, pixels.device).view(-1, 1, 1, 1)
    random = torch.Generator(pixels.device).manual_seed(seed)
    noise = torch.randn((len(rows), planes, *pixels.shape[2:]), generator=random, device=pixels.device)
    return pixels.index_add(0, _to_device(rows, pixels.device), (noise * deviation).expand(-1, pixels.shape[1], -1, -1))


def _erase(photos: Tensor, holes: NDArray[np.int64], fills: NDArray[np.float64]) -> Tensor:
    """Fill the rectangles (N, C, 4) of photographs (N, 3, H, W) with the colours (N, 3)."""
    top, bottom, left, right = _to_device(holes, photos.device)[:, :, :, None].unbind(2)
    rows, columns = (torch.arange(length, device=photos.device) for length in photos.shape[2:])
    in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
    erased = (in_rows[:, :, :, None] & in_columns[:, :, None, :]).any(dim=1, keepdim=True)
    return torch.where(erased, _to_device(fills.astype(np.uint8), photos.device)[:, :, None, None], photos)


def _to_uint8(pixels: Tensor) -> Tensor:
    return pixels if pixels.dtype == torch.uint8 else pixels.round().clamp(0, 255).to(torch.uint8)


def _by_image(values: NDArray[Number]) -> NDArray[Number]:
    """Reshape (B, P, ...) to (P * B, ...): all values of the first image, then all of the next."""
    return np.swapaxes(values, 0, 1).reshape(-1, *values.shape[2:])


def _to_device(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """Copy to `device` without waiting for it; floating-point numbers become float32."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
