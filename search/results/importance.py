"""Importance of parameters: PED-ANOVA with intervals over resampled trials.

PED-ANOVA (Watanabe et al. 2023), extended to conditional parameters, as in Optuna's `PedAnovaImportanceEvaluator`.
All resamples are computed at once here; Optuna takes about 50 ms for each.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from scipy.special import ndtr

MIN_TRIALS = 10
"""Trials with a parameter; with fewer, the best ones cannot be told from the others."""
RESAMPLES = 200
CONFIDENCE = 0.95
MAX_CELLS = 50
"""Of the grid over a range."""
MIN_BANDWIDTH = 0.5 / 1.64
"""In cells: 90 % of a kernel is within its cell."""
TINY = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The importance of a parameter, or of all parameters of a section."""

    share: float
    """0..1; the shares of all parameters add up to 1."""
    low: float
    high: float
    """Bounds of the 95 % interval over resampled trials, extended to contain the share: in a resample, the shares of
    rare parameters are larger, and those of all others smaller."""
    trials: int
    """Number of trials with the parameter, or with one of the section."""


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Importance of all parameters and sections."""

    parameters: dict[str, Figure]
    """Most important first."""
    sections: dict[str, Figure]
    """Most important first; of `optimizer.lr`, the section is `optimizer`."""
    too_few: dict[str, int]
    """Parameters of fewer than `MIN_TRIALS` trials, and the number of trials with each."""


def importance(trials: Sequence[FrozenTrial], scores: Sequence[float], good: int, *, seed: int = 0) -> Importance:
    """Compare the parameters of the best trials with those of all trials.

    Args:
        trials: with their parameters.
        scores: of the trials; larger is better.
        good: number of trials that count as the best, plus those with the same score as the last of them.
        seed: of the resampling.
    """
    active = {name: sum(name in trial.params for trial in trials) for trial in trials for name in trial.params}
    names = [name for name, count in active.items() if count >= MIN_TRIALS]
    drawn = np.random.default_rng(seed).multinomial(len(trials), np.full(len(trials), 1 / len(trials)), size=RESAMPLES)
    counts = np.vstack([np.ones(len(trials)), drawn])  # of each trial; the first row is the original sample
    best = counts * _is_best(counts, np.asarray(scores), good)
    raw = np.array([_divergence(name, trials, counts, best) for name in names]).reshape(len(names), len(counts))
    total = raw.sum(axis=0)
    shares = np.divide(raw, total, out=np.zeros_like(raw), where=total > 0)
    sections: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        sections[name.partition(".")[0]].append(index)
    of_sections = {
        section: _figure(
            shares[indices].sum(axis=0),
            sum(any(names[index] in trial.params for index in indices) for trial in trials),
        )
        for section, indices in sections.items()
    }
    of_parameters = {name: _figure(shares[index], active[name]) for index, name in enumerate(names)}
    return Importance(
        parameters=_sorted(of_parameters),
        sections=_sorted(of_sections),
        too_few={name: count for name, count in sorted(active.items()) if count < MIN_TRIALS},
    )


def _figure(shares: Floats, trials: int) -> Figure:
    share = float(shares[0])
    low, high = np.quantile(shares[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Figure(share=share, low=min(float(low), share), high=max(float(high), share), trials=trials)


def _sorted(figures: dict[str, Figure]) -> dict[str, Figure]:
    return dict(sorted(figures.items(), key=lambda item: (-item[1].share, item[0])))


def _is_best(counts: Floats, scores: Floats, good: int) -> NDArray[np.bool_]:
    """For each row of `counts`, a mask of the best `good` trials of that resample, (resamples, trials)."""
    order = np.argsort(-scores, kind="stable")
    last = np.argmax(np.cumsum(counts[:, order], axis=1) >= good, axis=1)
    found: NDArray[np.bool_] = scores[None, :] >= scores[order[last]][:, None]
    return found


def _divergence(name: str, trials: Sequence[FrozenTrial], counts: Floats, best: Floats) -> Floats:
    """Divergence between a parameter's values in the best trials and in all trials, (resamples,)."""
    found = np.zeros(len(counts))
    for distribution, rows, cells, size in _regimes(name, trials):
        of_all, of_best = (_on_grid(weights[:, rows], cells, size) for weights in (counts, best))
        density = _choice_density if isinstance(distribution, CategoricalDistribution) else _range_density
        with_both = (of_all.sum(axis=1) > 1) & (of_best.sum(axis=1) > 0)
        all_there, best_there = (density(each[with_both]) + TINY for each in (of_all, of_best))
        pearson = (all_there * (best_there / all_there - 1) ** 2).sum(axis=1)
        share_of_all, share_of_best = (
            each[with_both].sum(axis=1) / weights[with_both].sum(axis=1)
            for each, weights in ((of_all, counts), (of_best, best))
        )
        found[with_both] += share_of_best**2 / share_of_all * pearson
    return found


