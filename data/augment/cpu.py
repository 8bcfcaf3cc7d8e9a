"""Joint augmentation on the CPU: one geometry for the four images of a sample, colours and noise for each image.

OpenCV applies each transform in one or two passes over the bytes. The transforms of albumentations have an overhead per
call that exceeds the time for the pixels of a 64 px image; tests/benchmarks/augment.py measures both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from data.augment.draws import (
    BRIGHTNESS,
    BY_RGB,
    CONTRAST,
    NO_SHIFT,
    SATURATION,
    Changes,
    Jitter,
    Noise,
    Shift,
    Strengths,
)
from data.augment.erase import Colour
from data.augment.transforms import Transforms
from data.schema import Pixels

DEPTH = 3
"""Index of the depth among the images, whose flips are also those of the validity mask."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the grey level (ITU-R BT.601)."""


class SampleImages(NamedTuple):
    """The four images of a sample, uint8: `bg` and `fg_bg` (H, W, 3), `mask` and `depth` (H, W)."""

    bg: Pixels
    fg_bg: Pixels
    mask: Pixels
    depth: Pixels


@dataclass(kw_only=True, eq=False)
class Augmenter(Strengths):
    """Augments batches in place."""

    transforms: Transforms | None = None
    """Applied after the built-in transforms."""

    def change(self, stacks: tuple[Pixels, Pixels, Pixels, Pixels], *key: int, valid: Pixels | None = None) -> None:
        """Augment a batch in place with the random numbers of `key`. Safe to call from several threads.

        Args:
            stacks: `bg` and `fg_bg` (B, H, W, 3), `mask` and `depth` (B, H, W), uint8.
            key: such as (seed, epoch, rank, batch).
            valid: validity masks of the depth (B, H, W), which follow its geometry.
        """
        count, height, width = stacks[2].shape
        changes = self.draw(count, height, width, np.random.default_rng(key))
        for sample in range(count):
            images = SampleImages(*(stack[sample] for stack in stacks))
            for old, new in zip(images, self._apply(images, changes, sample), strict=True):
                if new is not old:
                    old[:] = new
            if valid is not None:
                valid[sample] = _move_valid(valid[sample], changes, sample)
        if self.transforms:
            masks = {} if valid is None else {"valid": valid}
            self.transforms.change(dict(zip(SampleImages._fields, stacks, strict=True)) | masks, *key)

    def _apply(self, images: SampleImages, changes: Changes, sample: int) -> SampleImages:
        if changes.flips is not None:
            flips = changes.flips[sample].tolist()
            images = SampleImages(*(_flip(pixels, *sides) for pixels, sides in zip(images, flips, strict=True)))
        if changes.warped[sample]:
            images = _warp(images, changes.warps[sample])
        changed = list(images)
        for image in range(4 if self.targets_too else 2):
            if changes.jitter:
                changed[image] = _jitter(changed[image], changes.jitter, (sample, image))
            if changes.shift and image < 2:
                changed[image] = _shift(changed[image], changes.shift, (sample, image))
            if changes.noise:
                changed[image] = _add_noise(changed[image], changes.noise, (sample, image), self.noise_per_channel)
        if self.erase and changes.holes is not None:
            for image, fill in enumerate((self.erase.bg_fill, self.erase.fg_bg_fill)):
                changed[image] = _erase(changed[image], changes.holes[sample, image], fill)
        return SampleImages(*changed)


def _flip(pixels: Pixels, left_right: bool, upside_down: bool) -> Pixels:
    if not (left_right or upside_down):
        return pixels
    return _pixels(cv2.flip(pixels, -1 if left_right and upside_down else int(left_right)))


def _warp(images: SampleImages, warp: NDArray[np.float64]) -> SampleImages:
    """Each target is warped as the fourth channel of a photograph: OpenCV is faster with four channels than three."""
    bg, mask = _warp_pair(images.bg, images.mask, warp)
    fg_bg, depth = _warp_pair(images.fg_bg, images.depth, warp)
    return SampleImages(bg, fg_bg, mask, depth)


