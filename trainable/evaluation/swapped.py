"""Detection of swapped inputs of a prediction, by the outline of the object.

The photograph with the object has an edge along the outline of the difference of the two; the background has one there
only by chance. `python tests/benchmarks/swapped.py` measures the accuracy.

Shapes: H and W height and width in pixels. Gradients are in grey levels per pixel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from data.images import resize_to

if TYPE_CHECKING:
    from data.schema import Pixels

Floats = NDArray[np.float32]

SWAPPED_BELOW = -0.3
"""A pair with a lower score looks swapped."""
MAX_SIDE = 224
"""Larger photographs are reduced first: the constants below were measured at this size."""
MIN_DIFFERENCE, MAX_DIFFERENCE = 12.0, 40.0
"""Bounds of the threshold of the difference in grey levels; between them it is Otsu's."""
MIN_WIDTH = 0.01
"""Parts and gaps of the difference that are narrower than this share of the longer side are removed."""
BAND = 1.5
"""Half the width in pixels of the band along the outline."""
BORDER = 3
"""Pixels along the border of the image that are left out: an outline there is not the object's."""
MIN_PIXELS = 20
"""Minimum number of pixels in the band, and outside of the difference, for a score."""
GRADIENT_OFFSET = 1.0
"""Added to each mean gradient, so that noise on plain surfaces gives no large ratio."""
_ORDERS = ((1, 0), (0, 1))


def look_swapped(bg: Pixels, fg_bg: Pixels) -> bool:
    """Whether the object seems to be in `bg`, so that the two photographs should be swapped.

    Measured on real photographs composed with real cut-outs (600 pairs), published pairs (16) and rendered scenes
    (400). Of swapped pairs, 94.7 %, 93.8 % and 98.0 % are recognised; of pairs in the right order, 0.2 %, none and none
    look swapped. With noise, another exposure, blur or strong JPEG compression of one or both, at least 89 % are
    recognised, and with a camera shifted by a pixel 69 %; at most 0.5 % of those in the right order look swapped.

    Args:
        bg: (H, W, 3) RGB.
        fg_bg: (H, W, 3) RGB, of the same view.
    """
    score = outline_score(bg, fg_bg)
    return score is not None and score < SWAPPED_BELOW


def outline_score(bg: Pixels, fg_bg: Pixels) -> float | None:
    """Log ratio of the edge strengths along the outline of the difference in `fg_bg` and in `bg`.

    The strength is relative to the gradients outside of the difference, where both show the same scene, because a
    blurred or darker photograph has weaker edges everywhere.

    Args:
        bg: (H, W, 3) RGB.
        fg_bg: (H, W, 3) RGB, of the same view.

    Returns:
        The score, or None if the outline or the area outside is too small.
    """
    photos = _same_exposure(*(_reduced(photo) for photo in (bg, fg_bg)))
    distance = _signed_distance(_difference(*photos))
    band = np.abs(distance) < BAND
    band[:BORDER] = band[-BORDER:] = band[:, :BORDER] = band[:, -BORDER:] = False
    outside = distance < -2 * BAND
    if min(np.count_nonzero(band), np.count_nonzero(outside)) < MIN_PIXELS:
        return None
    normal = np.stack([gradient[band] for gradient in _gradient(distance)])
    normal /= np.maximum(np.hypot(*normal), 1e-3)
    before, after = (_edge_strength(photo, band, normal, outside) for photo in photos)
    return math.log(after / before)


def _reduced(photo: Pixels) -> Floats:
    height, width = photo.shape[:2]
    share = min(1.0, MAX_SIDE / max(height, width))
    return resize_to(photo, max(1, round(height * share)), max(1, round(width * share))).astype(np.float32)


def _same_exposure(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Scale each channel of the second photograph to the first, because automatic exposure differs between shots."""
    gain = np.median((first + 1) / (second + 1), axis=(0, 1))
    return first, np.asarray(second * gain, np.float32)


def _difference(first: Floats, second: Floats) -> Pixels:
    """Mask (H, W) of the pixels that differ, 0 or 1."""
    smooth = [cv2.GaussianBlur(photo, (0, 0), 1.0) for photo in (first, second)]
    levels = np.abs(smooth[0] - smooth[1]).max(axis=2)
    otsu, _ = cv2.threshold(np.clip(levels, 0, 255).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    differs = np.asarray(levels > min(max(otsu, MIN_DIFFERENCE), MAX_DIFFERENCE), np.uint8)
    side = 2 * max(1, round(MIN_WIDTH * max(differs.shape))) + 1
    for operation in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
        differs = np.asarray(cv2.morphologyEx(differs, operation, np.ones((side, side), np.uint8)), np.uint8)
    return differs


def _signed_distance(region: Pixels) -> Floats:
    """Signed distance (H, W) in pixels to the outline of `region`, positive inside, smoothed for a stable gradient."""
    inside, outside = (cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_5) for part in (region, 1 - region))
    return np.asarray(cv2.GaussianBlur(np.asarray(inside - outside, np.float32), (0, 0), 1.5), np.float32)


def _edge_strength(photo: Floats, band: NDArray[np.bool_], normal: Floats, outside: NDArray[np.bool_]) -> float:
    """Mean gradient across the outline, relative to the mean gradient outside.

    Args:
        photo: (H, W, 3).
        band: (H, W), N pixels along the outline.
        normal: (2, N), the unit vector across the outline in each of them.
        outside: (H, W).
    """
    right, down = _gradient(photo)
    across = right[band] * normal[0][:, None] + down[band] * normal[1][:, None]
    along_outline = float(np.linalg.norm(across, axis=1).mean())
    elsewhere = float(np.hypot(right, down)[outside].mean())
    return (along_outline + GRADIENT_OFFSET) / (elsewhere + GRADIENT_OFFSET)


def _gradient(image: Floats) -> tuple[Floats, Floats]:
    """Gradients to the right and downwards, each with the shape of the image."""
    right, down = (np.asarray(cv2.Sobel(image, cv2.CV_32F, *order, scale=1 / 8), np.float32) for order in _ORDERS)
    return right, down
