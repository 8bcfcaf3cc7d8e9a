"""Measure whether far or near is bright in depth images, given that the foreground is near.

Shapes: H and W are height and width in pixels. Differences are in grey levels, 0..255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from data.dataset.statistics import FOREGROUND_ABOVE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from data.schema import Pixels

PolarityName = Literal["far-bright", "near-bright"]
POLARITIES: tuple[PolarityName, ...] = ("far-bright", "near-bright")

GAP = 0.01
"""Distance between mask and ring, as a share of the longer side: excludes soft edges."""
WIDTH = 0.05
"""Width of the ring, as a share of the longer side."""
MIN_PIXELS = 16
"""Pixels of mask and ring that must be comparable for a sample to count."""

MIN_SAMPLES_FOR_SPREAD = 10
"""With at least this many samples the standard error is used, with fewer only the size of the difference."""
MIN_STANDARD_ERRORS = 3.0
MIN_AGREEMENT = 0.6
MIN_DIFFERENCE = 1.0
"""Grey levels."""
MIN_DIFFERENCE_FEW_SAMPLES = 20.0
"""Grey levels. Estimated depth sometimes misses the foreground: one published far-bright sample has -17 levels."""


@dataclass(frozen=True, kw_only=True)
class Polarity:
    """A measured depth polarity."""

    name: PolarityName | None
    """None if the measurement is not clear."""
    difference: float
    """Mean depth beside the mask minus mean depth inside, in grey levels; positive: far-bright."""
    agreement: float
    """Share of the samples whose difference has the sign of the mean."""
    samples: int
    """Number of samples that count."""


def measure_polarity(samples: Iterable[tuple[Pixels, NDArray[Any]]]) -> Polarity:
    """Compare the depth inside the mask of each sample with the depth in a ring around it, row by row.

    Only pixels of the same row are compared, because depth usually changes from top to bottom.

    With 10 samples or more, the result is clear if the mean difference exceeds 3 standard errors and 1 grey level, and
    60 % of the samples have its sign. With fewer, it is clear if all samples have the same sign and the mean difference
    is at least 20 grey levels.

    Args:
        samples: masks and depths, (H, W) each. Samples with an almost empty mask, or a mask that fills its rows, do not
            count. Depth is in 0..255, NaN where it has no reading; see `depth_levels.comparable_depth`.
    """
    measured = [_difference(mask, depth) for mask, depth in samples]
    differences = np.array([value for value in measured if value is not None])
    count = len(differences)
    if count == 0:
        return Polarity(name=None, difference=0.0, agreement=0.0, samples=0)
    mean = float(differences.mean())
    agreement = float((np.sign(differences) == np.sign(mean)).mean())
    if count >= MIN_SAMPLES_FOR_SPREAD:
        error = float(differences.std(ddof=1)) / math.sqrt(count)
        is_clear = abs(mean) > max(MIN_STANDARD_ERRORS * error, MIN_DIFFERENCE) and agreement >= MIN_AGREEMENT
    else:
        is_clear = abs(mean) >= MIN_DIFFERENCE_FEW_SAMPLES and agreement == 1
    name: PolarityName = "far-bright" if mean > 0 else "near-bright"
    return Polarity(name=name if is_clear else None, difference=mean, agreement=agreement, samples=count)


def _difference(mask: Pixels, depth: NDArray[Any]) -> float | None:
    """Mean depth in the ring minus mean depth in the mask, over rows that have both; None if there are too few pixels.

    The weight of a row is its number of pixels in the smaller of the two.
    """
    inside = (mask > FOREGROUND_ABOVE).astype(np.uint8)
    side = max(mask.shape)
    gap = max(1, round(GAP * side))
    ring_width = 2 * (gap + max(2, round(WIDTH * side))) + 1
    near = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1)))
    ring = cv2.dilate(inside, np.ones((1, ring_width), np.uint8)) * (1 - near)
    has_reading = np.isfinite(depth)
    inside, ring = inside * has_reading, ring * has_reading
    inside_count, ring_count = inside.sum(axis=1, dtype=np.int64), ring.sum(axis=1, dtype=np.int64)
    weights = np.minimum(inside_count, ring_count)
    if weights.sum() < MIN_PIXELS:
        return None
    rows = weights > 0
    levels = np.where(has_reading, depth, 0).astype(np.float64)
    in_ring = (levels * ring).sum(axis=1)[rows] / ring_count[rows]
    in_mask = (levels * inside).sum(axis=1)[rows] / inside_count[rows]
    return float(np.average(in_ring - in_mask, weights=weights[rows]))