def _regimes(
    name: str, trials: Sequence[FrozenTrial]
) -> Iterator[tuple[BaseDistribution, NDArray[np.intp], NDArray[np.intp], int]]:
    """For each distribution of a parameter: (distribution, rows of the trials, their cells, cells of its grid)."""
    rows_of: dict[BaseDistribution, list[int]] = defaultdict(list)
    for row, trial in enumerate(trials):
        if name in trial.params and not trial.distributions[name].single():
            rows_of[trial.distributions[name]].append(row)
    for distribution, rows in rows_of.items():
        cells, size = _cells(distribution, [trials[row].params[name] for row in rows])
        yield distribution, np.array(rows), cells, size


def _cells(distribution: BaseDistribution, values: Sequence[Any]) -> tuple[NDArray[np.intp], int]:
    """The cell of each value on a grid over its distribution, and the number of cells."""
    if isinstance(distribution, CategoricalDistribution):
        return np.array([int(distribution.to_internal_repr(value)) for value in values]), len(distribution.choices)
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"{distribution} is not a range")
    low, high, size = float(distribution.low), float(distribution.high), MAX_CELLS
    numbers = np.asarray(values, np.float64)
    if isinstance(distribution, IntDistribution) and distribution.log:
        size = min(math.ceil(math.log2(high - low + 1)) + 1, MAX_CELLS)
    elif distribution.step is not None:
        size = min(round((high - low) / distribution.step) + 1, MAX_CELLS)
    if distribution.log:
        low, high, numbers = math.log(low), math.log(high), np.log(numbers)
    cells = np.ceil((numbers - low) / ((high - low) / (size - 1)) - 0.5).astype(np.intp)
    return np.clip(cells, 0, size - 1), size


def _on_grid(weights: Floats, cells: NDArray[np.intp], size: int) -> Floats:
    """Sum (resamples, trials) weights by cell: (resamples, cells)."""
    return np.asarray(weights @ np.eye(size)[cells])


def _choice_density(counts: Floats) -> Floats:
    """Density of (resamples, choices) counts, smoothed by a uniform prior."""
    size, total = counts.shape[1], counts.sum(axis=1, keepdims=True)
    smoothing = 1 / ((counts > 0).sum(axis=1, keepdims=True) + 1)
    density: Floats = ((counts + smoothing * total) / (1 + size * smoothing) + 1 / size) / (total + 1)
    return density


def _range_density(counts: Floats) -> Floats:
    """Density of (resamples, cells) counts: truncated kernels with Scott's bandwidth, and a wide prior."""
    size = counts.shape[1]
    cells = np.arange(size)
    # The mass of a kernel in a cell depends only on their distance: 2 size - 1 masses for size² pairs.
    masses = _mass(np.arange(1 - size, size), _bandwidths(counts)[:, None])
    kernels = masses[:, cells[None, :] - cells[:, None] + size - 1]  # (resamples, means, cells)
    weights = counts / kernels.sum(axis=2)
    prior = _mass(cells - (size - 1) / 2, size)
    found: Floats = np.einsum("rj,rjg->rg", weights, kernels) + prior / prior.sum()
    density: Floats = found / (counts.sum(axis=1, keepdims=True) + 1)
    return density


def _bandwidths(counts: Floats) -> Floats:
    """Scott's bandwidth of each resample, in cells."""
    positions, total = np.arange(counts.shape[1]), counts.sum(axis=1)
    means = counts @ positions / total
    squares = (counts * (positions[None, :] - means[:, None]) ** 2).sum(axis=1)
    deviations = np.sqrt(squares / np.maximum(1, total - 1))
    cumulated = np.cumsum(counts, axis=1)
    first = np.argmax(cumulated >= np.maximum(total // 4, 1)[:, None], axis=1)
    third = np.argmax(cumulated > (total * 3 // 4)[:, None], axis=1)
    scott = 1.059 * np.minimum((third - first) / 1.34, deviations) * total**-0.2
    return np.asarray(np.maximum(scott, MIN_BANDWIDTH))


def _mass(distances: NDArray[Any], bandwidth: Floats | float) -> Floats:
    """Mass of a normal distribution in a cell at a distance from its mean."""
    return np.asarray(ndtr((distances + 0.5) / bandwidth) - ndtr((distances - 0.5) / bandwidth))
