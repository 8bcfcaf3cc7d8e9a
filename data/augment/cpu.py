"""The joint transforms of a training sample on the CPU: one geometry for its four pictures, light and noise for each.

OpenCV makes every change in one or two passes over the bytes. Against albumentations' transforms of the same names this
spares their calls, which at 64 px cost more than the pixels do; tests/benchmarks/augment.py measures both.
"""

from __future__ import annotations

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
from data.schema import Pixels

LUMA = np.array([0.299, 0.587, 0.114])
"""Shares of red, green and blue in a grey level (ITU-R BT.601)."""


class Pictures(NamedTuple):
    """The four pictures of a sample without its ids: (H, W, 3), (H, W, 3), (H, W), (H, W), all uint8."""

    bg: Pixels
    fg_bg: Pixels
    mask: Pixels
    depth: Pixels


@dataclass(kw_only=True, eq=False)
class Augmenter(Strengths):
    """Draws one random change after the other; `reseed` decides all that follow."""

    def __post_init__(self) -> None:
        self.reseed(0)

    def reseed(self, *key: int) -> None:
        """Start the random numbers anew from `key`."""
        self._random = np.random.default_rng(key)

    def __call__(self, pictures: Pictures) -> Pictures:
        """The next random change of `pictures`, which stay as they are; shapes and types stay too."""
        height, width = pictures.mask.shape
        return self._changed(pictures, self.draw(1, height, width, self._random), 0)

    def change(self, stacks: tuple[Pixels, Pixels, Pixels, Pixels], *key: int) -> None:
        """Change a batch in place as `key` decides, whatever was drawn before; in any number of threads.

        Args:
            stacks: `bg` and `fg_bg` (B, H, W, 3), `mask` and `depth` (B, H, W).
            key: such as (seed, epoch, rank, batch).
        """
        count, height, width = stacks[2].shape
        drawn = self.draw(count, height, width, np.random.default_rng(key))
        for index in range(count):
            given = Pictures(*(stack[index] for stack in stacks))
            for old, new in zip(given, self._changed(given, drawn, index), strict=True):
                if new is not old:
                    old[:] = new

    def _changed(self, pictures: Pictures, drawn: Changes, index: int) -> Pictures:
        if drawn.flips is not None:
            flips = drawn.flips[index].tolist()
            pictures = Pictures(*(_flipped(pixels, *sides) for pixels, sides in zip(pictures, flips, strict=True)))
        if drawn.warped[index]:
            pictures = _warped(pictures, drawn.warps[index])
        changed = list(pictures)
        for place in range(4 if self.targets_too else 2):
            if drawn.jitter:
                changed[place] = _jittered(changed[place], drawn.jitter, (index, place))
            if drawn.shift and place < 2:
                changed[place] = _shifted(changed[place], drawn.shift, (index, place))
            if drawn.noise:
                changed[place] = _noisy(changed[place], drawn.noise, (index, place))
        if self.erase and drawn.holes is not None:
            for place, fill in enumerate((self.erase.bg_fill, self.erase.fg_bg_fill)):
                changed[place] = _erased(changed[place], drawn.holes[index, place], fill)
        return Pictures(*changed)


def _flipped(pixels: Pixels, left_right: bool, upside_down: bool) -> Pixels:
    if not (left_right or upside_down):
        return pixels
    return _pixels(cv2.flip(pixels, -1 if left_right and upside_down else int(left_right)))


def _warped(pictures: Pictures, warp: NDArray[np.float64]) -> Pictures:
    """Each target goes as the fourth channel of a photograph: OpenCV warps four at once faster than three."""
    bg, mask = _warped_pair(pictures.bg, pictures.mask, warp)
    fg_bg, depth = _warped_pair(pictures.fg_bg, pictures.depth, warp)
    return Pictures(bg, fg_bg, mask, depth)


