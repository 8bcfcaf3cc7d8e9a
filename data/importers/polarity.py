"""Whether far or near is bright in a depth image, measured at the foreground: it is near.

Shapes: H and W height and width in pixels. Differences are in grey levels, 0..255.
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
"""Distance of the ring from the mask, as a share of the longer side: leaves out soft edges."""
WIDTH = 0.05
"""Width of the ring, as a share of the longer side."""
FEWEST_PIXELS = 16
"""A sample counts if as many pixels of its mask can be compared with as many of the ring."""

MANY = 10
"""From so many samples on, their spread decides; of fewer, the size of the difference."""
SURE_ERRORS = 3.0
"""Of many samples, the mean difference must be more than so many of its standard errors away from 0, …"""
SURE_AGREEMENT = 0.6
"""… this share of them must have its sign, …"""
SURE_DIFFERENCE = 1.0
"""… and it must be so many grey levels."""
SURE_DIFFERENCE_OF_FEW = 20.0
"""Of few samples, all must have one sign, and the mean difference be so many grey levels.

Estimated depth at times misses the foreground: one published far-bright sample has -17 levels.
"""


@dataclass(frozen=True, kw_only=True)
class Polarity:
    """What the samples say of the depth's polarity."""

    name: PolarityName | None
    """None where they do not say it clearly."""
    difference: float
    """Mean of depth beside the mask less depth inside, in grey levels; positive: far-bright."""
    agreement: float
    """Share of the samples whose own difference has the sign of the mean."""
    samples: int
    """How many counted."""


def measure_polarity(samples: Iterable[tuple[Pixels, NDArray[Any]]]) -> Polarity:
    """Compare, in each sample, the depth inside the mask with the depth in a ring around it, row by row.

    By rows, since depth mostly falls from top to bottom: what is above and below would blur the comparison.

    With 10 samples or more, the answer is clear if the mean difference is more than 3 of its standard
    errors and 1 grey level, and 60 % of the samples have its sign. With fewer, it is clear if all have one
    sign and the mean difference is at least 20 grey levels.

    Args:
        samples: masks and depths, (H, W) each; a sample with an almost empty mask, or full rows, does not count. Depth
            is in 0..255, and NaN where it has no reading, as `depth_levels.comparable_depth` gives it.
    """
    measured = [_difference(mask, depth) for mask, depth in samples]
    differences = np.array([value for value in measured if value is not None])
    count = len(differences)
    if count == 0:
        return Polarity(name=None, difference=0.0, agreement=0.0, samples=0)
    mean = float(differences.mean())
    agreement = float((np.sign(differences) == np.sign(mean)).mean())
    if count >= MANY:
        error = float(differences.std(ddof=1)) / math.sqrt(count)
        is_clear = abs(mean) > max(SURE_ERRORS * error, SURE_DIFFERENCE) and agreement >= SURE_AGREEMENT
    else:
        is_clear = abs(mean) >= SURE_DIFFERENCE_OF_FEW and agreement == 1
    name: PolarityName = "far-bright" if mean > 0 else "near-bright"
    return Polarity(name=name if is_clear else None, difference=mean, agreement=agreement, samples=count)


def _difference(mask: Pixels, depth: NDArray[Any]) -> float | None:
    """Mean depth in the ring less the mean inside the mask, over rows that have both; None if they are few.

    A row weighs as many pixels as the smaller of the two has in it.
    """
    inside = (mask > FOREGROUND_ABOVE).astype(np.uint8)
    side = max(mask.shape)
    gap = max(1, round(GAP * side))
    reach = 2 * (gap + max(2, round(WIDTH * side))) + 1
    near = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * gap + 1, 2 * gap + 1)))
    ring = cv2.dilate(inside, np.ones((1, reach), np.uint8)) * (1 - near)
    has_reading = np.isfinite(depth)
    inside, ring = inside * has_reading, ring * has_reading
    inside_count, ring_count = inside.sum(axis=1, dtype=np.int64), ring.sum(axis=1, dtype=np.int64)
    weights = np.minimum(inside_count, ring_count)
    if weights.sum() < FEWEST_PIXELS:
        return None
    rows = weights > 0
    levels = np.where(has_reading, depth, 0).astype(np.float64)
    in_ring = (levels * ring).sum(axis=1)[rows] / ring_count[rows]
    in_mask = (levels * inside).sum(axis=1)[rows] / inside_count[rows]
    return float(np.average(in_ring - in_mask, weights=weights[rows]))
