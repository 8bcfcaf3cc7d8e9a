"""The joint transforms of a training sample: one geometry for its four pictures, light and noise for each photograph.

albumentations does the work; it is imported when the first transform is built, for that takes two seconds.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from data.schema import Pixels

if TYPE_CHECKING:
    import albumentations


class Pictures(NamedTuple):
    """The four pictures of a sample without its ids: (H, W, 3), (H, W, 3), (H, W), (H, W), all uint8."""

    bg: Pixels
    fg_bg: Pixels
    mask: Pixels
    depth: Pixels


class Augmenter:
    """Draws one random change after the other; `reseed` decides all that follow.

    Args:
        hflip: probability of a left-right flip.
        rotate: largest rotation to either side, in degrees; the border is filled by reflection.
        zoom: largest share of the side that is cropped away.
        jitter: brightness, contrast and saturation change by up to this share, hue by up to a tenth of it.
        noise: largest standard deviation of Gaussian noise, as a share of full scale; half of the photographs get some.

    The geometric part is drawn once for the four pictures. Jitter and noise are drawn for `bg` and `fg_bg` each on its
    own, and never touch what is to be predicted.
    """

    def __init__(self, *, hflip: float, rotate: float, zoom: float, jitter: float, noise: float) -> None:
        self._geometry = _geometry(hflip=hflip, rotate=rotate)
        self._zoom = zoom
        self._photo = _photometry(jitter=jitter, noise=noise)
        self._draw = np.random.default_rng(0)

    def reseed(self, *key: int) -> None:
        """Start the random numbers anew from `key`, such as (seed, epoch, rank)."""
        seeds = np.random.SeedSequence(key).generate_state(3)
        self._draw = np.random.default_rng(int(seeds[0]))
        for transform, seed in ((self._geometry, seeds[1]), (self._photo, seeds[2])):
            if transform is not None:
                transform.set_random_seed(int(seed))

    def __call__(self, pictures: Pictures) -> Pictures:
        """The next random change of `pictures`; shapes and types stay."""
        if self._zoom:
            pictures = self._zoomed(pictures)
        if self._geometry is not None:
            drawn = self._geometry(image=pictures.bg, fg_bg=pictures.fg_bg, mask=pictures.mask, depth=pictures.depth)
            pictures = Pictures(drawn["image"], drawn["fg_bg"], drawn["mask"], drawn["depth"])
        if self._photo is not None:
            pictures = pictures._replace(
                bg=self._photo(image=pictures.bg)["image"], fg_bg=self._photo(image=pictures.fg_bg)["image"]
            )
        return pictures

    def _zoomed(self, pictures: Pictures) -> Pictures:
        height, width = pictures.mask.shape
        share = 1 - self._draw.uniform(0, self._zoom)
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        top = int(self._draw.integers(height - rows + 1))
        left = int(self._draw.integers(width - columns + 1))

        def resize(pixels: Pixels) -> Any:
            crop = pixels[top : top + rows, left : left + columns]
            return cv2.resize(crop, (width, height), interpolation=cv2.INTER_LINEAR)

        return Pictures(*(resize(pixels) for pixels in pictures))


def _geometry(*, hflip: float, rotate: float) -> albumentations.Compose | None:
    if not (hflip or rotate):
        return None
    a = _albumentations()
    steps: list[Any] = []
    if hflip:
        steps.append(a.HorizontalFlip(p=hflip))
    if rotate:
        steps.append(a.Rotate(limit=(-rotate, rotate), border_mode=cv2.BORDER_REFLECT_101, p=1.0))
    targets = {"fg_bg": "image", "depth": "mask"}
    return a.Compose(steps, additional_targets=targets, mask_interpolation=cv2.INTER_LINEAR)


def _photometry(*, jitter: float, noise: float) -> albumentations.Compose | None:
    if not (jitter or noise):
        return None
    a = _albumentations()
    steps: list[Any] = []
    if jitter:
        around = (1 - jitter, 1 + jitter)
        hue = jitter / 10
        steps.append(a.ColorJitter(brightness=around, contrast=around, saturation=around, hue=(-hue, hue), p=1.0))
    if noise:
        steps.append(a.GaussNoise(std_range=(0.0, noise), p=0.5))
    return a.Compose(steps)


def _albumentations() -> Any:
    """albumentations, without its look for a newer version on the network."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations

    return albumentations
