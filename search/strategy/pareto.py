"""Arithmetic of Pareto fronts: non-dominated points, hypervolume, and its expected improvement.

The front of a search's trials is in `search/results/front.py`.

N points of K objectives are (N, K), and larger is better in every objective.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr, logsumexp

Floats = NDArray[np.float64]

DIRECTIONS = 4
"""Random rays per proposal along which the added volume is measured."""
NODES = 8
"""Of the quadrature along each ray."""
FLATTEST = 1e-3
"""Smallest component of the direction of a ray."""
MARGIN = 0.1
"""Distance of the reference point below the worst of the front, in shares of its extent, so that its ends count."""
SHARPEST = 1e-3
"""Smallest standard deviation, in shares of the extent of the front; known objectives have 0."""


def non_dominated(points: Floats) -> NDArray[np.bool_]:
    """Whether no other point is as good in every objective and better in one, (N,); equal points are all kept."""
    kept = np.zeros(len(points), bool)
    # In this order, a point that dominates another comes first; if any point dominates, one of the front does.
    for index in np.lexsort(-points.T[::-1]):
        point, front = points[index], points[kept]
        kept[index] = not ((front >= point).all(1) & (front > point).any(1)).any()
    return kept


def hypervolume(points: Floats, reference: Floats) -> float:
    """Hypervolume above a reference point (Zitzler and Thiele 1998), by slices of the last objective.

    Args:
        points: (N, K), K at least 1; points that are not above the reference in every objective add nothing.
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


def directions(rng: np.random.Generator, objectives: int) -> Floats:
    """Directions of random rays in which every objective improves, (`DIRECTIONS`, K)."""
    rays = np.abs(rng.normal(size=(DIRECTIONS, objectives)))
    return np.asarray(np.maximum(rays / np.linalg.norm(rays, axis=1, keepdims=True), FLATTEST))


def log_volume_gain(mean: Floats, deviation: Floats, front: Floats, extent: Floats, rays: Floats) -> Floats:
    """Log expected hypervolume improvement of points over a front, up to a constant; (N,).

    The hypervolume is the mean over random rays of the reach of the front along a ray, to the power K (Zhang and
    Golovin 2020, lemma 5). Along a ray of direction d, a point y reaches the minimum over objectives of (y - reference)
    / d. For independent normal objectives, the probability to reach further than t is a product, so the expected
    improvement is an integral in one dimension for any number of objectives.

    Args:
        mean: (N, K) of independent normal objectives.
        deviation: (N, K) their standard deviations, 0 for known objectives.
        front: (M, K), M at least 1.
        extent: (K,) the scale of each objective; the reference is `MARGIN` of it below the worst of the front.
        rays: from `directions`.
    """
    objectives = front.shape[1]
    reference = front.min(0) - MARGIN * extent
    mean, front = (mean - reference) / extent, (front - reference) / extent
    deviation = np.maximum(deviation / extent, SHARPEST)
    begin = (front[:, None] / rays).min(2).max(0)
    end = np.maximum(((mean + 4 * deviation)[:, None] / rays).min(2), begin + SHARPEST)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    width = (end - begin)[..., None]
    along = begin[:, None] + width * (nodes + 1) / 2
    chance = np.zeros_like(along)
    for objective in range(objectives):
        behind = mean[:, objective, None, None] - along * rays[:, objective, None]
        chance += log_ndtr(behind / deviation[:, objective, None, None])
    gain = chance + np.log(weights / 2 * width) + (objectives - 1) * np.log(along) + math.log(objectives)
    return np.asarray(logsumexp(gain, axis=(1, 2)) - math.log(len(rays)))
