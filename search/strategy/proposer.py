"""What to try next: the configuration of which the model of curves expects most, among random ones and neighbours.

Measured on six tasks of a published surrogate of learning curves that nothing was tuned to, in random full trainings
that the best of a search is worth after 10 and after 40 (see `tests/benchmarks/search_quality.py`; one standard error
is about a third): this one 829 and 4,031, random with ASHA 40 and 210, Ray's OptunaSearch with ASHA 24 and 96. What
lost, each with the scheduler of its time and on six other tasks, on which random with ASHA was worth 42 and 235:

- a TPE for each rung, the highest with six results proposing (as BOHB; Falkner et al. 2018): 45 and 968;
- this model asked for the highest rung with six results in place of the last: 299 and 2,778, against 386 and 2,687; on
  made-up noisy curves that cross it was worth 13 and 25 (after a grace of 1 and of 3 epochs) against 15 and 32;
- ranks as scores in place of `warp`: 190 and 2,903, against 189 and 3,929;
- a first trial drawn at random, not far from the others: 236 and 2,774, against 386 and 2,687;
- what was stopped taken to end as expected, as what runs is: 350 and 2,719, against 275 and 2,730.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from scipy.special import log_ndtr

from search.strategy.encoding import Draw, Floats, Points, constraint_violation
from search.strategy.surrogate import CurveModel, Observations, log_expected_improvement, warp

END = 1.0
"""The last rung, on the model's scale of time."""
ENOUGH = 6
"""Results that one of the rungs needs before the model is asked; until then trials lie far apart."""
RANDOM_EVERY = 10
"""Every so many proposals one is random, so that no region is given up for good."""
LEARNED = 200
"""Observations that the model is given at most: what a proposal costs is bounded, however long the search."""
GROWTH = 1.15
"""Lengths are learned anew when there are so many times the results: as often as the logarithm of their number."""
POOL = 256
"""Random configurations that are weighed at a time; `FRESH` of them are new each time."""
FRESH = 16
FINALISTS = 8
"""Of all that were weighed, so many are drawn from the space, whose conditions may change them."""
PARENTS = 5
"""Configurations, of the most promising, whose neighbours are weighed."""
WIDTHS = (0.2, 0.05)
"""Steps from what was tried, in shares of a range; and from the best found so, closer and closer."""
CLOSER = (0.1, 0.05, 0.02)
ATTEMPTS = 8
"""How often random configurations are drawn anew in the place of infeasible ones."""

KNOWN = "known"
"""Attribute of a trial, which a space may set: figures that are known before it runs, by name, to be compared by their
differences."""

Space = Callable[[optuna.Trial], "dict[str, Any] | None"]


@dataclass
class Candidate:
    """A configuration as the model knows it."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    row: Floats
    violation: float | None = None
    """By how much its worst constraint is violated, on a scale of its own; None while nobody said."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the space knows of it before it runs; see `KNOWN`."""


