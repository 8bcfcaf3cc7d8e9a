"""What to try next for several aims at once: the configuration that is expected to add most to their trade-offs.

The score has the model of curves that it has by itself, and so has every other aim that trials report. What the space
knows of a configuration before it runs, such as its multiply-adds, is not modelled: candidates are asked for it.

Measured on two made-up problems with curves, one of them of sizes that are known before, with 60 whole trials and ten
seeds (see `tests/benchmarks/trade_offs.py`; one standard error is at most 0.05): of the hypervolume of 100,000 random
configurations, this one has 0.85 and 0.76, Optuna's TPE 0.65 and 0.61, its NSGA-II 0.53 and 0.40, random trials 0.49
and 0.33. With our scheduler, which stops trials by the score alone, this one has 0.96 and 0.76 within as many epochs.
With 40 trials and eight seeds, no difference was clear between rays: 0.71 and 0.72 with one for each proposal, 0.73 and
0.72 with four; with 128 neighbours at each width in place of 64, and one ray, 0.74 and 0.75.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from search.spec.objectives import Aim
from search.strategy.encoding import Floats
from search.strategy.pareto import directions, log_volume_gain, non_dominated
from search.strategy.proposer import (
    CLOSER,
    END,
    ENOUGH,
    LEARNED,
    PARENTS,
    WIDTHS,
    Candidate,
    Proposer,
    Space,
    is_infeasible,
)
from search.strategy.surrogate import CurveModel

NEAR = 64
"""Neighbours at each of the widths: each is drawn from the space, which takes a millisecond."""


class Compromiser(Proposer):
    """As `Proposer`, but for the score and other aims.

    Args:
        space: a define-by-run space; what it knows of the other aims it keeps in the attribute `KNOWN` of a trial.
        rungs: the epochs at which trials are compared, ascending.
        seed: of everything random.
        aims: the others, such as '-macs'.
    """

    def __init__(self, space: Space, rungs: Sequence[int], seed: int, aims: Sequence[str]) -> None:
        super().__init__(space, rungs, seed)
        self._aims = [Aim.of(text) for text in aims]
        self._reported: dict[str, dict[tuple[int, int], float]] = {aim.name: {} for aim in self._aims}
        self._models = {aim.name: CurveModel() for aim in self._aims}
        self._used: list[Aim] = []

    def report(self, trial: int, rung: int, figures: Mapping[str, float]) -> None:
        """Take in what a trial reported at a rung beside its score; what is not finite is worse than any number."""
        for aim in self._aims:
            if aim.name in figures:
                value = aim.goodness(figures[aim.name])
                self._reported[aim.name][trial, rung] = value if math.isfinite(value) else -math.inf

    def _best(self, rng: np.random.Generator, pending: list[int]) -> Candidate:
        """The configuration of the highest acquisition, of those found by drawing many."""
        tried = [self._trials[trial] for trial in self._prepare(pending)]
        if not self._used:
            return super()._best(rng, pending)
        weigh, front = self._gain(rng, tried)
        names, changes = set(self._points.names), self._changes
        offered, values = list(self._pool), weigh(self._pool)
        for width in (*WIDTHS, *CLOSER):
            leaders = front if width in WIDTHS else [offered[place] for place in np.argsort(-values)[: 2 * PARENTS]]
            parents = np.stack([leader.row for leader in leaders])
            moved = self._points.moved(rng, parents, NEAR, width)
            drawn = self._draw(rng, [self._points.wanted(row) for row in moved])
            if self._changes > changes:
                # A parameter that nobody had seen yet: the model cannot weigh it, but will once it was tried.
                return next((each for each in drawn if each.params.keys() - names), drawn[0])
            offered += drawn
            values = np.concatenate([values, weigh(drawn)])
        ordered = (offered[place] for place in np.argsort(-values, kind="stable"))
        new = (each for each in ordered if each.row.tobytes() not in self._seen and not is_infeasible(each))
        return next(new, None) or self._random(rng, 1)[0]

    def _prepare(self, pending: list[int]) -> list[int]:
        """Tell the models what is known, and see which aims there is something known of."""
        before = self._learned
        tried = super()._prepare(pending)
        self._used, chosen = [], self._chosen()
        for aim in self._aims:
            reported = self._reported[aim.name]
            known = [(trial, reported[trial, rung], rung) for trial, _, rung in chosen if (trial, rung) in reported]
            if any(aim.name in self._trials[trial].figures for trial in tried):
                self._used.append(aim)
            elif sum(math.isfinite(value) for _, value, _ in known) >= ENOUGH:
                refit = self._learned != before
                self._teach(self._models[aim.name], self._observations(known), pending, refit=refit)
                self._used.append(aim)
        return tried

    def _ranked(self, rung: int) -> list[tuple[float, int]]:
        """Where there are more than the model is given, those last that nothing dominates."""
        scores = super()._ranked(rung)
        if len(scores) <= LEARNED // len(self._rungs):
            return scores
        points = [[score, *(self._goodness(aim, trial, rung) for aim in self._aims)] for score, trial in scores]
        front = non_dominated(np.array(points))
        return [scores[place] for place in np.argsort(front, kind="stable")]

    def _goodness(self, aim: Aim, trial: int, rung: int) -> float:
        """Of a trial at a rung; the worst where nobody said."""
        figures = self._trials[trial].figures
        if aim.name in figures:
            return aim.goodness(figures[aim.name])
        return self._reported[aim.name].get((trial, rung), -math.inf)

    def _gain(
        self, rng: np.random.Generator, tried: Sequence[Candidate]
    ) -> tuple[Callable[[Sequence[Candidate]], Floats], list[Candidate]]:
        """The acquisition of candidates, and the tried ones that nothing allowed dominates, as far as is known."""
        means, _ = self._expected(tried)
        allowed = np.isfinite(means).all(1) & (self._feasible(_rows(tried)) > math.log(0.5))
        if not allowed.any():
            return lambda candidates: self._feasible(_rows(candidates)), list(tried)
        means, possible = means[allowed], [each for each, is_allowed in zip(tried, allowed, strict=True) if is_allowed]
        kept = non_dominated(means)
        front, rays = means[kept], directions(rng, means.shape[1])
        # Where the front is a point, by what was tried.
        extents = (np.ptp(front, axis=0), np.ptp(means, axis=0), np.ones(means.shape[1]))
        extent = np.select([extents[0] > 1e-9, extents[1] > 1e-9], extents[:2], extents[2])

        def weigh(candidates: Sequence[Candidate]) -> Floats:
            mean, deviation = self._expected(candidates)
            gain = log_volume_gain(mean, deviation, front, extent, rays)
            return np.where(np.isnan(gain), -np.inf, gain) + self._feasible(_rows(candidates))

        return weigh, [each for each, on_front in zip(possible, kept, strict=True) if on_front]

    def _expected(self, candidates: Sequence[Candidate]) -> tuple[Floats, Floats]:
        """Mean and standard deviation at the last rung of the score and the other aims, (n, K) each; larger is better.

        NaN stands for what is known of others before they run, but not of this one.
        """
        features = self._features(candidates)
        found = [self._model.predict(features, END)]
        for aim in self._used:
            if any(aim.name in each.figures for each in candidates):
                told = [aim.goodness(each.figures.get(aim.name, math.nan)) for each in candidates]
                found.append((np.array(told), np.zeros(len(told))))
            else:
                found.append(self._models[aim.name].predict(features, END))
        means, deviations = zip(*found, strict=True)
        return np.stack(means, axis=1), np.stack(deviations, axis=1)


def _rows(candidates: Sequence[Candidate]) -> Floats:
    return np.stack([each.row for each in candidates])
