"""Convert the depth maps of backgrounds, metric or relative, to the stored levels, where far is bright.

Shapes: H and W are height and width in pixels, S is the side of the stored square.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.depth.levels import MAX_LEVEL, fill_holes, scale_depth
from data.depth.meaning import PER_METRE

if TYPE_CHECKING:
    from data.depth.meaning import DepthUnit
    from data.importers.polarity import PolarityName
    from data.schema import Pixels
    from data.source_images import StoredDepth


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """The conversion from depth values to levels, the same for all backgrounds of a data set.

    A metric depth of z metres becomes the level 255 z / far, at most 255: this keeps the ratios of depths, and a level
    is the same number of metres in every image. Relative depth of 8 bits keeps its levels; 16 bits are rescaled from
    their smallest and largest value to 0..255, as in an import. Levels are inverted if near is bright.
    """

    unit: DepthUnit
    far: float | None
    """Metres at level 255; None for relative depth."""
    polarity: PolarityName | None
    """What bright means in relative depth; None for metric depth."""

    def levels(self, stored: StoredDepth, size: int) -> Pixels:
        """Convert the middle square of a depth map (H, W) to levels (S, S) in 0..255, where far is bright.

        Pixels without a measurement (0 in metric depth) get the depth of the nearest pixel with one. When the depth map
        is reduced, a pixel gets the mean depth of the area it covers.

        Raises:
            InputError: if there is no measurement at all, which `open_sources` refuses.
        """
        square = middle_square(stored)
        levels: NDArray[np.float32]
        if self.far is not None:
            per_level = self.far * PER_METRE[self.unit] / MAX_LEVEL
            levels = fill_holes(square, square == 0).astype(np.float32) * np.float32(1 / per_level)
        else:
            levels = scale_depth(square, self.polarity or "far-bright", "of a background").astype(np.float32)
            if self.polarity == "near-bright":
                levels = MAX_LEVEL - levels
        if levels.shape[0] != size:
            interpolation = cv2.INTER_AREA if levels.shape[0] > size else cv2.INTER_LINEAR
            levels = np.asarray(cv2.resize(levels, (size, size), interpolation=interpolation), np.float32)
        return np.asarray(np.rint(np.clip(levels, 0, MAX_LEVEL)), np.uint8)

    def to_json(self) -> dict[str, str | float | None]:
        """The entry in `dataset.json`; a reader needs it to convert levels back to metres."""
        metres = self.far / MAX_LEVEL if self.far is not None else None
        return {**asdict(self), "metres_per_level": metres}


def middle_square(pixels: NDArray[Any]) -> NDArray[Any]:
    """Crop the largest centred square of (H, W) or (H, W, C)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]