class Proposer:
    """Learns from scores at rungs, where higher is better, and proposes parameters.

    Args:
        space: a define-by-run space.
        rungs: the epochs at which scores are compared, ascending.
        seed: of everything random; with the number of a proposal it settles each random one.
    """

    def __init__(self, space: Space, rungs: Sequence[int], seed: int) -> None:
        self._space = space
        self._rungs = list(rungs)
        self._seed = seed % 2**63
        self._points = Points()
        self._trials: dict[int, Candidate] = {}
        self._scores: dict[int, list[tuple[float, int]]] = {rung: [] for rung in rungs}
        self._failures = dict.fromkeys(rungs, 0)
        self._parameters = 0
        self._seen: set[bytes] = set()
        self._told: list[int] = []
        self._violated = False
        self._pool: list[Candidate] = []
        self._model = CurveModel()
        self._limits = CurveModel()
        self._learned = 0
        self._changes = 0

    def add(
        self,
        trial: int,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Take in a trial that runs or ran, and the figures of it that are known without that."""
        self._learn(distributions)
        row = self._points.row(params, distributions)
        known = Candidate(dict(params), dict(distributions), row, figures=figures or {})
        self._trials[trial] = known
        self._parameters += len(params)
        self._seen.add(known.row.tobytes())

    def score(self, trial: int, rung: int, score: float) -> None:
        """Take in what a trial reached at a rung; what is not finite stands for a trial that failed."""
        if not math.isfinite(score):
            score = -math.inf
            self._failures[rung] += 1
        bisect.insort(self._scores[rung], (score, trial))

    def constrain(self, trial: int, constraints: Mapping[str, float]) -> None:
        """Take in a trial's constraints; it is feasible if none is above 0."""
        if constraints:
            violation = constraint_violation(constraints.values())
            self._trials[trial].violation = violation
            self._told.append(trial)
            self._violated |= violation > 0

    def propose(self, number: int, pending: Iterable[int]) -> dict[str, Any]:
        """Parameters for the proposal of this number, while `pending` trials run."""
        rng = np.random.default_rng([self._seed, number])
        finite = max(len(self._scores[rung]) - self._failures[rung] for rung in self._rungs)
        if number % RANDOM_EVERY == RANDOM_EVERY - 1:
            return self._random(rng, 1)[0].params
        if finite < ENOUGH:
            return self._farthest(self._random(rng, FINALISTS)).params
        fresh = self._random(rng, FRESH if self._pool else POOL)
        self._pool = [*self._pool, *fresh][-POOL:]
        if not self._points.names:
            return {}
        return self._best(rng, [trial for trial in pending if trial in self._trials]).params

    def _draw(self, rng: np.random.Generator, wanted: Iterable[Mapping[str, Any]]) -> list[Candidate]:
        """Run the space, each time with other values that are wanted."""
        draws = [Draw(rng, values, number=len(self._trials)) for values in wanted]
        for draw in draws:
            self._space(cast("optuna.Trial", draw))
            self._learn(draw.distributions)
        return [
            Candidate(
                draw.params,
                draw.distributions,
                self._points.row(draw.params, draw.distributions),
                constraint_violation(draw.constraints.values()),
                draw.user_attrs.get(KNOWN, {}),
            )
            for draw in draws
        ]

    def _random(self, rng: np.random.Generator, count: int) -> list[Candidate]:
        """Random configurations; as far as possible none of which the space itself says that it is infeasible."""
        drawn = self._draw(rng, [{}] * count)
        for _ in range(ATTEMPTS):
            drawn.sort(key=is_infeasible)
            if not is_infeasible(drawn[count - 1]):
                break
            drawn = [*drawn[:count], *self._draw(rng, [{}] * count)]
        return sorted(drawn, key=is_infeasible)[:count]

    def _learn(self, distributions: Mapping[str, BaseDistribution]) -> None:
        """Make room for new parameters; few configurations have any."""
        if self._points.learn(distributions):
            self._changes += 1
            for known in (*self._trials.values(), *self._pool):
                known.row = self._points.row(known.params, known.distributions)
            self._seen = {known.row.tobytes() for known in self._trials.values()}

    def _farthest(self, drawn: list[Candidate]) -> Candidate:
        """The one that is least like what was tried: the first trials are to see all of the space."""
        if not self._trials:
            return drawn[0]
        tried, offered = self._features(self._trials.values()), self._features(drawn)
        return drawn[int(np.argmax(((offered[:, None] - tried) ** 2).sum(2).min(1)))]

    def _features(self, known: Iterable[Candidate]) -> Floats:
        return self._points.features(np.stack([each.row for each in known]))

    def _best(self, rng: np.random.Generator, pending: list[int]) -> Candidate:
        """The configuration of the highest acquisition, of those found by weighing many rows."""
        tried = np.stack([self._trials[trial].row for trial in self._prepare(pending)])
        weigh = self._acquisition(tried)
        order = np.argsort(-self._model.predict(self._points.features(tried), END)[0])
        near = [self._points.moved(rng, tried[order[:PARENTS]], POOL // 2, width) for width in WIDTHS]
        rows = np.concatenate([np.stack([known.row for known in self._pool]), *near])
        values = weigh(rows)
        for width in CLOSER:
            leaders = rows[np.argsort(-values)[: 2 * PARENTS]]
            closer = self._points.moved(rng, leaders, POOL // 2, width)
            rows, values = np.concatenate([rows, closer]), np.concatenate([values, weigh(closer)])
        _, first = np.unique(-values, return_index=True)
        changes = self._changes
        finalists = self._draw(rng, [self._points.wanted(rows[place]) for place in first[:FINALISTS]])
        new = [each for each in finalists if each.row.tobytes() not in self._seen and not is_infeasible(each)]
        if not new:
            return self._random(rng, 1)[0]
        if self._changes > changes:
            # A parameter that nobody had seen yet: the model cannot weigh it, but will once it was tried.
            return new[0]
        return new[int(np.argmax(weigh(np.stack([known.row for known in new]))))]

    def _time(self, rung: int) -> float:
        return math.log(1 + rung) / math.log(1 + self._rungs[-1])

    def _prepare(self, pending: list[int]) -> list[int]:
        """Fit the model if there is much to learn, tell it what is known, and give the trials that it knows."""
        chosen = self._chosen()
        results = sum(map(len, self._scores.values()))
        grown = results >= self._learned * GROWTH
        if grown:
            self._learned = results
        self._teach(self._model, self._observations(chosen), pending, refit=grown)
        self._limit(refit=grown)
        return list(dict.fromkeys(trial for trial, _, _ in chosen))

    def _teach(self, model: CurveModel, known: Observations, pending: list[int], *, refit: bool) -> None:
        self._shape(model)
        if refit:
            model.fit(known)
        model.condition(known)
        if pending:
            # What runs is taken to score as expected (kriging believer; Ginsbourger et al. 2010).
            features = self._features(self._trials[trial] for trial in pending)
            expected, _ = model.predict(features, END)
            times = np.full(len(pending), END)
            believed = Observations(features=features, time=times, trial=np.array(pending), score=expected)
            model.condition(known.joined(believed))

    def _shape(self, model: CurveModel) -> None:
        model.shape(self._points.owners(), self._parameters / len(self._trials))

    def _ranked(self, rung: int) -> list[tuple[float, int]]:
        """Scores at a rung with their trials, the best last."""
        return self._scores[rung]

    def _chosen(self) -> list[tuple[int, float, int]]:
        """At most `LEARNED` scores with trial and rung: of each rung the best, and others from all its range."""
        chosen: list[tuple[int, float, int]] = []
        for left, rung in zip(range(len(self._rungs), 0, -1), reversed(self._rungs), strict=True):
            scores = self._ranked(rung)
            room = (LEARNED - len(chosen)) // left
            if len(scores) > room:
                others = np.linspace(0, len(scores) - room // 2 - 1, room - room // 2).astype(int)
                scores = [*(scores[place] for place in others), *scores[len(scores) - room // 2 :]]
            chosen += [(trial, score, rung) for score, trial in scores]
        return chosen

    def _observations(self, chosen: Sequence[tuple[int, float, int]]) -> Observations:
        """As the model takes them: scores with trial and rung."""
        trials = [trial for trial, _, _ in chosen]
        return Observations(
            features=self._features(self._trials[trial] for trial in trials),
            time=np.array([self._time(rung) for _, _, rung in chosen]),
            trial=np.array(trials),
            score=warp(np.array([score for _, score, _ in chosen])),
        )

    def _limit(self, *, refit: bool) -> None:
        """Tell the model of constraints what is known of them, if one was ever violated."""
        if not self._violated:
            return
        told = self._told[-LEARNED:]
        violations = np.array([self._trials[trial].violation for trial in told], float)
        finite = np.abs(violations[np.isfinite(violations)])
        scale = float(np.median(finite)) if len(finite) else 1.0
        known = Observations(
            features=self._points.features(np.stack([self._trials[trial].row for trial in told])),
            time=np.full(len(told), END),
            trial=np.array(told),
            score=np.arcsinh(np.clip(violations / max(scale, 1e-12), -10, 10)),
        )
        self._shape(self._limits)
        if refit:
            self._limits.fit(known)
        self._limits.condition(known)

    def _acquisition(self, tried: Floats) -> Callable[[Floats], Floats]:
        """Logarithm of the improvement expected at the last rung, and of the chance that no constraint is violated."""
        feasible = self._feasible(tried)
        means, _ = self._model.predict(self._points.features(tried), END)
        allowed = feasible > math.log(0.5)
        best = float(means[allowed].max()) if allowed.any() else None

        def weigh(rows: Floats) -> Floats:
            chance = self._feasible(rows)
            if best is None:
                return chance
            mean, deviation = self._model.predict(self._points.features(rows), END)
            return log_expected_improvement(mean, deviation, best) + chance

        return weigh

    def _feasible(self, rows: Floats) -> Floats:
        """Logarithm of the chance that no constraint is violated (Gardner et al. 2014), (n,)."""
        if not self._violated:
            return np.zeros(len(rows))
        mean, deviation = self._limits.predict(self._points.features(rows), END)
        return np.asarray(log_ndtr(-mean / deviation))


def is_infeasible(known: Candidate) -> bool:
    """Whether somebody said that a constraint is violated."""
    return known.violation is not None and known.violation > 0
