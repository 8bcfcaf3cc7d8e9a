"""How a search ran: times and hosts of its trials, rank correlations of its rungs, and what early stopping saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from search.report.findings import Findings
from search.study.trials import TrialRecord

MIN_RANKED = 4
"""Trials that a rank correlation needs; three are in one of six orders."""
RESAMPLES = 1000
CONFIDENCE = 0.95
UNKNOWN_HOST = "host not recorded"

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A trial on the time axis."""

    trial: int
    start: float
    """Unix time."""
    end: float
    host: str
    lane: int
    """Of concurrent trials on a host, counted from 1."""


@dataclass(frozen=True, kw_only=True)
class RungRanking:
    """How well the order of trials at a rung agrees with that at the last one."""

    rung: int
    trials: int
    """Number of trials that reached both."""
    correlation: float | None
    """Spearman's, -1..1; None with too few trials or without different values."""
    low: float | None
    high: float | None
    """Bounds of the 95 % interval over resampled trials."""


@dataclass(frozen=True, kw_only=True)
class Spending:
    """Seconds of training, and those that early stopping saved."""

    trained: dict[str, float]
    """By outcome."""
    saved: float
    """Of the stopped trials, if each had run for all epochs at its own pace."""


def epoch_times(trial: TrialRecord) -> list[float]:
    """The Unix time of the end of each epoch; computed from the durations of the epochs where it was not recorded."""
    if not trial.epochs or all(epoch.time is not None for epoch in trial.epochs):
        return [epoch.time or 0.0 for epoch in trial.epochs]
    durations = np.array([epoch.metrics.get("seconds", 0.0) for epoch in trial.epochs])
    if trial.ended is not None:
        found: list[float] = (trial.ended.timestamp() - (durations.sum() - durations.cumsum())).tolist()
    else:
        found = ((trial.started.timestamp() if trial.started else 0.0) + durations.cumsum()).tolist()
    return found


def spans(trials: Iterable[TrialRecord]) -> list[Span]:
    """The trials with a start and an end, or a last report, in the order of their starts."""
    known = []
    for trial in trials:
        times = epoch_times(trial)
        end = trial.ended.timestamp() if trial.ended else times[-1] if times else None
        if trial.started is not None and end is not None:
            known.append((trial.started.timestamp(), max(end, trial.started.timestamp()), trial))
    free_at: dict[tuple[str, int], float] = {}
    found = []
    for start, end, trial in sorted(known, key=lambda item: item[:2]):
        host = trial.host or UNKNOWN_HOST
        lane = 1
        while free_at.get((host, lane), start) > start:
            lane += 1
        free_at[host, lane] = end
        found.append(Span(trial=trial.number, start=start, end=end, host=host, lane=lane))
    return found


def rankings(findings: Findings) -> list[RungRanking]:
    """For each rung before the last one, the rank correlation of its values of the objective with the last one's."""
    *rungs, last = findings.rungs
    ranks = ({epoch.epoch: epoch.rank for epoch in trial.epochs} for trial in findings.trials)
    complete = [curve for curve in ranks if last in curve]
    return [_ranking(rung, [(curve[rung], curve[last]) for curve in complete if rung in curve]) for rung in rungs]


def spending(findings: Findings) -> Spending:
    """What the trials cost, and what early stopping saved."""
    trained: dict[str, float] = {}
    saved = 0.0
    for trial in findings.trials:
        outcome, seconds = findings.outcome(trial), trial.seconds
        trained[outcome] = trained.get(outcome, 0.0) + seconds
        if outcome == "stopped" and trial.epochs:
            saved += seconds / len(trial.epochs) * max(0, findings.max_epochs - trial.last_epoch)
    return Spending(trained={name: seconds for name, seconds in trained.items() if seconds}, saved=saved)


def _ranking(rung: int, pairs: Sequence[tuple[float, float]]) -> RungRanking:
    values = np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2)
    count = len(values)
    correlation = _spearman(values[None])[0] if count >= MIN_RANKED else np.nan
    low = high = np.nan
    if np.isfinite(correlation):
        drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
        resampled = _spearman(values[drawn])
        tail = (1 - CONFIDENCE) / 2
        low, high = np.nanquantile(resampled, [tail, 1 - tail])
    shown = [None if np.isnan(value) else round(float(value), 4) for value in (correlation, low, high)]
    return RungRanking(rung=rung, trials=count, correlation=shown[0], low=shown[1], high=shown[2])


def _spearman(values: Floats) -> Floats:
    """Spearman's correlation of each (count, 2) table of (tables, count, 2); NaN where a column is constant."""
    ranks = rankdata(values, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    a, b = centred[..., 0], centred[..., 1]
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    found: Floats = np.divide((a * b).sum(axis=1), scale, out=np.full(len(values), np.nan), where=scale > 0)
    return found
