"""What is changed of a batch's pictures: the strengths asked for, and what was drawn of them for each sample.

Everything random but the noise itself is drawn here, with numpy, for `data/augment/cpu.py` and `data/augment/device.py`
alike: the same key makes both show the same pictures, but for rounding and the noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.augment.erase import Erase

RGB_SHIFT = 20
"""Levels by which red, green and blue are shifted at most, each on its own."""
HSV_SHIFT = (20, 30, 20)
"""Levels by which hue (of 180), saturation and value (of 255) are shifted at most."""
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
"""What jitter changes."""
NO_SHIFT, BY_RGB, BY_HSV = range(3)
"""How a photograph is shifted."""


class Jitter(NamedTuple):
    """Colour changes, by sample and picture."""

    order: NDArray[np.int64]
    """(N, K, J): the J kinds of change in their order, such as `BRIGHTNESS`."""
    factor: NDArray[np.float64]
    """(N, K, 4), by kind: what is multiplied by; of the hue, its turn as a share of the colour circle."""


class Shift(NamedTuple):
    """Shifts of photographs, by sample and photograph."""

    kind: NDArray[np.int64]
    """(N, 2): `NO_SHIFT`, `BY_RGB` or `BY_HSV`."""
    levels: NDArray[np.float64]
    """(N, 2, 3): what is added to red, green and blue; or to hue (of 180), saturation and value (of 255)."""


class Noise(NamedTuple):
    """Gaussian noise, by sample and picture."""

    deviation: NDArray[np.float64]
    """(N, K), in levels; 0 is none."""
    seed: NDArray[np.int64]
    """(N, K), of the generator that makes it."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What was drawn for N samples; None is nothing.

    K pictures of a sample change their colours: `bg` and `fg_bg`, and the mask and depth after them if `targets_too`.
    """

    flips: NDArray[np.bool_] | None
    """(N, 4, 2): whether left and right, and top and bottom, of each picture change places."""
    warped: NDArray[np.bool_]
    """(N,): whether there is a rotation or a zoom."""
    warps: NDArray[np.float64]
    """(N, 2, 3): from x and y of a pixel to where it is taken from in the flipped pictures, all in pixels."""
    jitter: Jitter | None
    shift: Shift | None
    noise: Noise | None
    holes: NDArray[np.int64] | None
    """(N, 2, C, 4): top, bottom, left and right of the C rectangles of each photograph; empty ones are none."""


@dataclass(kw_only=True, eq=False)
class Strengths:
    """How pictures may be changed.

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

    def draw(self, count: int, height: int, width: int, random: np.random.Generator) -> Changes:
        """The next changes, for `count` samples of pictures of (height, width)."""
        warped, warps = self._warps(count, height, width, random)
        pictures = 4 if self.targets_too else 2
        return Changes(
            flips=self._flips(count, random),
            warped=warped,
            warps=warps,
            jitter=self._jitter(count, pictures, random),
            shift=self._shift(count, random),
            noise=self._noise(count, pictures, random),
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
        """One matrix for both: the zoom's part of the picture, and where that is in the picture before its rotation."""
        rotated = random.random(count) < (self.rotate_p if self.rotate else 0)
        radians = np.deg2rad(random.uniform(-self.rotate, self.rotate, count) * rotated)
        share = 1 - random.uniform(0, self.zoom, count)
        sides, centre = np.array([width, height]), np.array([width - 1, height - 1]) / 2
        corner = random.random((count, 2)) * (1 - share)[:, None] * sides
        cosine, sine = np.cos(radians), np.sin(radians)
        turn = np.stack([np.stack([cosine, -sine], axis=1), np.stack([sine, cosine], axis=1)], axis=1)
        first = corner + share[:, None] / 2 - 0.5  # where the first pixel's centre is, in the picture that is zoomed
        moved = np.einsum("nij,nj->ni", turn, first - centre) + centre
        return rotated | bool(self.zoom), np.concatenate([turn * share[:, None, None], moved[:, :, None]], axis=2)

    def _jitter(self, count: int, pictures: int, random: np.random.Generator) -> Jitter | None:
        kinds = [BRIGHTNESS, CONTRAST, SATURATION] * bool(self.jitter) + [HUE] * bool(self.hue)
        if not kinds:
            return None
        order = random.permuted(np.broadcast_to(kinds, (count, pictures, len(kinds))), axis=2)
        strengths = np.array([self.jitter, self.jitter, self.jitter, self.hue])
        return Jitter(order, np.array([1, 1, 1, 0]) + strengths * random.uniform(-1, 1, (count, pictures, 4)))

    def _shift(self, count: int, random: np.random.Generator) -> Shift | None:
        if not self.shift:
            return None
        kind = random.integers(BY_RGB, BY_HSV + 1, (count, 2))
        kind[random.random((count, 2)) >= self.shift] = NO_SHIFT
        largest = np.where((kind == BY_RGB)[:, :, None], RGB_SHIFT, HSV_SHIFT)
        return Shift(kind, largest * random.uniform(-1, 1, (count, 2, 3)))

    def _noise(self, count: int, pictures: int, random: np.random.Generator) -> Noise | None:
        if not self.noise:
            return None
        shape = (count, pictures)
        deviation = 255 * random.uniform(self.noise_low, self.noise, shape) * (random.random(shape) < self.noise_p)
        return Noise(deviation, random.integers(2**31, size=shape))
