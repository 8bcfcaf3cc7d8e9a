"""Scale depth of any file to the 8-bit levels of a data set, each image over the range of its valid pixels.

A pixel is not valid, and so no measurement, if it is NaN, infinite or negative, has the value that the user names, or
is 0 in metric depth. If the unit is not known, 0 means no reading in a far-bright 16-bit image, as sensors write it.
The exception is an image that reaches 65535: it was scaled to the full range, and 0 is the nearest point. In a
near-bright image, 0 is the farthest point. 8-bit depth keeps its levels, unless it is metric.

Shapes: H and W are height and width in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from data.depth.meaning import UNKNOWN, DepthMeaning
from data.errors import InputError

if TYPE_CHECKING:
    from data.importers.polarity import PolarityName
    from data.schema import Pixels
    from data.source_images import StoredDepth

MAX_LEVEL = 255


def scale_depth(stored: StoredDepth, polarity: PolarityName, where: str, meaning: DepthMeaning = UNKNOWN) -> Pixels:
    """The levels of `valid_levels`."""
    return valid_levels(stored, polarity, where, meaning)[0]


def valid_levels(
    stored: StoredDepth, polarity: PolarityName, where: str, meaning: DepthMeaning = UNKNOWN
) -> tuple[Pixels, NDArray[np.bool_] | None]:
    """Scale depth so that its smallest valid value becomes 0 and its largest 255; the polarity stays.

    Pixels that are not valid get the level of the nearest valid pixel. A constant image becomes the farthest level.

    Args:
        stored: (H, W); 8-bit depth that is not metric keeps its levels.
        polarity: whether far or near is bright in `stored`.
        where: the file, for error messages.
        meaning: of the values.

    Returns:
        (H, W) in 0..255, and (H, W) which pixels are valid, None if all are.

    Raises:
        InputError: if no pixel is valid.
    """
    holes = _holes(stored, polarity, meaning)
    if holes.all():
        raise InputError(f"The depth '{where}' has no reading: {_why_empty(stored)}; replace it, or remove the sample.")
    valid = ~holes if holes.any() else None
    filled = fill_holes(stored, holes)
    if _keeps_levels(stored, meaning):
        return np.asarray(filled, np.uint8), valid
    low, high = float(filled.min()), float(filled.max())
    if low == high:
        return np.full(stored.shape, MAX_LEVEL if polarity == "far-bright" else 0, np.uint8), valid
    return np.asarray(np.rint((filled.astype(np.float64) - low) * (MAX_LEVEL / (high - low))), np.uint8), valid


def comparable_depth(stored: StoredDepth, meaning: DepthMeaning = UNKNOWN) -> NDArray[np.float32]:
    """Depth (H, W) for measuring the polarity: in 0..255, not rounded, NaN where a pixel may not be valid."""
    levels = stored.astype(np.float64)
    levels[_holes(stored, "far-bright", meaning)] = np.nan
    if _keeps_levels(stored, meaning) or np.isnan(levels).all():
        return levels.astype(np.float32)
    low, high = float(np.nanmin(levels)), float(np.nanmax(levels))
    return np.asarray((levels - low) * (MAX_LEVEL / ((high - low) or 1.0)), np.float32)


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


def _keeps_levels(stored: StoredDepth, meaning: DepthMeaning) -> bool:
    return stored.dtype == np.uint8 and not meaning.is_metric


def _holes(stored: StoredDepth, polarity: PolarityName, meaning: DepthMeaning) -> NDArray[np.bool_]:
    """(H, W): which pixels are not valid."""
    holes = np.zeros(stored.shape, np.bool_)
    if stored.dtype == np.float32:
        holes = ~np.isfinite(stored) | (stored < 0)
    if meaning.invalid is not None:
        holes |= stored == np.float64(meaning.invalid).astype(np.result_type(stored.dtype, np.float32))
    if meaning.is_metric or (meaning.unit is None and stored.dtype == np.uint16 and polarity == "far-bright"):
        is_full_range = not meaning.is_metric and bool((stored[~holes] == np.iinfo(np.uint16).max).any())
        if not is_full_range:
            holes |= stored == 0
    return holes


def _why_empty(stored: StoredDepth) -> str:
    """Why no pixel is valid."""
    if not stored.any():
        return "every pixel is 0"
    return "every pixel is 0, negative, not finite, or has the value of --depth-invalid"
