"""Percentile intervals of a part's metrics, by a bootstrap over its backgrounds (Efron & Tibshirani 1993).

Backgrounds are resampled with replacement, each with all its images, because images of one room are correlated.
N images, G backgrounds, K columns; numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from trainable.metrics.names import ERRORS
from trainable.metrics.objective import SCORE, Objective
from trainable.metrics.per_image import STATES, Floats, ImageFigures, figures, metrics_of, values_of

DEFAULT_LEVEL = 0.95
DEFAULT_DRAWS = 2000
COMPARED = ("score", "mask_iou", "depth_delta1")
"""Metrics of `differences`, beside the objective."""
MAX_WEIGHTS = 2**22
"""Maximum number of resampling weights in memory at a time, 8 bytes each."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A metric and its confidence interval over backgrounds of the same kind.

    The bounds are quantiles over the resamples in which the metric is defined: that of the depth is not where no pixel
    of a resample was measured. With few backgrounds the interval is too narrow. With a single one, `low` and `high` are
    NaN, as they are if the metric is NaN.
    """

    value: float
    """Metric of the images without resampling."""
    low: float
    high: float

    def as_plain(self) -> dict[str, float | None]:
        """Convert to JSON values, with None for NaN."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class Difference(Interval):
    """The difference of a metric between two networks, with its confidence interval.

    The interval and the probability are of these two networks on other backgrounds of the same kind; what another seed
    would change is not in them.
    """

    probability: float
    """That the first network is better: the share of resamples in which it is, ties counted by half.

    Like the bounds, it is over the resamples in which both metrics are defined, and NaN as `low`.
    """


def intervals(
    table: ImageFigures,
    objective: Objective = SCORE,
    *,
    level: float = DEFAULT_LEVEL,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> dict[str, Interval]:
    """Compute an interval for each metric of `figures(table)`, and for a weighted mean under its key.

    Args:
        table: the measured images.
        objective: a weighted mean, if all its metrics were measured; a single metric has its interval anyway.
        level: confidence level in (0, 1).
        draws: number of resamples.
        seed: random seed of the resampling; equal tables get equal intervals.

    Raises:
        ValueError: if `level` or `draws` is out of range.
    """
    sums = _by_background(table.columns(), table.bg_ids)
    resampled = [metrics_of(part, tuple(table.own)) for part in _resampled(sums, draws, seed)]
    values = objective.with_value(figures(table))
    if objective.key in values:
        resampled = [{**metrics, objective.key: values_of(metrics, objective)} for metrics in resampled]
    return {name: _interval(value, [metrics[name] for metrics in resampled], level) for name, value in values.items()}


def difference(
    a: ImageFigures,
    b: ImageFigures,
    metric: str | Objective,
    *,
    level: float = DEFAULT_LEVEL,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> Difference:
    """Compute an interval for the metric of `a` minus that of `b`, for two networks on the same images.

    The same resamples are used for both, so that the difficulty of a room cancels out.

    Args:
        a: the images measured with one network.
        b: the same images, in the same order, measured with the other.
        metric: a key of `figures`, or an objective of such metrics.
        level: as in `intervals`.
        draws: as in `intervals`.
        seed: as in `intervals`.

    Raises:
        ValueError: if the images differ, the metric is unknown, or a number is out of range.
    """
    pixels = STATES.index("pixels")
    if a.bg_ids != b.bg_ids or not np.array_equal(a.states[:, pixels], b.states[:, pixels]):
        raise ValueError("The two tables must be of the same images in the same order, at one size.")
    if tuple(a.own) != tuple(b.own):
        raise ValueError("The two tables must have the same metrics of plugins.")
    figures_a, figures_b = figures(a), figures(b)
    objective = Objective.of(metric) if isinstance(metric, str) else metric
    if not objective.is_in(figures_a):
        raise ValueError(f"The metric '{objective.name}' is not known; give one of {', '.join(figures_a)}.")
    sums = _by_background(np.stack([a.columns(), b.columns()], axis=1), a.bg_ids)
    parts = (metrics_of(part, tuple(a.own)) for part in _resampled(sums, draws, seed))
    resampled = [values_of(part, objective) for part in parts]  # (draws, 2) each
    value = objective.value(figures_a) - objective.value(figures_b)
    apart = [both[:, 0] - both[:, 1] for both in resampled]
    found = _interval(value, apart, level)
    better = np.sign(_defined(value, apart)) * (-1 if objective.name in ERRORS else objective.sign)
    return Difference(**asdict(found), probability=float((better + 1).mean() / 2) if better.size else math.nan)


def differences(a: ImageFigures, b: ImageFigures, objective: Objective) -> dict[str, Difference]:
    """The differences of `difference` in the objective, first and by its key, if it was measured, and in `COMPARED`.

    Raises:
        ValueError: if the images differ.
    """
    compared = {objective.key: objective} | {name: Objective.of(name) for name in COMPARED}
    known = figures(a)
    return {key: difference(a, b, each) for key, each in compared.items() if each.is_in(known)}


def _by_background(columns: Floats, bg_ids: tuple[str, ...]) -> Floats:
    """Sum the rows of images (N, ..., K) by background: (G, ..., K)."""
    ids, background = np.unique(np.asarray(bg_ids), return_inverse=True)
    sums = np.zeros((len(ids), *columns.shape[1:]))
    np.add.at(sums, background, columns)
    return sums


def _resampled(sums: Floats, draws: int, seed: int) -> Iterator[Floats]:
    """Yield sums over the backgrounds of each resample, (draws, ..., K) from (G, ..., K), in chunks of the draws."""
    if draws < 1:
        raise ValueError(f"The number of draws is {draws}, but must be at least 1.")
    backgrounds = len(sums)
    if backgrounds == 1:
        yield np.full((draws, *sums.shape[1:]), np.nan)
        return
    generator = np.random.default_rng(seed)
    chunk = max(1, MAX_WEIGHTS // backgrounds)
    for first in range(0, draws, chunk):
        size = min(chunk, draws - first)
        weights = generator.multinomial(backgrounds, np.full(backgrounds, 1 / backgrounds), size=size)
        yield np.tensordot(weights.astype(np.float64), sums, axes=1)


def _interval(value: float, resampled: Sequence[Floats], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"The level is {level}, but must lie between 0 and 1.")
    tail = (1 - level) / 2
    defined = _defined(value, resampled)
    low, high = np.quantile(defined, [tail, 1 - tail]) if defined.size else (math.nan, math.nan)
    return Interval(value=value, low=float(low), high=float(high))


def _defined(value: float, resampled: Sequence[Floats]) -> Floats:
    """The values of the resamples in which a metric is defined; none if it is NaN without resampling."""
    values = np.concatenate(resampled)
    return values[:0] if math.isnan(value) else values[~np.isnan(values)]
