"""The strengths of augmentation, and the random parameters that are drawn from them for each sample.

All random parameters are drawn here, with numpy, for both `data/augment/cpu.py` and `data/augment/device.py`: with the
same key, their results differ only by rounding and by the values of the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.augment.erase import Erase

MAX_RGB_SHIFT = 20
"""Largest shift of red, green and blue, each independent, in levels."""
MAX_HSV_SHIFT = (20, 30, 20)
"""Largest shift of hue (of 180), saturation and value (of 255), in levels."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""The kinds of jitter."""
NO_SHIFT, BY_RGB, BY_HSV = range(3)
"""The kinds of shift."""


class Jitter(NamedTuple):
    """Colour jitter of each sample and image."""

    order: NDArray[np.int64]
    """(N, K, J): the J kinds of jitter, such as `BRIGHTNESS`, in the order in which they are applied."""
    factor: NDArray[np.float64]
    """(N, K, 4): factor of each kind; for hue, its rotation as a share of the colour circle."""


class Shift(NamedTuple):
    """Colour shift of each sample and photograph."""

    kind: NDArray[np.int64]
    """(N, 2): `NO_SHIFT`, `BY_RGB` or `BY_HSV`."""
    levels: NDArray[np.float64]
    """(N, 2, 3): added to red, green and blue, or to hue (of 180), saturation and value (of 255)."""


class Noise(NamedTuple):
    """Gaussian noise of each sample and image."""

    deviation: NDArray[np.float64]
    """(N, K): standard deviation in levels; 0 means no noise."""
    seed: NDArray[np.int64]
    """(N, K): seed of the generator of the values."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The parameters drawn for N samples; None if a transform is off.

    The colours of K images of a sample change: `bg` and `fg_bg`, and with `targets_too` also mask and depth.
    """

    flips: NDArray[np.bool_] | None
    """(N, 4, 2): whether each image is flipped left-right, and upside down."""
    warped: NDArray[np.bool_]
    """(N,): whether the sample is rotated or zoomed."""
    warps: NDArray[np.float64]
    """(N, 2, 3): affine map from x and y of a pixel to its source in the flipped image, in pixels."""
    jitter: Jitter | None
    shift: Shift | None
    noise: Noise | None
    holes: NDArray[np.int64] | None
    """(N, 2, C, 4): top, bottom, left and right of the C rectangles of each photograph; all 0 if it has none."""


@dataclass(kw_only=True, eq=False)
class Strengths:
    """Probabilities and strengths of the transforms; by default, all are off.

    Flips, rotation and zoom are drawn once for the four images of a sample. Jitter, shift, noise and erasing follow in
    this order; they are drawn independently for `bg` and `fg_bg`, and leave the targets unchanged. Two options
    reproduce errors of published projects.
    """

    hflip: float = 0.0
    """Probability of a left-right flip."""
    vflip: float = 0.0
    """Probability of an upside-down flip."""
    rotate: float = 0.0
    """Largest rotation in degrees, uniform in both directions; bilinear, with the border filled by reflection."""
    rotate_p: float = 1.0
    """Probability of a rotation."""
    zoom: float = 0.0
    """Largest share of the side that is cropped."""
    jitter: float = 0.0
    """Brightness, contrast and saturation are multiplied by 1 - jitter to 1 + jitter, in random order."""
    hue: float = 0.0
    """Largest rotation of the hue in both directions, as a share of the colour circle."""
    shift: float = 0.0
    """Probability of a shift: of RGB by up to `MAX_RGB_SHIFT` or, equally likely, of HSV by up to `MAX_HSV_SHIFT`."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian noise, as a share of full scale; 0 means no noise."""
    noise_low: float = 0.0
    """Smallest standard deviation."""
    noise_p: float = 0.5
    """Probability of noise."""
    noise_per_channel: bool = True
    """Whether red, green and blue get independent noise; else one plane of noise is added to all three."""
    erase: Erase | None = None
    """Rectangles to fill."""
    flips_apart: bool = False
    """A published error: `bg` and `fg_bg` are flipped independently, and the targets are not flipped."""
    targets_too: bool = False
    """A published error: jitter and noise are also applied to mask and depth."""

    def draw(self, count: int, height: int, width: int, random: np.random.Generator) -> Changes:
        """Draw the parameters for `count` samples with images of (height, width)."""
        warped, warps = self._warps(count, height, width, random)
        images = 4 if self.targets_too else 2
        return Changes(
            flips=self._flips(count, random),
            warped=warped,
            warps=warps,
            jitter=self._jitter(count, images, random),
            shift=self._shift(count, random),
            noise=self._noise(count, images, random),
            holes=self.erase.holes(count, height, width, random) if self.erase and self.erase.p else None,
        )

    def _flips(self, count: int, random: np.random.Generator) -> NDArray[np.bool_] | None:
        if not (self.hflip or self.vflip):
            return None
        drawn = random.random((count, 2 if self.flips_apart else 1, 2)) < (self.hflip, self.vflip)
        if self.flips_apart:
            return np.concatenate([drawn, np.zeros_like(drawn)], axis=1)
        return np.repeat(drawn, 4, axis=1)

    def _warps(
        self, count: int, height: int, width: int, random: np.random.Generator
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """One matrix for both: from the zoomed image to its crop of the rotated image, and from there to the source."""
        rotated = random.random(count) < (self.rotate_p if self.rotate else 0)
        radians = np.deg2rad(random.uniform(-self.rotate, self.rotate, count) * rotated)
        share = 1 - random.uniform(0, self.zoom, count)
        sides, centre = np.array([width, height]), np.array([width - 1, height - 1]) / 2
        corner = random.random((count, 2)) * (1 - share)[:, None] * sides
        cosine, sine = np.cos(radians), np.sin(radians)
        turn = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
        first = corner + share[:, None] / 2 - 0.5  # the first pixel's centre in the rotated image
        offset = np.einsum("nij,nj->ni", turn, first - centre) + centre
        return rotated | bool(self.zoom), np.concatenate([turn * share[:, None, None], offset[:, :, None]], axis=2)

    def _jitter(self, count: int, images: int, random: np.random.Generator) -> Jitter | None:
        kinds = [BRIGHTNESS, CONTRAST, SATURATION] * bool(self.jitter) + [HUE] * bool(self.hue)
        if not kinds:
            return None
        order = random.permuted(np.broadcast_to(kinds, (count, images, len(kinds))), axis=2)
        strengths = np.array([self.jitter, self.jitter, self.jitter, self.hue])
        return Jitter(order, np.array([1, 1, 1, 0]) + strengths * random.uniform(-1, 1, (count, images, 4)))

    def _shift(self, count: int, random: np.random.Generator) -> Shift | None:
        if not self.shift:
            return None
        kind = random.integers(BY_RGB, BY_HSV + 1, (count, 2))
        kind[random.random((count, 2)) >= self.shift] = NO_SHIFT
        largest = np.where((kind == BY_RGB)[:, :, None], MAX_RGB_SHIFT, MAX_HSV_SHIFT)
        return Shift(kind, largest * random.uniform(-1, 1, (count, 2, 3)))

    def _noise(self, count: int, images: int, random: np.random.Generator) -> Noise | None:
        if not self.noise:
            return None
        shape = (count, images)
        deviation = 255 * random.uniform(self.noise_low, self.noise, shape) * (random.random(shape) < self.noise_p)
        return Noise(deviation, random.integers(2**31, size=shape))
