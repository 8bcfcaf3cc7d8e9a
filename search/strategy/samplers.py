"""Optuna's samplers as proposers, for comparison with ours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from search.spec.sampler import WITH_STATE, SamplerNotation, build_sampler, class_of, name_of
from search.strategy.encoding import constraint_violation
from search.strategy.proposer import ATTEMPTS, Proposal, Space
from trainable.config.settings import Scalar
from trainable.metrics.objective import Notation, Objective


@dataclass(kw_only=True)
class _Known:
    """A trial of the search."""

    params: Mapping[str, Scalar]
    distributions: Mapping[str, BaseDistribution]
    figures: Mapping[str, float]
    """Objectives that are known before the trial runs."""
    constraints: Mapping[str, float] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    """By rung, larger is better; not finite after a failure."""
    reported: dict[int, Mapping[str, float]] = field(default_factory=dict)
    """Other objectives by rung."""
    twin: optuna.Trial | None = None
    """The same trial in the study of the sampler."""


class SamplerProposer:
    """Proposes parameters by a sampler of Optuna, in the place of a `Proposer`.

    The sampler has a study of its own, in memory, in which a trial ends as Optuna's documentation has it: complete with
    its score at the last rung, or pruned with those at the rungs before; a failed trial is a pruned one without a
    score, which is the worst. With several objectives, which Optuna cannot prune by, a stopped trial counts with its
    values at the last rung that it reached. Earlier trials of a resumed search are repeated there in their order.

    Args:
        space: a define-by-run space.
        rungs: the epochs at which scores are compared, ascending.
        seed: of every random choice.
        objectives: those beside the score, such as '-macs'.
        sampler: as in `search.sampler`; not 'gp'.
    """

    def __init__(
        self, space: Space, rungs: Sequence[int], seed: int, objectives: Sequence[Notation], sampler: SamplerNotation
    ) -> None:
        self._space = space
        self._last = rungs[-1]
        self._objectives = [Objective.of(notation) for notation in objectives]
        self._without_score = TrialState.FAIL if objectives else TrialState.PRUNED
        self._name = name_of(sampler)
        self._has_state = class_of(sampler) in WITH_STATE
        self._study = optuna.create_study(
            directions=["maximize"] * (1 + len(objectives)), sampler=build_sampler(sampler, seed)
        )
        self._trials: dict[int, _Known] = {}
        self._open: list[int] = []
        self._proposed: optuna.Trial | None = None

    def add(
        self,
        trial: int,
        params: Mapping[str, Scalar],
        distributions: Mapping[str, BaseDistribution],
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """Add a trial that runs or ran, with the objectives that are known before it runs; or one that is resumed."""
        if (known := self._trials.get(trial)) is not None:
            known.params, known.distributions = dict(params), dict(distributions)  # it may have been lost without any
            return
        known = _Known(params=dict(params), distributions=dict(distributions), figures=figures or {})
        self._trials[trial] = known
        if self._proposed is not None and self._proposed.params == known.params:
            known.twin, self._proposed = self._proposed, None
        self._open.append(trial)

    def score(self, trial: int, rung: int, score: float) -> None:
        """Add the score of a trial at a rung; a score that is not finite stands for a failed trial."""
        self._trials[trial].scores[rung] = score

    def report(self, trial: int, rung: int, figures: Mapping[str, float]) -> None:
        """Add the other objectives of a trial at a rung."""
        self._trials[trial].reported[rung] = figures

    def constrain(self, trial: int, constraints: Mapping[str, float]) -> None:
        """Add the constraints of a trial; it is feasible if none is above 0."""
        self._trials[trial].constraints = dict(constraints)

    def propose(self, number: int, pending: Iterable[int]) -> Proposal:  # noqa: ARG002  the sampler counts
        """The next proposal, given the running trials `pending`."""
        running = set(pending)
        for each in self._open:
            known = self._trials[each]
            known.twin = known.twin or self._repeat(known)
            if each not in running:
                self._end(known, known.twin)
        self._open = [each for each in self._open if each in running]
        self._proposed = self._ask()
        for _ in range(ATTEMPTS):
            if constraint_violation(self._proposed.constraints.values()) <= 0:
                break
            self._study.tell(self._proposed, state=self._without_score)
            self._proposed = self._ask()
        return Proposal(dict(self._proposed.params), self._name)

    def _ask(self) -> optuna.Trial:
        trial = self._begin()
        self._space(trial)
        return trial

    def _begin(self) -> optuna.Trial:
        trial = self._study.ask()
        if self._has_state:
            _ = trial.relative_params  # a trial with fixed parameters would be no step of a sequence or a generation
        return trial

    def _repeat(self, known: _Known) -> optuna.Trial:
        """A trial of the sampler's study with the parameters of one that it did not propose.

        The space would judge it without the values in which a recipe differs from what the space fixes.
        """
        self._study.enqueue_trial(dict(known.params))
        trial = self._begin()
        for name, distribution in known.distributions.items():
            trial._suggest(name, distribution)
        return trial

    def _end(self, known: _Known, twin: optuna.Trial) -> None:
        """End a trial in the sampler's study."""
        for name, excess in known.constraints.items():
            if name not in twin.constraints:
                twin.set_constraint(name, math.inf if math.isnan(excess) else excess)
        is_whole = bool(known.scores) and all(map(math.isfinite, known.scores.values()))
        values = [known.scores[max(known.scores)], *self._others(known)] if is_whole else []
        has_values = bool(values) and all(map(math.isfinite, values))
        if has_values and (self._objectives or self._last in known.scores):
            self._study.tell(twin, values)
            return
        if has_values:
            for rung, score in known.scores.items():
                twin.report(score, rung)
        self._study.tell(twin, state=self._without_score)

    def _others(self, known: _Known) -> list[float]:
        """The objectives beside the score, larger is better; not finite where one is unknown."""
        values = {**known.reported.get(max(known.scores), {}), **known.figures}
        return [objective.oriented(values.get(objective.name, math.nan)) for objective in self._objectives]
