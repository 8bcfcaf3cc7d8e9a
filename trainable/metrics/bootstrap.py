"""How far the figures of a part would vary with its backgrounds: percentile intervals of the bootstrap.

Backgrounds are resampled with replacement, each with all of its images (Efron & Tibshirani 1993): images of one
room resemble each other, and say less than as many rooms would. N images, G backgrounds, K columns; numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from trainable.metrics.per_image import STATES, Floats, ImageFigures, figures, metrics_of

LEVEL = 0.95
DRAWS = 2000
WEIGHTS_AT_ONCE = 2**22
"""Weights of backgrounds in memory at a time, of 8 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure, and where it is likely to lie for other backgrounds of the same kind.

    With a handful of backgrounds it is too narrow. With a single one `low` and `high` are NaN, for it does not say how
    much another would differ; and so they are where the figure is.
    """

    value: float
    """Of the images as they are."""
    low: float
    high: float

    def as_plain(self) -> dict[str, float | None]:
        """As JSON can hold it, which has no NaN."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


def intervals(table: ImageFigures, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Give an interval for each of `figures(table)`.

    Args:
        table: what was measured.
        level: in (0, 1), how often such an interval is to hold the truth.
        draws: how many times the backgrounds are resampled.
        seed: of the resampling; equal tables get equal intervals.

    Raises:
        ValueError: if `level` or `draws` is out of its range.
    """
    sums = _by_background(table.columns(), table.bg_ids)
    drawn = [metrics_of(part) for part in _resampled(sums, draws, seed)]
    return {
        name: _interval(value, [metrics[name] for metrics in drawn], level) for name, value in figures(table).items()
    }


def difference(
    a: ImageFigures, b: ImageFigures, metric: str, *, level: float = LEVEL, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Give an interval for `a`'s figure less `b`'s, of two networks on the same images.

    The same backgrounds are drawn for both, so that what makes a room hard for either does not count.

    Args:
        a: what was measured of one.
        b: of the other, the same images in the same order.
        metric: a key of `figures`.
        level: as in `intervals`.
        draws: as in `intervals`.
        seed: as in `intervals`.

    Raises:
        ValueError: if the images differ, there is no such metric, or a number is out of its range.
    """
    pixels = STATES.index("pixels")
    if a.bg_ids != b.bg_ids or not np.array_equal(a.states[:, pixels], b.states[:, pixels]):
        raise ValueError("The two tables must be of the same images in the same order, at one size.")
    of_a, of_b = figures(a), figures(b)
    if metric not in of_a:
        raise ValueError(f"The metric '{metric}' is not known; give one of {', '.join(of_a)}.")
    sums = _by_background(np.stack([a.columns(), b.columns()], axis=1), a.bg_ids)
    drawn = [metrics_of(part)[metric] for part in _resampled(sums, draws, seed)]  # (draws, 2) each
    return _interval(of_a[metric] - of_b[metric], [both[:, 0] - both[:, 1] for both in drawn], level)


def _by_background(columns: Floats, bg_ids: tuple[str, ...]) -> Floats:
    """Rows of images (N, ..., K) added up for each background: (G, ..., K)."""
    ids, background = np.unique(np.asarray(bg_ids), return_inverse=True)
    sums = np.zeros((len(ids), *columns.shape[1:]))
    np.add.at(sums, background, columns)
    return sums


def _resampled(sums: Floats, draws: int, seed: int) -> Iterator[Floats]:
    """Sums over the backgrounds of each draw, (draws, ..., K) from (G, ..., K), a part of the draws at a time."""
    if draws < 1:
        raise ValueError(f"The number of draws is {draws}, but must be at least 1.")
    backgrounds = len(sums)
    if backgrounds == 1:
        yield np.full((draws, *sums.shape[1:]), np.nan)
        return
    generator = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // backgrounds)
    for first in range(0, draws, at_once):
        size = min(at_once, draws - first)
        weights = generator.multinomial(backgrounds, np.full(backgrounds, 1 / backgrounds), size=size)
        yield np.tensordot(weights.astype(np.float64), sums, axes=1)


def _interval(value: float, drawn: Sequence[Floats], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}, but must lie between 0 and 1.")
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Interval(value=value, low=float(low), high=float(high))
