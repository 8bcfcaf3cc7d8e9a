"""Rectangles of a photograph that are painted over.

Random erasing (Zhong et al. 2020), Cutout (DeVries & Taylor 2017) and coarse dropout are all of this form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = tuple[float, float, float]
"""Red, green and blue in 0..255."""
BLACK: Colour = (0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Erase:
    """What is erased of a sample's photographs, drawn anew for `bg` and for `fg_bg`."""

    p: float = 0.0
    """Probability that a photograph gets any rectangle."""
    count: int = 1
    """How many it gets then; they may overlap."""
    area_low: float = 0.02
    """Smallest area, as a share of the picture's; areas are uniform from here to `area_high`."""
    area_high: float = 0.10
    """Largest area."""
    ratio_low: float = 0.8
    """Smallest height over width; ratios are uniform from here to `ratio_high`."""
    ratio_high: float = 1.2
    """Largest height over width."""
    bg_scale: float = 1.0
    """Sides in `bg`, as a share of those in `fg_bg`."""
    crosses_border: bool = False
    """Whether the centre alone has to lie in the picture; otherwise all of the rectangle does."""
    bg_fill: Colour = BLACK
    """What `bg` is painted with."""
    fg_bg_fill: Colour = BLACK
    """What `fg_bg` is painted with."""

    def holes(self, count: int, height: int, width: int, random: np.random.Generator) -> NDArray[np.int64]:
        """The next rectangles of `count` samples, of `bg` and of `fg_bg`, in pictures of (height, width).

        Returns:
            (count, 2, C, 4): top, bottom, left and right, in pixels, of the C rectangles of either; all are empty where
            none is drawn. A side is rounded, and neither less than a pixel nor longer than the picture's.
        """
        shape = (count, 2, self.count)
        area = random.uniform(self.area_low, self.area_high, shape) * height * width
        ratio = random.uniform(self.ratio_low, self.ratio_high, shape)
        scale = np.array([self.bg_scale, 1.0])[:, None]
        rows, columns = _side(scale * np.sqrt(area * ratio), height), _side(scale * np.sqrt(area / ratio), width)
        holes = np.stack([*self._place(rows, height, random), *self._place(columns, width, random)], axis=3)
        holes[random.random((count, 2)) >= self.p] = 0
        return holes

    def _place(
        self, side: NDArray[np.int64], length: int, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first pixel, and the one after the last."""
        if self.crosses_border:
            first = random.integers(length, size=side.shape) - side // 2
            return np.maximum(first, 0), np.minimum(first + side, length)
        first = random.integers(length - side + 1)
        return first, first + side


def _side(wanted: NDArray[np.float64], longest: int) -> NDArray[np.int64]:
    return np.clip(np.rint(wanted), 1, longest).astype(np.int64)
