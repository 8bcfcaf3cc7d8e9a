"""Proposes the next configuration: the maximum of an acquisition function over random candidates and neighbours.

Measured on six tasks of a published surrogate of learning curves that nothing was tuned to. The figures are the number
of random full trainings that the best result is worth, at a budget of 10 and of 40 full trainings (see
`tests/benchmarks/search_quality.py`; one standard error is about a third): this method 829 and 4,031, random with ASHA
40 and 210, Ray's OptunaSearch with ASHA 24 and 96. Rejected alternatives, each with the scheduler of its time and on
six other tasks, on which random with ASHA is worth 42 and 235:

- one TPE per rung, proposing from the highest rung with six results (BOHB; Falkner et al. 2018): 45 and 968;
- prediction at the highest rung with six results instead of the last rung: 299 and 2,778, against 386 and 2,687; on
  synthetic noisy curves that cross, 13 and 25 (with a grace of 1 and of 3 epochs) against 15 and 32;
- ranks as scores instead of `warp`: 190 and 2,903, against 189 and 3,929;
- a random initial design instead of one far from earlier trials: 236 and 2,774, against 386 and 2,687;
- stopped trials treated like running ones (kriging believer): 350 and 2,719, against 275 and 2,730.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from scipy.special import log_ndtr

from search.strategy.encoding import Candidate, Floats, SampledTrial, SpaceEncoding, constraint_violation, is_infeasible
from search.strategy.surrogate import CurveModel, Observations, log_expected_improvement, warp
from trainable.config.settings import Scalar, Value

END = 1.0
"""The last rung on the time scale of the model."""
MIN_RESULTS = 6
"""Finite results at one rung before the model is used; until then, trials form a space-filling design."""
RANDOM_EVERY = 10
"""One proposal in this many is random, so that no region is excluded forever."""
MAX_OBSERVATIONS = 200
"""Limit on the observations of the model: it bounds the cost of a proposal."""
GROWTH = 1.15
"""Hyperparameters are refitted when the number of results has grown by this factor."""
POOL_SIZE = 256
"""Random candidates per proposal; `NEW_PER_PROPOSAL` of them are new each time."""
NEW_PER_PROPOSAL = 16
FINALISTS = 8
"""The best candidates, which are sampled from the space again, since its conditions may change them."""
PARENTS = 5
"""The most promising configurations, whose neighbours become candidates."""
STEP_SIZES = (0.2, 0.05)
"""Standard deviations of the steps from observed configurations, in shares of a range."""
FINE_STEP_SIZES = (0.1, 0.05, 0.02)
"""The same, from the best candidates so far, one after the other."""
ATTEMPTS = 50
"""How often infeasible configurations are drawn again."""

EXPLORATION, MODEL = "exploration", "model"
"""What proposes: a random draw or one far from all trials, without regard to scores; or the model of the scores."""
KNOWN = "known"
"""Attribute of a trial that a space can set: objectives that are known before the trial runs, by name."""

UNBUILDABLE = "unbuildable"
"""Constraint of a configuration whose values do not go together, above 0; others lack it."""

Space = Callable[[optuna.Trial], Mapping[str, Value] | None]
"""A define-by-run space: samples a trial, and may return what belongs to its configuration."""


@dataclass(frozen=True)
class Proposal:
    """The parameters of a trial, and where they come from."""

    params: dict[str, Scalar]
    proposed_by: str


class Proposer:
    """Models scores at rungs, where higher is better, and proposes parameters.

    Args:
        space: a define-by-run space.
        rungs: the epochs at which scores are compared, ascending.
        seed: with the number of a proposal, it determines every random choice.
    """

    def __init__(self, space: Space, rungs: Sequence[int], seed: int) -> None:
        self._space = space
        self._rungs = list(rungs)
        self._seed = seed % 2**63
        self._encoding = SpaceEncoding()
        self._trials: dict[int, Candidate] = {}
        self._scores: dict[int, list[tuple[float, int]]] = {rung: [] for rung in rungs}
        self._failures = dict.fromkeys(rungs, 0)
        self._parameters = 0
        self._seen: set[bytes] = set()
        self._constrained: list[int] = []
        self._violated = False
        self._pool: list[Candidate] = []
        self._model = CurveModel()
        self._constraint_model = CurveModel()
        self._results_at_fit = 0
        self._changes = 0

    def add(
        self,
        trial: int,
        params: Mapping[str, Scalar],
        distributions: Mapping[str, BaseDistribution],
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Add a trial that runs or ran, with the objectives that are known before it runs; or one that is resumed."""
        self._extend_encoding(distributions)
        row = self._encoding.row(params, distributions)
        before = self._trials.get(trial)  # a trial that is resumed is added again
        violation = before.violation if before else None
        known = Candidate(dict(params), dict(distributions), row, violation, figures or {})
        self._trials[trial] = known
        self._parameters += len(params) - (len(before.params) if before else 0)
        self._seen.add(known.row.tobytes())

    def score(self, trial: int, rung: int, score: float) -> None:
        """Add the score of a trial at a rung; a score that is not finite stands for a failed trial."""
        if not math.isfinite(score):
            score = -math.inf
            self._failures[rung] += 1
        bisect.insort(self._scores[rung], (score, trial))

    def constrain(self, trial: int, constraints: Mapping[str, float]) -> None:
        """Add the constraints of a trial; it is feasible if none is above 0.

        `UNBUILDABLE` is left out: it is known of each candidate, and a model of the few trials that have it would take
        all others for infeasible.
        """
        values = [value for name, value in constraints.items() if name != UNBUILDABLE]
        if values:
            violation = constraint_violation(values)
            if self._trials[trial].violation is None:
                self._constrained.append(trial)
            self._trials[trial].violation = violation
            self._violated |= violation > 0

    def propose(self, number: int, pending: Iterable[int]) -> Proposal:
        """Proposal `number`, given the running trials `pending`."""
        rng = np.random.default_rng([self._seed, number])
        finite = max(len(self._scores[rung]) - self._failures[rung] for rung in self._rungs)
        if number % RANDOM_EVERY == RANDOM_EVERY - 1:
            return Proposal(self._one_random(rng).params, EXPLORATION)
        if finite < MIN_RESULTS:
            return Proposal(self._farthest(self._random(rng, FINALISTS)).params, EXPLORATION)
        fresh = self._random(rng, NEW_PER_PROPOSAL if self._pool else POOL_SIZE)
        self._pool = [*self._pool, *fresh][-POOL_SIZE:]
        if not self._encoding.names:
            return Proposal({}, EXPLORATION)
        return Proposal(self._best(rng, [trial for trial in pending if trial in self._trials]).params, MODEL)

    def _sample(self, rng: np.random.Generator, wanted: Iterable[Mapping[str, float]]) -> list[Candidate]:
        """Sample the space once per mapping of wanted values."""
        draws = [SampledTrial(rng, values, number=len(self._trials)) for values in wanted]
        for draw in draws:
            self._space(cast("optuna.Trial", draw))
            self._extend_encoding(draw.distributions)
        return [
            Candidate(
                draw.params,
                draw.distributions,
                self._encoding.row(draw.params, draw.distributions),
                constraint_violation(draw.constraints.values()),
                draw.user_attrs.get(KNOWN, {}),
            )
            for draw in draws
        ]

    def _random(self, rng: np.random.Generator, count: int) -> list[Candidate]:
        """Up to `count` random configurations, without those that the space declares infeasible unless all are."""
        drawn, changes = self._sample(rng, [{}] * count), self._changes
        for _ in range(ATTEMPTS):
            drawn.sort(key=is_infeasible)
            if not is_infeasible(drawn[count - 1]):
                break
            drawn = [*drawn[:count], *self._sample(rng, [{}] * count)]
        if self._changes > changes:  # a later sample had a new parameter
            for each in drawn:
                each.row = self._encoding.row(each.params, each.distributions)
        best = sorted(drawn, key=is_infeasible)[:count]
        return [each for each in best if not is_infeasible(each)] or best

    def _one_random(self, rng: np.random.Generator) -> Candidate:
        """A random configuration; with more attempts than one of several, if none of those was feasible."""
        drawn = self._random(rng, 1)[0]
        return self._random(rng, FINALISTS)[0] if is_infeasible(drawn) else drawn

    def _extend_encoding(self, distributions: Mapping[str, BaseDistribution]) -> None:
        """Extend the encoding by new parameters, and encode everything again if there are any."""
        if self._encoding.extend(distributions):
            self._changes += 1
            for known in (*self._trials.values(), *self._pool):
                known.row = self._encoding.row(known.params, known.distributions)
            self._seen = {known.row.tobytes() for known in self._trials.values()}

    def _farthest(self, drawn: list[Candidate]) -> Candidate:
        """The candidate farthest from all trials: the initial design covers the space."""
        if not self._trials:
            return drawn[0]
        tried, offered = self._features(self._trials.values()), self._features(drawn)
        return drawn[int(np.argmax(((offered[:, None] - tried) ** 2).sum(2).min(1)))]

    def _features(self, known: Iterable[Candidate]) -> Floats:
        return self._encoding.features(np.stack([each.row for each in known]))

    def _best(self, rng: np.random.Generator, pending: list[int]) -> Candidate:
        """The candidate with the highest acquisition."""
        tried = np.stack([self._trials[trial].row for trial in self._prepare(pending)])
        acquisition = self._acquisition(tried)
        order = np.argsort(-self._model.predict(self._encoding.features(tried), END)[0])
        near = [self._encoding.neighbours(rng, tried[order[:PARENTS]], POOL_SIZE // 2, width) for width in STEP_SIZES]
        rows = np.concatenate([np.stack([known.row for known in self._pool]), *near])
        values = acquisition(rows)
        for width in FINE_STEP_SIZES:
            leaders = rows[np.argsort(-values)[: 2 * PARENTS]]
            closer = self._encoding.neighbours(rng, leaders, POOL_SIZE // 2, width)
            rows, values = np.concatenate([rows, closer]), np.concatenate([values, acquisition(closer)])
        _, first = np.unique(-values, return_index=True)
        changes = self._changes
        finalists = self._sample(rng, [self._encoding.wanted(rows[index]) for index in first[:FINALISTS]])
        new = [each for each in finalists if each.row.tobytes() not in self._seen and not is_infeasible(each)]
        if not new:
            return self._one_random(rng)
        if self._changes > changes:
            # A new parameter: the model has no observations of it.
            return new[0]
        return new[int(np.argmax(acquisition(np.stack([known.row for known in new]))))]

    def _time(self, rung: int) -> float:
        return math.log(1 + rung) / math.log(1 + self._rungs[-1])

    def _prepare(self, pending: list[int]) -> list[int]:
        """Condition the model on all observations, refit it if there are many new ones, and return its trials."""
        chosen = self._chosen()
        results = sum(map(len, self._scores.values()))
        grown = results >= self._results_at_fit * GROWTH
        if grown:
            self._results_at_fit = results
        self._update(self._model, self._observations(chosen), pending, refit=grown)
        self._update_constraints(refit=grown)
        return list(dict.fromkeys(trial for trial, _, _ in chosen))

    def _update(self, model: CurveModel, known: Observations, pending: list[int], *, refit: bool) -> None:
        self._shape(model)
        if refit:
            model.fit(known)
        model.condition(known)
        if pending:
            # Running trials are assumed to score as predicted (kriging believer; Ginsbourger et al. 2010).
            features = self._features(self._trials[trial] for trial in pending)
            expected, _ = model.predict(features, END)
            times = np.full(len(pending), END)
            believed = Observations(features=features, time=times, trial=np.array(pending), score=expected)
            model.condition(known.joined(believed))

    def _shape(self, model: CurveModel) -> None:
        model.shape(self._encoding.owners(), self._parameters / len(self._trials))

    def _ranked(self, rung: int) -> list[tuple[float, int]]:
        """Scores at a rung with their trials, ascending."""
        return self._scores[rung]

    def _chosen(self) -> list[tuple[int, float, int]]:
        """At most `MAX_OBSERVATIONS` scores with trial and rung: the best of each rung, and a sample of the others."""
        chosen: list[tuple[int, float, int]] = []
        for left, rung in zip(range(len(self._rungs), 0, -1), reversed(self._rungs), strict=True):
            scores = self._ranked(rung)
            room = (MAX_OBSERVATIONS - len(chosen)) // left
            if len(scores) > room:
                others = np.linspace(0, len(scores) - room // 2 - 1, room - room // 2).astype(int)
                scores = [*(scores[index] for index in others), *scores[len(scores) - room // 2 :]]
            chosen += [(trial, score, rung) for score, trial in scores]
        return chosen

    def _observations(self, chosen: Sequence[tuple[int, float, int]]) -> Observations:
        """Scores with trial and rung as observations of the model."""
        trials = [trial for trial, _, _ in chosen]
        return Observations(
            features=self._features(self._trials[trial] for trial in trials),
            time=np.array([self._time(rung) for _, _, rung in chosen]),
            trial=np.array(trials),
            score=warp(np.array([score for _, score, _ in chosen])),
        )

    def _update_constraints(self, *, refit: bool) -> None:
        """Update the model of the worst constraint, if any constraint was ever violated."""
        if not self._violated:
            return
        trials = self._constrained[-MAX_OBSERVATIONS:]
        violations = np.array([self._trials[trial].violation for trial in trials], float)
        finite = np.abs(violations[np.isfinite(violations)])
        scale = float(np.median(finite)) if len(finite) else 1.0
        known = Observations(
            features=self._encoding.features(np.stack([self._trials[trial].row for trial in trials])),
            time=np.full(len(trials), END),
            trial=np.array(trials),
            score=np.arcsinh(np.clip(violations / max(scale, 1e-12), -10, 10)),
        )
        self._shape(self._constraint_model)
        if refit:
            self._constraint_model.fit(known)
        self._constraint_model.condition(known)

    def _acquisition(self, tried: Floats) -> Callable[[Floats], Floats]:
        """Log expected improvement at the last rung plus the log probability of feasibility."""
        feasible = self._feasible(tried)
        means, _ = self._model.predict(self._encoding.features(tried), END)
        allowed = feasible > math.log(0.5)
        best = float(means[allowed].max()) if allowed.any() else None

        def acquisition(rows: Floats) -> Floats:
            chance = self._feasible(rows)
            if best is None:
                return chance
            mean, deviation = self._model.predict(self._encoding.features(rows), END)
            return log_expected_improvement(mean, deviation, best) + chance

        return acquisition

    def _feasible(self, rows: Floats) -> Floats:
        """Log probability that no constraint is violated (Gardner et al. 2014), (n,)."""
        if not self._violated:
            return np.zeros(len(rows))
        mean, deviation = self._constraint_model.predict(self._encoding.features(rows), END)
        return np.asarray(log_ndtr(-mean / deviation))
