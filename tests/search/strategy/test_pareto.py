"""Pareto fronts and hypervolumes, compared with counting and with random sampling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.strategy.pareto import directions, hypervolume, log_volume_gain, non_dominated

points = st.integers(1, 3).flatmap(
    lambda objectives: st.lists(st.tuples(*[st.integers(0, 4)] * objectives), min_size=1, max_size=8)
)


@settings(max_examples=60, deadline=None)
@given(points)
def test_nothing_dominates_the_front(found: list[tuple[int, ...]]) -> None:
    """Compared pair by pair: no trial dominates one on the front; of equal trials, any may be on it."""
    expected = [
        not any(all(a >= b for a, b in zip(other, point, strict=True)) and other != point for other in found)
        for point in found
    ]

    assert non_dominated(np.array(found, float)).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(points)
def test_hypervolume_agrees_with_the_dominated_region(found: list[tuple[int, ...]]) -> None:
    """Of whole numbers it is the number of unit cells below a point."""
    cells = itertools.product(range(4), repeat=len(found[0]))
    dominated = sum(any(all(a > b for a, b in zip(point, cell, strict=True)) for point in found) for cell in cells)

    assert hypervolume(np.array(found, float), np.zeros(len(found[0]))) == pytest.approx(dominated)


@pytest.mark.slow
def test_gain_is_the_growth_of_the_hypervolume() -> None:
    """Against volumes of sampled outcomes, up to a constant, for uncertain and known objectives."""
    rng = np.random.default_rng(0)
    front = np.array([[0.0, 1.0], [0.5, 0.6], [1.0, 0.0]])
    reference = front.min(0) - 0.1
    mean = np.array([[0.7, 0.6], [0.4, 0.5], [1.2, 0.1], [0.1, 1.1], [0.3, 0.3]])
    deviation = np.array([[0.2, 0.0], [0.2, 0.1], [0.1, 0.0], [0.3, 0.0], [0.2, 0.2]])
    before = hypervolume(front, reference)
    grown = [
        np.mean([hypervolume(np.vstack([front, rng.normal(m, d)]), reference) - before for _ in range(2000)])
        for m, d in zip(mean, deviation, strict=True)
    ]
    rays = np.concatenate([directions(rng, 2) for _ in range(500)])
    ratio = np.exp(log_volume_gain(mean, deviation, front, np.ones(2), rays)) / grown

    assert ratio / ratio.mean() == pytest.approx(np.ones(5), rel=0.15)


def test_gain_distinguishes_points_far_behind_the_front() -> None:
    """The search for the best candidate climbs from anywhere: no gain may be 0, and nearer is more."""
    rays = directions(np.random.default_rng(0), 2)
    mean = np.array([[-3.0, -3.0], [-1.0, -1.0], [0.0, 0.0]])
    gain = log_volume_gain(mean, np.full((3, 2), 0.01), np.array([[1.0, 1.0]]), np.ones(2), rays)

    assert np.isfinite(gain).all()
    assert gain[0] < gain[1] < gain[2]
