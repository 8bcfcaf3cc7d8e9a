"""Depth pictures of backgrounds to stored levels: measured in mm or cm, or relative; far is bright.

Shapes: H and W height and width in pixels, S the side of the square that is stored.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.images import decode_any, storable_plane

if TYPE_CHECKING:
    from data.importers.polarity import PolarityName
    from data.schema import Pixels

DepthUnit = Literal["mm", "cm", "relative"]
PER_METRE = {"mm": 1000, "cm": 100}
FARTHEST_LEVEL = 255

StoredDepth = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """What the numbers of a set's depth pictures mean, and how they become levels: alike for the whole set.

    A metric depth of z metres becomes the level 255 z / far, at most 255: ratios of depths are kept, and one level
    is as many metres in every picture. A relative depth keeps its levels (of 16 bits the upper 8, rounded), or is
    turned round where near is bright.
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
        """
        square = middle_square(stored)
        levels: NDArray[np.float32]
        if self.far is not None:
            per_level = self.far * PER_METRE[self.unit] / FARTHEST_LEVEL
            levels = fill_holes(square).astype(np.float32) * np.float32(1 / per_level)
        else:
            levels = square.astype(np.float32) * np.float32(FARTHEST_LEVEL / np.iinfo(square.dtype).max)
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


def decode_depth(encoded: bytes, where: str) -> StoredDepth:
    """Pixels of a depth picture, (H, W), of 8 or 16 bits.

    Raises:
        InputError: if the bytes are no whole image, are no integers, have colours, or an alpha channel.
    """
    pixels = decode_any(encoded, where)
    if pixels.dtype == np.uint8:
        return storable_plane(encoded, where)[0]
    if pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise InputError(
            f"The depth '{where}' is {pixels.dtype} of shape {pixels.shape}, but must have a single channel of 8 or 16 "
            "bits; convert it."
        )
    return np.asarray(pixels, np.uint16)


def middle_square(pixels: NDArray[Any]) -> NDArray[Any]:
    """The largest square in the middle of (H, W) or (H, W, C): nothing is stretched."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def fill_holes(depth: NDArray[Any]) -> NDArray[Any]:
    """Depth (H, W) with each 0 replaced by the nearest pixel that is none; at least one must be none."""
    holes = depth == 0
    if not holes.any():
        return depth
    _, labels = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Each measured pixel has a label of its own, and each hole that of the nearest.
    known = np.zeros(int(labels.max()) + 1, depth.dtype)
    known[labels[~holes]] = depth[~holes]
    return np.asarray(known[labels])