def _warped_pair(photo: Pixels, plane: Pixels, warp: NDArray[np.float64]) -> tuple[Pixels, Pixels]:
    four = cv2.cvtColor(photo, cv2.COLOR_RGB2RGBA)
    cv2.insertChannel(plane, four, 3)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    four = cv2.warpAffine(four, warp, plane.shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return _pixels(cv2.cvtColor(four, cv2.COLOR_RGBA2RGB)), _pixels(cv2.extractChannel(four, 3))


def _jittered(pixels: Pixels, jitter: Jitter, at: tuple[int, int]) -> Pixels:
    """As torchvision's ColorJitter changes bytes, one after the other; of a plane, brightness and contrast alone."""
    factors = jitter.factor[at].tolist()
    for kind in jitter.order[at].tolist():
        factor = factors[kind]
        if kind == BRIGHTNESS:
            pixels = _scaled(pixels, factor, 0.0)
        elif kind == CONTRAST:
            pixels = _scaled(pixels, factor, (1 - factor) * _mean(pixels))
        elif pixels.ndim == 2:
            continue
        elif kind == SATURATION:
            pixels = _pixels(cv2.transform(pixels, factor * np.eye(3) + (1 - factor) * LUMA))
        else:
            pixels = _turned(pixels, factor)
    return pixels


def _scaled(pixels: Pixels, factor: float, levels: float) -> Pixels:
    return _pixels(cv2.addWeighted(pixels, factor, pixels, 0, levels))


def _mean(pixels: Pixels) -> float:
    """Grey level."""
    red, green, blue, _ = cv2.mean(pixels)
    return red if pixels.ndim == 2 else float(LUMA @ (red, green, blue))


def _turned(photo: Pixels, share: float) -> Pixels:
    """Hue turned by a share of the circle, which is 256 levels here: bytes wrap around as it does."""
    hsv = cv2.cvtColor(photo, cv2.COLOR_RGB2HSV_FULL)
    hsv[:, :, 0] += np.uint8(round(256 * share) % 256)
    return _pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _shifted(photo: Pixels, shift: Shift, at: tuple[int, int]) -> Pixels:
    if shift.kind[at] == NO_SHIFT:
        return photo
    levels = shift.levels[at]
    if shift.kind[at] == BY_RGB:
        return _pixels(cv2.transform(photo, np.column_stack([np.eye(3), levels])))
    hue, saturation, value = cv2.split(cv2.cvtColor(photo, cv2.COLOR_RGB2HSV_FULL))
    hue += np.uint8(round(256 / 180 * levels[0]) % 256)
    saturations = np.clip(np.rint(np.arange(256) + levels[1]), 0, 255).astype(np.uint8)
    saturations[0] = 0  # what is grey has no hue to bring out
    hsv = cv2.merge([hue, cv2.LUT(saturation, saturations), _scaled(_pixels(value), 1.0, levels[2])])
    return _pixels(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL))


def _noisy(pixels: Pixels, noise: Noise, at: tuple[int, int]) -> Pixels:
    """Rounded, not cut off to whole levels, by which the weakest noise would lose a tenth."""
    deviation = noise.deviation[at]
    if not deviation:
        return pixels
    cv2.setRNGSeed(int(noise.seed[at]))  # of this thread's generator
    drawn = np.empty((pixels.size, 1), np.float32)
    cv2.randn(drawn, np.zeros(1), np.full(1, deviation))
    return _pixels(cv2.add(pixels, drawn.reshape(pixels.shape), dtype=cv2.CV_8U))


def _erased(photo: Pixels, holes: NDArray[np.int64], fill: Colour) -> Pixels:
    if not holes.any():
        return photo
    photo = photo.copy()
    for top, bottom, left, right in holes.tolist():
        photo[top:bottom, left:right] = np.rint(fill)
    return photo


def _pixels(array: Any) -> Pixels:
    """A library's result as what it is known to be: uint8."""
    return np.asarray(array, np.uint8)
