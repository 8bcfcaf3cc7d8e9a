"""Rectangles of a photograph that are painted over.

Random erasing (Zhong et al. 2020), Cutout (DeVries & Taylor 2017) and coarse dropout are all of this form.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from data.schema import Pixels

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

    def in_bg(self, photo: Pixels, draw: np.random.Generator) -> Pixels:
        """The background (H, W, 3) after the next draw; never changed in place."""
        return self._erased(photo, draw, self.bg_fill, self.bg_scale)

    def in_fg_bg(self, photo: Pixels, draw: np.random.Generator) -> Pixels:
        """The photograph with the foreground (H, W, 3) after the next draw; never changed in place."""
        return self._erased(photo, draw, self.fg_bg_fill, 1.0)

    def _erased(self, photo: Pixels, draw: np.random.Generator, fill: Colour, scale: float) -> Pixels:
        if draw.random() >= self.p:
            return photo
        photo = photo.copy()
        for _ in range(self.count):
            photo[self._rectangle(photo.shape[0], photo.shape[1], scale, draw)] = np.rint(fill)
        return photo

    def _rectangle(self, height: int, width: int, scale: float, draw: np.random.Generator) -> tuple[slice, slice]:
        """Rows and columns of one; a side is rounded, and neither less than a pixel nor longer than the picture's."""
        area = draw.uniform(self.area_low, self.area_high) * height * width
        ratio = draw.uniform(self.ratio_low, self.ratio_high)
        rows = _side(scale * math.sqrt(area * ratio), height)
        columns = _side(scale * math.sqrt(area / ratio), width)
        return self._place(rows, height, draw), self._place(columns, width, draw)

    def _place(self, side: int, length: int, draw: np.random.Generator) -> slice:
        if self.crosses_border:
            first = int(draw.integers(length)) - side // 2
            return slice(max(first, 0), first + side)
        first = int(draw.integers(length - side + 1))
        return slice(first, first + side)


def _side(wanted: float, longest: int) -> int:
    return min(max(round(wanted), 1), longest)
