"""Trade-offs between several aims: which points nothing dominates, what they enclose, and what a new one would add.

N points of K aims are (N, K), and larger is better in every aim.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

Floats = NDArray[np.float64]

DIRECTIONS = 4
"""Along so many random rays, new ones for each proposal, the volume is measured that a point would add."""
NODES = 8
"""Of the quadrature along each ray."""
FLATTEST = 1e-3
"""A ray goes at least so far in every aim."""
MARGIN = 0.1
"""The volume reaches so far below the worst of the front, in shares of its extent: its ends count, too."""
SHARPEST = 1e-3
"""What is known exactly is taken to be known to this share of the front's extent."""


def non_dominated(points: Floats) -> NDArray[np.bool_]:
    """Which points no other is as good as in every aim and better than in one, (N,); of equal ones each is."""
    kept = np.zeros(len(points), bool)
    # What dominates a point comes before it in this order, and something on the front does if anything does.
    for place in np.lexsort(-points.T[::-1]):
        point, front = points[place], points[kept]
        kept[place] = not ((front >= point).all(1) & (front > point).any(1)).any()
    return kept


def hypervolume(points: Floats, reference: Floats) -> float:
    """What points dominate of the space above a reference (Zitzler and Thiele 1998), by slices of the last aim.

    Args:
        points: (N, K), K at least 1; those that are not above the reference in every aim add nothing.
        reference: (K,)
    """
    points = points[(points > reference).all(1)]
    if not len(points):
        return 0.0
    if points.shape[1] == 1:
        return float(points.max() - reference[0])
    ordered = points[np.argsort(-points[:, -1])]
    ends = np.append(ordered[1:, -1], reference[-1])
    slices = zip(range(1, len(ordered) + 1), ordered[:, -1] - ends, strict=True)
    return float(sum(hypervolume(ordered[:count, :-1], reference[:-1]) * height for count, height in slices))


def directions(rng: np.random.Generator, aims: int) -> Floats:
    """Directions of random rays into what is better in every aim, (`DIRECTIONS`, K)."""
    rays = np.abs(rng.normal(size=(DIRECTIONS, aims)))
    return np.asarray(np.maximum(rays / np.linalg.norm(rays, axis=1, keepdims=True), FLATTEST))


def log_volume_gain(mean: Floats, deviation: Floats, front: Floats, extent: Floats, rays: Floats) -> Floats:
    """Logarithm of the hypervolume that points are expected to add to a front, up to a constant; (N,).

    The volume is the mean over random rays of how far the front reaches along them, to the power K (Zhang and Golovin
    2020, lemma 5). Along a ray of direction d a point y reaches min over aims of (y - reference) / d, for independent
    normal aims further than t with the product of their chances: what is expected beyond the front is an integral in
    one dimension, however many aims there are.

    Args:
        mean: (N, K) of independent normal aims.
        deviation: (N, K) their standard deviations, 0 for what is known.
        front: (M, K), M at least 1.
        extent: (K,) by how much aims differ; the front reaches from `MARGIN` of it below its worst points.
        rays: as `directions` gives them.
    """
    aims = front.shape[1]
    reference = front.min(0) - MARGIN * extent
    mean, front = (mean - reference) / extent, (front - reference) / extent
    deviation = np.maximum(deviation / extent, SHARPEST)
    begin = (front[:, None] / rays).min(2).max(0)
    end = np.maximum(((mean + 4 * deviation)[:, None] / rays).min(2), begin + SHARPEST)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    width = (end - begin)[..., None]
    along = begin[:, None] + width * (nodes + 1) / 2
    chance = np.zeros_like(along)
    for aim in range(aims):
        behind = mean[:, aim, None, None] - along * rays[:, aim, None]
        chance += log_ndtr(behind / deviation[:, aim, None, None])
    gain = chance + np.log(weights / 2 * width) + (aims - 1) * np.log(along) + math.log(aims)
    return np.asarray(logsumexp(gain, axis=(1, 2)) - math.log(len(rays)))
