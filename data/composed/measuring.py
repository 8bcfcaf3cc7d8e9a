"""Measure composed samples without decoding them: only the pixels that a cutout changes are counted.

A JPEG file with full chroma consists of blocks of 8 x 8 pixels that are encoded independently. A range of whole blocks
is therefore decoded to the same pixels from a file of its own and from that of the whole image.

Shapes: S is the side of the composed images in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data.dataset.statistics import FOREGROUND_ABOVE, LEVELS, MeasuredSamples, count_levels
from data.images import decode_photo, encode_jpeg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.composed.columns import Placement
    from data.schema import Pixels

BLOCK = 8
"""Side of a block of JPEG in pixels."""


class SampleMeasure:
    """Measures the samples of one background as their files are decoded: fg_bg from JPEG, mask and depth from PNG.

    Args:
        bg: (S, S, 3) RGB.
        depth: (S, S), of the background.
    """

    def __init__(self, bg: Pixels, depth: Pixels) -> None:
        self._photo = decode_photo(encode_jpeg(bg), "a composed photograph")
        self._depth = depth
        nothing = np.zeros((1, LEVELS), np.int64)
        nothing[0, 0] = depth.size
        self._unchanged = np.concatenate([count_levels(self._photo), nothing, count_levels(depth)])
        """Levels of a sample without a cutout, as in `MeasuredSamples`."""
        self._changes = np.zeros_like(self._unchanged)
        self._covered: list[float] = []

    def add(self, fg_bg: Pixels, mask: Pixels, depth: Pixels, placement: Placement) -> None:
        """Measure the images of a sample, the result of `compose` with this placement."""
        area = np.s_[
            placement.top : placement.top + placement.height, placement.left : placement.left + placement.width
        ]
        blocks = tuple(slice(axis.start // BLOCK * BLOCK, -(-axis.stop // BLOCK) * BLOCK) for axis in area)
        photo = decode_photo(encode_jpeg(fg_bg[blocks]), "a composed photograph")
        alpha = count_levels(mask[area])
        self._changes[:3] += count_levels(photo) - count_levels(self._photo[blocks])
        self._changes[3:4] += alpha
        self._changes[3, 0] -= alpha.sum()
        self._changes[4:] += count_levels(depth[area]) - count_levels(self._depth[area])
        self._covered.append(int(alpha[0, FOREGROUND_ABOVE + 1 :].sum()) / mask.size)

    def take(self) -> MeasuredSamples:
        """What was measured since the last call."""
        levels: NDArray[np.int64] = self._unchanged * len(self._covered) + self._changes
        measured = MeasuredSamples(levels=levels, covered=np.array(self._covered, np.float64))
        self._changes[:], self._covered = 0, []
        return measured
