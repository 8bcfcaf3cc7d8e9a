"""Optuna behind Ray Tune's `Searcher`: a study keeps what happened, a model of learning curves says what to try."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from search.driver import DriverOnly
from search.spec.objectives import Aim
from search.strategy.multi_objective import Compromiser
from search.strategy.proposer import KNOWN, Proposer

FIGURES = "figures:"
"""With an epoch behind it, the attribute of a study's trial that holds what it reported of the other aims."""


@dataclass(kw_only=True)
class _Running:
    """A trial that Tune runs: the study's trial, its curve so far, and what waits for its results."""

    trial: optuna.Trial
    curve: dict[int, float] = field(default_factory=dict)
    rungs_left: list[int]


def _drawn(trial: optuna.Trial, returned: dict[str, Any]) -> dict[str, Any]:
    return {**trial.params, **returned}


class RungSearcher(DriverOnly, Searcher):
    """Proposes configurations from a define-by-run space.

    Args:
        space: draws from an `optuna.Trial`, and returns a dict or None.
        metric: key of the objective in a trial's reports.
        mode: 'max' or 'min'.
        rungs: the epochs at which trials are compared, in any order.
        time_attr: key of the epoch in a trial's reports.
        seed: of everything random.
        aims: more aims, such as '-macs', with '-' where smaller is better: proposals are to add to the trade-offs
            between all. They are reported beside the objective, or the space knows them (`search.proposals.KNOWN`).
        study: where trials are kept; one in memory when left out. Its finished trials are learned from, and those
            that it has as running are proposed again first.
        describe: turns the study's trial and what `space` returned into what Tune is given; when left out, that is
            every drawn parameter and, over them, what was returned, as Ray's OptunaSearch has it.
    """

    def __init__(
        self,
        space: Callable[[optuna.Trial], dict[str, Any] | None],
        *,
        metric: str,
        mode: str,
        rungs: Sequence[int],
        time_attr: str = "epoch",
        seed: int = 0,
        aims: Sequence[str] = (),
        study: optuna.Study | None = None,
        describe: Callable[[optuna.Trial, dict[str, Any]], dict[str, Any]] = _drawn,
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self._space = space
        self._metric_key = metric
        self._time_attr = time_attr
        self._describe = describe
        self._direction: Literal["maximize", "minimize"] = "maximize" if mode == "max" else "minimize"
        self._study = study or optuna.create_study(direction=self._direction)
        self._rungs = sorted(rungs)
        self._proposed = sum(frozen.state != TrialState.WAITING for frozen in self._study.get_trials(deepcopy=False))
        # Not the seed alone: a search that is gone on with would draw again what it drew at its start.
        self._study.sampler = optuna.samplers.RandomSampler(seed=seed + self._proposed)
        self._figures = [Aim.of(text).name for text in aims]
        self._compromiser = Compromiser(space, self._rungs, seed, aims) if aims else None
        self._proposer = self._compromiser or Proposer(space, self._rungs, seed)
        self._running: dict[str, _Running] = {}
        self._again: list[FrozenTrial] = []
        self._interrupted = False
        self._when_failed: Callable[[str, optuna.Trial], None] = lambda *_: None
        self._recall()

    @property
    def study(self) -> optuna.Study:
        """Where every trial is kept, with each report as an intermediate value."""
        return self._study

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration; never None."""
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
        return self._describe(running.trial, returned or {})

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Learn from a report: an intermediate value of the study's trial, and a result of the rung it reached."""
        self._take(self._running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Close the study's trial: complete with the best value of its curve, or failed.

        What it was told by `set_constraint`, by the space or since, is learned from. The last report may come here
        alone: Tune does not pass on the one after which a trial is stopped.
        """
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        if result and not error:
            self._take(running, result)
        finite = [value for value in running.curve.values() if math.isfinite(value)]
        if self._interrupted:
            return
        self._proposer.constrain(running.trial.number, running.trial.constraints)
        if error or not finite:
            for rung in running.rungs_left:
                self._learn(running.trial.number, rung, math.nan)
            if error:
                self._when_failed(trial_id, running.trial)
            self._study.tell(running.trial, state=TrialState.FAIL)
        else:
            self._study.tell(running.trial, max(finite) if self._direction == "maximize" else min(finite))

    def when_failed(self, then: Callable[[str, optuna.Trial], None]) -> None:
        """From here on `then` is called with the id and the study's trial of one that failed, before that is closed.

        Afterwards nothing could be noted of it.
        """
        self._when_failed = then

    @property
    def interrupted(self) -> bool:
        """Whether `interrupt` was called."""
        return self._interrupted

    def interrupt(self) -> None:
        """From here on a trial that ends was interrupted: the study keeps it as running, to be gone on with later."""
        self._interrupted = True

    def running(self, trial_id: str) -> optuna.Trial | None:
        """The study's trial behind one that Tune runs."""
        running = self._running.get(trial_id)
        return running.trial if running else None

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study's storage has everything already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a new searcher on the same study knows all that this one knew."""

    def _recall(self) -> None:
        """Learn from what the study already holds."""
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == TrialState.WAITING:
                continue
            self._proposer.add(frozen.number, frozen.params, frozen.distributions, frozen.user_attrs.get(KNOWN))
            self._proposer.constrain(frozen.number, frozen.constraints)
            if frozen.state == TrialState.RUNNING:
                self._again.append(frozen)
            for rung in self._rungs:
                reached = [epoch for epoch in frozen.intermediate_values if epoch >= rung]
                if reached or frozen.state == TrialState.FAIL:
                    value = frozen.intermediate_values[min(reached)] if reached else math.nan
                    figures = frozen.user_attrs.get(f"{FIGURES}{min(reached)}", {}) if reached else {}
                    self._learn(frozen.number, rung, value, figures)

    def _propose(self) -> _Running:
        """A new trial of the study: one that waits there, or one with the parameters that are proposed."""
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            pending = [running.trial.number for running in self._running.values()]
            self._study.enqueue_trial(self._proposer.propose(self._proposed, pending))
        self._proposed += 1
        return _Running(trial=self._study.ask(), rungs_left=list(self._rungs))

    def _learn(self, number: int, rung: int, value: float, figures: Mapping[str, float] | None = None) -> None:
        """Tell the model what a trial reached at a rung; NaN, as of a trial that failed, is worse than any number.

        A model that did not know of failures would take their region for an unexplored one, and go there again.
        """
        self._proposer.score(number, rung, value if self._direction == "maximize" else -value)
        if self._compromiser and figures:
            self._compromiser.report(number, rung, figures)

    def _take(self, running: _Running, result: Mapping[str, Any]) -> None:
        """Learn from a report; one that was taken already changes nothing."""
        if self._time_attr not in result or self._metric_key not in result:
            return
        epoch, value = int(result[self._time_attr]), float(result[self._metric_key])
        figures = {name: float(result[name]) for name in self._figures if name in result}
        if epoch not in running.curve:
            running.curve[epoch] = value
            running.trial.report(value, epoch)
            if figures:
                running.trial.set_user_attr(f"{FIGURES}{epoch}", figures)
        while running.rungs_left and running.rungs_left[0] <= epoch:
            rung = running.rungs_left.pop(0)
            self._learn(running.trial.number, rung, value, figures)
