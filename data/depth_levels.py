"""Depth of 16 bits, as sensors write it, to the levels of a data set: each image over its own range.

A sensor writes 0 where it has no reading. So 0 counts in an image of 16 bits whose numbers grow with distance, unless
it reaches 65535: such an image was scaled to the full range, and its 0 is the nearest point. Where near is bright, 0 is
the farthest. Depth of 8 bits keeps its levels.

Shapes: H and W height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import InputError

if TYPE_CHECKING:
    from data.importers.polarity import PolarityName
    from data.schema import Pixels
    from data.source_images import StoredDepth

MAX_LEVEL = 255


def scale_depth(stored: StoredDepth, polarity: PolarityName, where: str) -> Pixels:
    """(H, W) in 0..255, as bright as `stored` (H, W): of 16 bits, its least value becomes 0 and its largest 255.

    Pixels without a reading get the depth of the nearest one that has one. An image of a single value becomes the
    farthest level.

    Args:
        stored: (H, W) of 8 bits, which are kept, or 16.
        polarity: what bright means in it.
        where: the file, for the error's sentence.

    Raises:
        InputError: if it has no reading at all.
    """
    if stored.dtype == np.uint8:
        return np.asarray(stored, np.uint8)
    if polarity == "far-bright":
        holes = _holes(stored)
        if holes.all():
            raise InputError(
                f"The depth '{where}' has no reading, for all of it is 0; replace it, or remove the sample."
            )
        stored = fill_holes(stored, holes)
    low, high = int(stored.min()), int(stored.max())
    if low == high:
        return np.full(stored.shape, MAX_LEVEL if polarity == "far-bright" else 0, np.uint8)
    return np.asarray(np.rint((stored - float(low)) * (MAX_LEVEL / (high - low))), np.uint8)


def comparable_depth(stored: StoredDepth) -> NDArray[np.float32]:
    """(H, W) to measure the polarity with: 0..255 but not rounded, and NaN where 0 may stand for no reading."""
    levels = stored.astype(np.float32)
    if stored.dtype == np.uint8:
        return levels
    levels[_holes(stored)] = np.nan
    if np.isnan(levels).all():
        return levels
    low, high = float(np.nanmin(levels)), float(np.nanmax(levels))
    return np.asarray((levels - low) * (MAX_LEVEL / max(high - low, 1.0)), np.float32)


def fill_holes(depth: NDArray[Any], holes: NDArray[np.bool_]) -> NDArray[Any]:
    """Depth (H, W) with each of the `holes` (H, W) replaced by the nearest pixel that is none; at least one must be."""
    if not holes.any():
        return depth
    _, labels = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Each pixel with a reading has a label of its own, and each hole that of the nearest.
    known = np.zeros(int(labels.max()) + 1, depth.dtype)
    known[labels[~holes]] = depth[~holes]
    return np.asarray(known[labels])


def _holes(stored: StoredDepth) -> NDArray[np.bool_]:
    """(H, W): where 0 stands for no reading, if the numbers of an image of 16 bits grow with distance."""
    if stored.max() == np.iinfo(np.uint16).max:
        return np.zeros(stored.shape, np.bool_)
    return np.asarray(stored == 0)
