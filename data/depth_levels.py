"""Scale 16-bit depth to the 8-bit levels of a data set, each image over its own range.

In a far-bright 16-bit image, 0 means no reading, as sensors write it. The exception is an image that reaches 65535: it
was scaled to the full range, and 0 is the nearest point. In a near-bright image, 0 is the farthest point. 8-bit depth
keeps its levels.

Shapes: H and W are height and width in pixels.
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
    """Scale 16-bit depth so that its smallest value becomes 0 and its largest 255; the polarity stays.

    Pixels without a reading get the depth of the nearest pixel that has one. A constant image becomes the farthest
    level.

    Args:
        stored: (H, W), 8 or 16 bits; 8-bit depth is returned unchanged.
        polarity: whether far or near is bright in `stored`.
        where: the file, for error messages.

    Returns:
        (H, W) in 0..255.

    Raises:
        InputError: if no pixel has a reading.
    """
    if stored.dtype == np.uint8:
        return np.asarray(stored, np.uint8)
    if polarity == "far-bright":
        holes = _holes(stored)
        if holes.all():
            raise InputError(f"The depth '{where}' has no reading: every pixel is 0; replace it, or remove the sample.")
        stored = fill_holes(stored, holes)
    low, high = int(stored.min()), int(stored.max())
    if low == high:
        return np.full(stored.shape, MAX_LEVEL if polarity == "far-bright" else 0, np.uint8)
    return np.asarray(np.rint((stored - float(low)) * (MAX_LEVEL / (high - low))), np.uint8)


def comparable_depth(stored: StoredDepth) -> NDArray[np.float32]:
    """Depth (H, W) for measuring the polarity: in 0..255, not rounded, NaN where 0 may mean no reading."""
    levels = stored.astype(np.float32)
    if stored.dtype == np.uint8:
        return levels
    levels[_holes(stored)] = np.nan
    if np.isnan(levels).all():
        return levels
    low, high = float(np.nanmin(levels)), float(np.nanmax(levels))
    return np.asarray((levels - low) * (MAX_LEVEL / max(high - low, 1.0)), np.float32)


def fill_holes(depth: NDArray[Any], holes: NDArray[np.bool_]) -> NDArray[Any]:
    """Replace each hole by the nearest valid pixel of `depth` (H, W); at least one pixel must be valid."""
    if not holes.any():
        return depth
    _, labels = cv2.distanceTransformWithLabels(
        holes.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # Each valid pixel has a unique label; a hole has the label of the nearest one.
    known = np.zeros(int(labels.max()) + 1, depth.dtype)
    known[labels[~holes]] = depth[~holes]
    return np.asarray(known[labels])


def _holes(stored: StoredDepth) -> NDArray[np.bool_]:
    """(H, W): where a far-bright 16-bit image has no reading."""
    if stored.max() == np.iinfo(np.uint16).max:
        return np.zeros(stored.shape, np.bool_)
    return np.asarray(stored == 0)
