"""Depth pictures of backgrounds to stored levels: measured in mm or cm, or relative; far is bright.

Shapes: H and W height and width in pixels, S the side of the square that is stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from data.depth_levels import fill_holes, scale_depth

if TYPE_CHECKING:
    from data.importers.polarity import PolarityName
    from data.schema import Pixels
    from data.source_images import StoredDepth

DepthUnit = Literal["mm", "cm", "relative"]
PER_METRE = {"mm": 1000, "cm": 100}
FARTHEST_LEVEL = 255


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """What the numbers of a set's depth pictures mean, and how they become levels: alike for the whole set.

    A metric depth of z metres becomes the level 255 z / far, at most 255: ratios of depths are kept, and one level
    is as many metres in every picture. A relative depth keeps its levels; one of 16 bits gets all, from its least to
    its largest value, as in an import. It is turned round where near is bright.
    """

    unit: DepthUnit
    far: float | None
    """Metres that the level 255 stands for; None for relative depth."""
    polarity: PolarityName | None
    """Of the pictures, for relative depth; None for metric depth."""

    def levels(self, stored: StoredDepth, size: int) -> Pixels:
        """(S, S) in 0..255, far is bright, of the middle square of a picture of (H, W).

        Pixels without a measurement (0 in mm and cm) get the depth of the nearest one that has one. Where the picture
        is reduced, a pixel's depth is the mean over what it covers.

        Raises:
            InputError: if it has no measurement, which `open_sources` refuses.
        """
        square = middle_square(stored)
        levels: NDArray[np.float32]
        if self.far is not None:
            per_level = self.far * PER_METRE[self.unit] / FARTHEST_LEVEL
            levels = fill_holes(square, square == 0).astype(np.float32) * np.float32(1 / per_level)
        else:
            levels = scale_depth(square, self.polarity or "far-bright", "of a background").astype(np.float32)
            if self.polarity == "near-bright":
                levels = FARTHEST_LEVEL - levels
        if levels.shape[0] != size:
            how = cv2.INTER_AREA if levels.shape[0] > size else cv2.INTER_LINEAR
            levels = np.asarray(cv2.resize(levels, (size, size), interpolation=how), np.float32)
        return np.asarray(np.rint(np.clip(levels, 0, FARTHEST_LEVEL)), np.uint8)

    def described(self) -> dict[str, Any]:
        """For `dataset.json`: with it, levels are turned back to metres."""
        metres = self.far / FARTHEST_LEVEL if self.far is not None else None
        return {**asdict(self), "metres_per_level": metres}


def middle_square(pixels: NDArray[Any]) -> NDArray[Any]:
    """The largest square in the middle of (H, W) or (H, W, C): nothing is stretched."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
