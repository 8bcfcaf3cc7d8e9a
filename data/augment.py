"""The joint transforms of a training sample: one geometry for its four pictures, light and noise for each photograph.

albumentations changes the colours; it is imported when the first such transform is built, for that takes two seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from data.erase import Erase
from data.schema import Pixels

if TYPE_CHECKING:
    from albumentations import ImageOnlyTransform

RGB_SHIFT = 20
"""Levels by which red, green and blue are shifted at most, each on its own."""
HSV_SHIFT = (20, 30, 20)
"""Levels by which hue (of 180), saturation and value (of 255) are shifted at most."""


class Pictures(NamedTuple):
    """The four pictures of a sample without its ids: (H, W, 3), (H, W, 3), (H, W), (H, W), all uint8."""

    bg: Pixels
    fg_bg: Pixels
    mask: Pixels
    depth: Pixels


@dataclass(kw_only=True, eq=False)
class Augmenter:
    """Draws one random change after the other; `reseed` decides all that follow.

    Flips, rotation and zoom are drawn once for the four pictures. Then jitter, shift, noise and erasing, in this order,
    are drawn for `bg` and `fg_bg` each on its own, and never touch what is to be predicted. Two published errors can
    be asked for.
    """

    hflip: float = 0.0
    """Probability of a left-right flip."""
    vflip: float = 0.0
    """Probability of an upside-down flip."""
    rotate: float = 0.0
    """Largest rotation to either side, in degrees: uniform, bilinear, the border filled by reflection."""
    rotate_p: float = 1.0
    """Probability of a rotation."""
    zoom: float = 0.0
    """Largest share of the side that is cropped away."""
    jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by up to 1 plus or minus this, in any order."""
    hue: float = 0.0
    """Hue turns by up to this share of the colour circle, to either side."""
    shift: float = 0.0
    """Probability of a shift: by `RGB_SHIFT`, or, as likely, by `HSV_SHIFT`."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian noise, as a share of full scale; 0 is none."""
    noise_low: float = 0.0
    """Smallest standard deviation."""
    noise_p: float = 0.5
    """Probability of noise."""
    erase: Erase | None = None
    """Rectangles to paint over."""
    flips_apart: bool = False
    """A published error: `bg` and `fg_bg` are flipped independently, and what is to be predicted never."""
    targets_too: bool = False
    """A published error: jitter and noise are drawn for the mask and for the depth as well."""

    def __post_init__(self) -> None:
        self._jitter = _jitter(self.jitter, self.hue) if self.jitter or self.hue else None
        self._shifts = _shifts() if self.shift else []
        self.reseed(0)

    def reseed(self, *key: int) -> None:
        """Start the random numbers anew from `key`, such as (seed, epoch, rank)."""
        own, *others = (int(seed) for seed in np.random.SeedSequence(key).generate_state(4))
        self._draw = np.random.default_rng(own)
        for transform, seed in zip((self._jitter, *self._shifts), others, strict=False):
            if transform is not None:
                transform.set_random_seed(seed)

    def __call__(self, pictures: Pictures) -> Pictures:
        """The next random change of `pictures`, which stay as they are; shapes and types stay too."""
        pictures = self._zoomed(self._rotated(self._flipped(pictures)))
        bg, fg_bg, mask, depth = pictures
        bg, fg_bg = (self._noisy(self._shifted(self._jittered(photo))) for photo in (bg, fg_bg))
        if self.targets_too:
            mask, depth = (self._noisy(self._jittered(plane)) for plane in (mask, depth))
        if self.erase and self.erase.p:
            bg, fg_bg = self.erase.in_bg(bg, self._draw), self.erase.in_fg_bg(fg_bg, self._draw)
        return Pictures(bg, fg_bg, mask, depth)

    def _flipped(self, pictures: Pictures) -> Pictures:
        if not (self.hflip or self.vflip):
            return pictures
        if self.flips_apart:
            bg, fg_bg = (_flip(photo, *self._sides()) for photo in (pictures.bg, pictures.fg_bg))
            return pictures._replace(bg=bg, fg_bg=fg_bg)
        sides = self._sides()
        return Pictures(*(_flip(pixels, *sides) for pixels in pictures))

    def _sides(self) -> tuple[bool, bool]:
        """Whether left and right, and whether top and bottom change places."""
        return self._happens(self.hflip), self._happens(self.vflip)

    def _rotated(self, pictures: Pictures) -> Pictures:
        if not (self.rotate and self._happens(self.rotate_p)):
            return pictures
        height, width = pictures.mask.shape
        degrees = self._draw.uniform(-self.rotate, self.rotate)
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)

        def rotate(pixels: Pixels) -> Pixels:
            border = cv2.BORDER_REFLECT_101
            return _pixels(cv2.warpAffine(pixels, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=border))

        return Pictures(*(rotate(pixels) for pixels in pictures))

    def _zoomed(self, pictures: Pictures) -> Pictures:
        if not self.zoom:
            return pictures
        height, width = pictures.mask.shape
        share = 1 - self._draw.uniform(0, self.zoom)
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        top = int(self._draw.integers(height - rows + 1))
        left = int(self._draw.integers(width - columns + 1))

        def resize(pixels: Pixels) -> Pixels:
            crop = pixels[top : top + rows, left : left + columns]
            return _pixels(cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR))

        return Pictures(*(resize(pixels) for pixels in pictures))

    def _jittered(self, pixels: Pixels) -> Pixels:
        return _pixels(self._jitter(image=pixels)["image"]) if self._jitter else pixels

    def _shifted(self, photo: Pixels) -> Pixels:
        if not (self.shift and self._happens(self.shift)):
            return photo
        return _pixels(self._shifts[self._draw.integers(2)](image=photo)["image"])

    def _noisy(self, pixels: Pixels) -> Pixels:
        """By OpenCV: albumentations cuts noise off to whole levels, so that the weakest loses a tenth of it."""
        if not (self.noise and self._happens(self.noise_p)):
            return pixels
        deviation = 255 * self._draw.uniform(self.noise_low, self.noise)
        cv2.setRNGSeed(int(self._draw.integers(2**31)))
        noise = np.empty((pixels.size, 1), np.float32)
        cv2.randn(noise, np.zeros(1), np.full(1, deviation))
        return _pixels(cv2.add(pixels, noise.reshape(pixels.shape), dtype=cv2.CV_8U))

    def _happens(self, probability: float) -> bool:
        return self._draw.random() < probability


def _flip(pixels: Pixels, left_right: bool, upside_down: bool) -> Pixels:
    if left_right:
        pixels = _pixels(cv2.flip(pixels, 1))
    return _pixels(cv2.flip(pixels, 0)) if upside_down else pixels


def _jitter(jitter: float, hue: float) -> ImageOnlyTransform:
    """On a grey picture, brightness and contrast alone."""
    around = (1 - jitter, 1 + jitter)
    a = _albumentations()
    return a.ColorJitter(brightness=around, contrast=around, saturation=around, hue=(-hue, hue), p=1.0)


def _shifts() -> list[ImageOnlyTransform]:
    a = _albumentations()
    red_green_blue = a.RGBShift(RGB_SHIFT, RGB_SHIFT, RGB_SHIFT, p=1.0)
    return [red_green_blue, a.HueSaturationValue(*HSV_SHIFT, p=1.0)]


def _albumentations() -> Any:
    """albumentations, without its look for a newer version on the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations


def _pixels(array: Any) -> Pixels:
    """A library's result as what it is known to be: uint8."""
    return np.asarray(array, np.uint8)
