"""Resize a part of an image to the pixels that resizing the whole image gives there.

Images are divided into the largest number of equal units for which a unit has a whole number of pixels at both sizes.
A region of whole units, with as many units around it as the interpolation reads, is resized by the same factor and with
the same phase as the whole image. Pixels agree with those of the whole image up to the rounding of the weights: at most
one grey level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.images import resize_to

if TYPE_CHECKING:
    from data.images import Resize
    from data.schema import Pixels

_REACH = {"area": 0, "bilinear": 1, "lanczos": 4}
"""Pixels beyond its own area that a resized pixel reads on each side; 'area' is bilinear where an image grows."""


@dataclass(frozen=True)
class Span:
    """A range of whole units along an axis, as ranges of pixels."""

    source: slice
    """What is to be resized: the range, and what the interpolation reads beyond it."""
    inside: slice
    """The range in the resized pixels."""
    target: slice
    """The range in the resized whole."""
    resized: int
    """Number of resized pixels."""


@dataclass(frozen=True)
class Axis:
    """An axis that is resized from `source` to `target` pixels; `grows` if any axis of the image does."""

    source: int
    target: int
    how: Resize
    grows: bool

    def changed_by(self, first: int, last: int) -> Span:
        """The smallest range of units whose resized pixels depend on the source pixels `first` to `last` - 1."""
        units = math.gcd(self.source, self.target)
        unit, unit_target = self.source // units, self.target // units
        reach = _REACH["bilinear" if self.how == "area" and self.grows else self.how]
        start, stop = max(0, (first - reach) // unit), min(units, -(-(last + reach) // unit))
        around = -(-reach // unit)
        outer_start, outer_stop = max(0, start - around), min(units, stop + around)
        inner = (start - outer_start) * unit_target
        return Span(
            source=slice(outer_start * unit, outer_stop * unit),
            inside=slice(inner, inner + (stop - start) * unit_target),
            target=slice(start * unit_target, stop * unit_target),
            resized=(outer_stop - outer_start) * unit_target,
        )


def resize_region(pixels: Pixels, rows: Span, columns: Span, how: Resize) -> Pixels:
    """Resize the source range (h, w) or (h, w, 3) of two spans, and crop it to the pixels of their target."""
    resized = resize_to(pixels, rows.resized, columns.resized, how=how)
    return np.asarray(resized[rows.inside, columns.inside], np.uint8)
