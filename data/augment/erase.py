"""Random rectangles of a photograph are filled with a colour.

This covers random erasing (Zhong et al. 2020), Cutout (DeVries & Taylor 2017) and coarse dropout.
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
    """Parameters of erasing; rectangles are drawn independently for `bg` and `fg_bg`."""

    p: float = 0.0
    """Probability that a photograph has rectangles."""
    count: int = 1
    """Number of rectangles, which may overlap."""
    area_low: float = 0.02
    """Smallest area, as a share of the image's; areas are uniform up to `area_high`."""
    area_high: float = 0.10
    """Largest area."""
    ratio_low: float = 0.8
    """Smallest ratio of height to width; ratios are uniform up to `ratio_high`."""
    ratio_high: float = 1.2
    """Largest ratio of height to width."""
    bg_scale: float = 1.0
    """Sides in `bg`, as a multiple of those in `fg_bg`."""
    crosses_border: bool = False
    """Whether only the centre must lie in the image; the rectangle is then cut at the border."""
    bg_fill: Colour = BLACK
    """Fill colour in `bg`."""
    fg_bg_fill: Colour = BLACK
    """Fill colour in `fg_bg`."""

    def holes(self, count: int, height: int, width: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw the rectangles of `bg` and `fg_bg` for `count` samples with images of (height, width).

        Returns:
            (count, 2, C, 4): top, bottom, left and right, in pixels, of the C rectangles of each photograph; all 0 in a
            photograph without rectangles. Sides are rounded, and clipped to one pixel and the image's side.
        """
        shape = (count, 2, self.count)
        area = random.uniform(self.area_low, self.area_high, shape) * height * width
        ratio = random.uniform(self.ratio_low, self.ratio_high, shape)
        scale = np.array([self.bg_scale, 1.0])[:, None]
        rows, columns = _side(scale * np.sqrt(area * ratio), height), _side(scale * np.sqrt(area / ratio), width)
        holes = np.stack([*self._extents(rows, height, random), *self._extents(columns, width, random)], axis=3)
        holes[random.random((count, 2)) >= self.p] = 0
        return holes

    def _extents(
        self, side: NDArray[np.int64], length: int, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First pixel, and the pixel after the last, of sides at random positions in an image's side of `length`."""
        if self.crosses_border:
            first = random.integers(length, size=side.shape) - side // 2
            return np.maximum(first, 0), np.minimum(first + side, length)
        first = random.integers(length - side + 1)
        return first, first + side


def _side(pixels: NDArray[np.float64], longest: int) -> NDArray[np.int64]:
    return np.clip(np.rint(pixels), 1, longest).astype(np.int64)
