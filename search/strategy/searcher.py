"""A Ray Tune `Searcher` on an Optuna study, with a model of learning curves that proposes trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.driver import DriverOnly
from search.spec.sampler import OURS, SamplerNotation
from search.strategy.multi_objective import MultiObjectiveProposer
from search.strategy.proposer import KNOWN, Proposer, Space
from search.strategy.samplers import SamplerProposer
from search.study.trials import PROPOSED_BY, is_diverged, is_untrained
from trainable.config.settings import Value
from trainable.metrics.names import TIME_ATTR
from trainable.metrics.objective import SCORE, Notation, Objective

FIGURES = "figures:"
"""Prefix, before an epoch, of the attribute with the other objectives that a trial reported."""


@dataclass(kw_only=True)
class _Running:
    """A trial that Tune runs: the trial of the study, its curve so far, and the rungs ahead."""

    trial: optuna.Trial
    curve: dict[int, float] = field(default_factory=dict)
    rungs_left: list[int]


def _all_parameters(trial: optuna.Trial, returned: dict[str, Value]) -> dict[str, object]:
    return {**trial.params, **returned}


def _is_excluded(curve: Mapping[int, float], constraints: Mapping[str, float]) -> bool:
    """Whether a trial reported that it is not trained; then only the constraints say something about its parameters."""
    return bool(curve) and any(excess > 0 for excess in constraints.values())


class RungSearcher(DriverOnly, Searcher):
    """Proposes configurations from a define-by-run space.

    Args:
        space: samples from an `optuna.Trial`, and returns a dict or None.
        objective: the first one, whose values are the scores; their scale does not matter to the model. A trial without
            a finite value, such as one that diverged at once, is a failed one.
        rungs: the epochs at which trials are compared, in any order.
        seed: of every random choice.
        objectives: those beside the first, such as '-macs', with '-' where smaller is better; proposals then improve
            the Pareto front. Trials report them, or the space knows them (`proposer.KNOWN`).
        sampler: what proposes, as in `search.sampler`.
        study: keeps the trials; in memory by default. Finished trials are observations, and trials that are still
            marked as running are proposed again first.
        describe: maps the trial of the study and the result of `space` to the configuration for Tune; by default all
            parameters, updated with the result, as in Ray's OptunaSearch.
    """

    def __init__(
        self,
        space: Space,
        *,
        objective: Objective = SCORE,
        rungs: Sequence[int],
        seed: int = 0,
        objectives: Sequence[Notation] = (),
        sampler: SamplerNotation = OURS,
        study: optuna.Study | None = None,
        describe: Callable[[optuna.Trial, dict[str, Value]], dict[str, object]] = _all_parameters,
    ) -> None:
        super().__init__(metric=objective.key, mode=objective.mode)
        self._space = space
        self._objective = objective
        self._describe = describe
        self._study = study or optuna.create_study(direction=objective.direction)
        self._rungs = sorted(rungs)
        self._proposed = sum(frozen.state != TrialState.WAITING for frozen in self._study.get_trials(deepcopy=False))
        # Not the seed alone: a resumed search would repeat its first samples.
        self._study.sampler = optuna.samplers.RandomSampler(seed=seed + self._proposed)
        self._figures = [Objective.of(notation) for notation in objectives]
        self._proposer: Proposer | SamplerProposer
        if sampler != OURS:
            self._proposer = SamplerProposer(space, self._rungs, seed + self._proposed, objectives, sampler)
        elif objectives:
            self._proposer = MultiObjectiveProposer(space, self._rungs, seed, objectives)
        else:
            self._proposer = Proposer(space, self._rungs, seed)
        self._running: dict[str, _Running] = {}
        self._again: list[FrozenTrial] = []
        self._interrupted = False
        self._when_failed: Callable[[str, optuna.Trial], bool] = lambda *_: True
        self._read_study()

    @property
    def study(self) -> optuna.Study:
        """The study with every trial, and each report as an intermediate value."""
        return self._study

    def suggest(self, trial_id: str) -> dict[str, object]:
        """The next configuration for Tune; never None."""
        if self._again:
            frozen = self._again.pop(0)
            curve = dict(frozen.intermediate_values)
            left = [rung for rung in self._rungs if rung > max(curve, default=0)]
            trial = optuna.Trial(self._study, frozen._trial_id)
            running = _Running(trial=trial, curve=curve, rungs_left=left)
        else:
            running = self._propose()
        self._running[trial_id] = running
        returned = self._space(running.trial)
        known = running.trial.user_attrs.get(KNOWN) if self._figures else None
        self._proposer.add(running.trial.number, running.trial.params, running.trial.distributions, known)
        return self._describe(running.trial, dict(returned or {}))

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Record a report as an intermediate value and, at a rung, as an observation."""
        running = self._running.get(trial_id)
        if running is not None:  # else an error after its end made Tune start it again
            self._record(running, result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """End the trial of the study: complete with the best value of its curve, or failed.

        A trial that was interrupted, or did not fail by itself, stays running in the study, and is resumed later. Its
        constraints become observations. The last report may arrive only here: Tune does not pass the report after
        which a trial is stopped to `on_trial_result`.
        """
        # It is forgotten when it is told, not before: Tune repeats an end that failed.
        running = self._running.get(trial_id)
        if running is None:
            return
        if result and not error:
            self._record(running, result)
        finite = [value for value in running.curve.values() if math.isfinite(value)]
        if self._interrupted or (error and not self._when_failed(trial_id, running.trial)):
            del self._running[trial_id]
            return
        self._proposer.constrain(running.trial.number, running.trial.constraints)
        is_outside = not error and _is_excluded(running.curve, running.trial.constraints)
        if (error or not finite or is_diverged(running.trial)) and not is_outside:
            for rung in running.rungs_left:
                self._observe(running.trial.number, rung, math.nan)
        if error or not finite:
            self._study.tell(running.trial, state=TrialState.FAIL)
        else:
            self._study.tell(running.trial, max(finite, key=self._objective.oriented))
        del self._running[trial_id]

    def when_failed(self, then: Callable[[str, optuna.Trial], bool]) -> None:
        """Set a callback that gets the id and the trial of the study of each failed trial, before it is ended.

        It returns whether the trial failed by itself and is to be ended. An ended trial takes no more attributes.
        """
        self._when_failed = then

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def interrupt(self) -> None:
        """Treat trials that end from now on as interrupted: they stay running in the study, and are resumed later."""
        self._interrupted = True

    def running(self, trial_id: str) -> optuna.Trial | None:
        """The trial of the study for a running trial of Tune."""
        running = self._running.get(trial_id)
        return running.trial if running else None

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the storage of the study has everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a new searcher reads the same study."""

    def _read_study(self) -> None:
        """Read the trials of the study."""
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == TrialState.WAITING:
                continue
            self._proposer.add(frozen.number, frozen.params, frozen.distributions, frozen.user_attrs.get(KNOWN))
            self._proposer.constrain(frozen.number, frozen.constraints)
            if frozen.state == TrialState.RUNNING:
                self._again.append(frozen)
            if is_untrained(frozen.user_attrs):
                continue
            for rung in self._rungs:
                reached = [epoch for epoch in frozen.intermediate_values if epoch >= rung]
                has_failed = frozen.state == TrialState.FAIL or (frozen.state.is_finished() and is_diverged(frozen))
                is_failed = has_failed and not _is_excluded(frozen.intermediate_values, frozen.constraints)
                if reached or is_failed:
                    value = frozen.intermediate_values[min(reached)] if reached else math.nan
                    figures = frozen.user_attrs.get(f"{FIGURES}{min(reached)}", {}) if reached else {}
                    self._observe(frozen.number, rung, value, figures)

    def _propose(self) -> _Running:
        """A new trial of the study: an enqueued one, or one with proposed parameters."""
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            pending = [running.trial.number for running in self._running.values()]
            proposal = self._proposer.propose(self._proposed, pending)
            self._study.enqueue_trial(proposal.params, user_attrs={PROPOSED_BY: proposal.proposed_by})
        self._proposed += 1
        return _Running(trial=self._study.ask(), rungs_left=list(self._rungs))

    def _observe(self, number: int, rung: int, value: float, figures: Mapping[str, float] | None = None) -> None:
        """Add the score of a trial at a rung; NaN, a failed trial, is the worst.

        Without failures, the model would treat their region as unexplored and return to it.
        """
        self._proposer.score(number, rung, self._objective.oriented(value))
        if figures and isinstance(self._proposer, MultiObjectiveProposer | SamplerProposer):
            self._proposer.report(number, rung, figures)

    def _record(self, running: _Running, result: Mapping[str, Any]) -> None:
        """Record a report; a repeated report changes nothing."""
        if TIME_ATTR not in result or self._objective.key not in result:
            return
        epoch, value = int(result[TIME_ATTR]), float(result[self._objective.key])
        figures = {each.name: each.value(result) for each in self._figures if each.is_in(result)}
        if epoch not in running.curve:
            running.curve[epoch] = value
            running.trial.report(value, epoch)
            if figures:
                running.trial.set_user_attr(f"{FIGURES}{epoch}", figures)
        if is_untrained(result):  # which the study has only after this
            return
        while running.rungs_left and running.rungs_left[0] <= epoch:
            rung = running.rungs_left.pop(0)
            self._observe(running.trial.number, rung, value, figures)