def _move_valid(valid: Pixels, changes: Changes, sample: int) -> Pixels:
    """Flip and warp a validity mask (H, W) like the depth: nearest neighbour, and invalid outside of the image.

    A warped pixel is valid only if the 3 x 3 pixels around its source are: its depth is interpolated from some of them.
    """
    if changes.flips is not None:
        valid = _flip(valid, *changes.flips[sample, DEPTH].tolist())
    if not changes.warped[sample]:
        return valid
    warp = changes.warps[sample]
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    safe = cv2.erode(valid, np.ones((3, 3), np.uint8))
    return _pixels(cv2.warpAffine(safe, warp, valid.shape[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT))


def _warp_pair(photo: Pixels, plane: Pixels, warp: NDArray[np.float64]) -> tuple[Pixels, Pixels]:
    four = cv2.cvtColor(photo, cv2.COLOR_RGB2RGBA)
    cv2.insertChannel(plane, four, 3)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    four = cv2.warpAffine(four, warp, plane.shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return _pixels(cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)), _pixels(cv2.extractChannel(four, 3))


def _jitter(pixels: Pixels, jitter: Jitter, at: tuple[int, int]) -> Pixels:
    """Apply the kinds of jitter in their order, as torchvision's ColorJitter does on uint8.

    Only brightness and contrast apply to a plane.
    """
    factors = jitter.factor[at].tolist()
    for kind in jitter.order[at].tolist():
        factor = factors[kind]
        if kind == BRIGHTNESS:
            pixels = _scale(pixels, factor, 0.0)
        elif kind == CONTRAST:
            pixels = _scale(pixels, factor, (1 - factor) * _mean_grey(pixels))
        elif pixels.ndim == 2:
            continue
        elif kind == SATURATION:
            pixels = _pixels(cv2.transform(pixels, factor * np.eye(3) + (1 - factor) * LUMA))
        else:
            pixels = _rotate_hue(pixels, factor)
    return pixels


def _scale(pixels: Pixels, factor: float, offset: float) -> Pixels:
    return _pixels(cv2.addWeighted(pixels, factor, pixels, 0, offset))


def _mean_grey(pixels: Pixels) -> float:
    red, green, blue, _ = cv2.mean(pixels)
    return red if pixels.ndim == 2 else float(LUMA @ (red, green, blue))


def _rotate_hue(photo: Pixels, share: float) -> Pixels:
    """Rotate the hue by a share of the circle, which has 256 levels: uint8 wraps around like the circle."""
    hsv = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV_FULL)
    hsv[:, :, 0] += np.uint8(round(256 * share) % 256)
    return _pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _shift(photo: Pixels, shift: Shift, at: tuple[int, int]) -> Pixels:
    if shift.kind[at] == NO_SHIFT:
        return photo
    levels = shift.levels[at]
    if shift.kind[at] == BY_RGB:
        return _pixels(cv2.transform(photo, np.column_stack([np.eye(3), levels])))
    hue, saturation, value = cv2.split(cv2.cvtColor(photo, cv2.COLOR_RGB2HSV_FULL))
    hue += np.uint8(round(256 / 180 * levels[0]) % 256)
    saturations = np.clip(np.rint(np.arange(256) + levels[1]), 0, 255).astype(np.uint8)
    saturations[0] = 0  # the hue of grey is undefined: it must stay grey
    hsv = cv2.merge([hue, cv2.LUT(saturation, saturations), _scale(_pixels(value), 1.0, levels[2])])
    return _pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _add_noise(pixels: Pixels, noise: Noise, at: tuple[int, int], per_channel: bool) -> Pixels:
    """The sum is rounded, not truncated: that would weaken the smallest deviation by a tenth."""
    deviation = noise.deviation[at]
    if not deviation:
        return pixels
    cv2.setRNGSeed(int(noise.seed[at]))  # of this thread's generator
    shape = pixels.shape if per_channel else pixels.shape[:2]
    values = np.empty((math.prod(shape), 1), np.float32)
    cv2.randn(values, np.zeros(1), np.full(1, deviation))
    added = values.reshape(shape)
    if added.ndim < pixels.ndim:
        added = np.repeat(added[:, :, None], pixels.shape[2], axis=2)
    return _pixels(cv2.add(pixels, added, dtype=cv2.CV_8U))


def _erase(photo: Pixels, holes: NDArray[np.int64], fill: Colour) -> Pixels:
    if not holes.any():
        return photo
    photo = photo.copy()
    for top, bottom, left, right in holes.tolist():
        photo[top:bottom, left:right] = np.rint(fill)
    return photo


def _pixels(array: Any) -> Pixels:
    """Type the result of OpenCV; it is uint8 already."""
    return np.asarray(array, np.uint8)
