"""Optuna behind Ray Tune's `Searcher`, keeping apart what was learned at different fidelities.

A score after one epoch and a score after nine are not the same quantity. Each of ASHA's rungs has a model of its own
(TPE), fed by every trial that reached it; the highest rung with enough results proposes, as in BOHB (Falkner et al.
2018), and every tenth proposal is random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

from search.driver import DriverOnly

ENOUGH = 6
"""Results that a rung needs before it proposes."""
RANDOM_EVERY = 10
"""Every so many proposals one is random, so that no region is given up for good."""


@dataclass(kw_only=True)
class _Running:
    """A trial that Tune runs: the study's trial, its curve so far, and what waits for its results."""

    trial: optuna.Trial
    curve: dict[int, float] = field(default_factory=dict)
    rungs_left: list[int]
    proposal: tuple[optuna.Study, optuna.Trial] | None = None
    """The model that proposed it, and the model's own trial: pending there until the trial ends."""


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
        self._seed = seed + self._proposed
        self._study.sampler = optuna.samplers.RandomSampler(seed=self._seed)
        self._models = {rung: self._model(rung) for rung in self._rungs}
        self._results = dict.fromkeys(self._rungs, 0)
        self._random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=self._seed))
        self._running: dict[str, _Running] = {}
        self._again: list[FrozenTrial] = []
        self._interrupted = False
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
        return self._describe(running.trial, returned or {})

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Learn from a report: an intermediate value of the study's trial, and a result of the rung it reached."""
        self._take(self._running[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Close the study's trial: complete with the best value of its curve, or failed.

        The last report may come here alone: Tune does not pass on the one after which a trial is stopped.
        """
        running = self._running.pop(trial_id, None)
        if running is None:
            return
        if result and not error:
            self._take(running, result)
        self._withdraw(running)
        finite = [value for value in running.curve.values() if math.isfinite(value)]
        if self._interrupted:
            return
        if error or not finite:
            for rung in running.rungs_left:
                self._learn(rung, running.trial.params, running.trial.distributions, math.nan)
            self._study.tell(running.trial, state=TrialState.FAIL)
        else:
            self._study.tell(running.trial, max(finite) if self._direction == "maximize" else min(finite))

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

    def _model(self, rung: int) -> optuna.Study:
        sampler = optuna.samplers.TPESampler(seed=self._seed + rung, n_startup_trials=ENOUGH)
        return optuna.create_study(direction=self._direction, sampler=sampler)

    def _recall(self) -> None:
        """Learn from what the study already holds."""
        for frozen in self._study.get_trials(deepcopy=False):
            if frozen.state == TrialState.RUNNING:
                self._again.append(frozen)
            for rung in self._rungs:
                reached = [epoch for epoch in frozen.intermediate_values if epoch >= rung]
                if reached or frozen.state == TrialState.FAIL:
                    value = frozen.intermediate_values[min(reached)] if reached else math.nan
                    self._learn(rung, frozen.params, frozen.distributions, value)

    def _propose(self) -> _Running:
        """A new trial of the study: one that waits there, or one with the parameters that the guiding model draws."""
        proposal = None
        if not self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            guide = self._guide()
            drawn = guide.ask()
            self._space(drawn)
            self._study.enqueue_trial(drawn.params)
            proposal = (guide, drawn)
        self._proposed += 1
        return _Running(trial=self._study.ask(), rungs_left=list(self._rungs), proposal=proposal)

    def _guide(self) -> optuna.Study:
        """The model of the highest rung with enough results; a random one in its turn, or before there is any."""
        informed = [rung for rung in self._rungs if self._results[rung] >= ENOUGH]
        if not informed or self._proposed % RANDOM_EVERY == RANDOM_EVERY - 1:
            return self._random
        return self._models[informed[-1]]

    def _learn(
        self, rung: int, params: dict[str, Any], distributions: dict[str, BaseDistribution], value: float
    ) -> None:
        """Tell a rung's model; NaN, as of a trial that failed, is worse than any number.

        A model that did not know of failures would take their region for an unexplored one, and go there again.
        """
        if math.isfinite(value):
            self._results[rung] += 1
        else:
            value = -math.inf if self._direction == "maximize" else math.inf
        self._models[rung].add_trial(create_trial(params=params, distributions=distributions, value=value))

    def _take(self, running: _Running, result: Mapping[str, Any]) -> None:
        """Learn from a report; one that was taken already changes nothing."""
        if self._time_attr not in result or self._metric_key not in result:
            return
        epoch, value = int(result[self._time_attr]), float(result[self._metric_key])
        if epoch not in running.curve:
            running.curve[epoch] = value
            running.trial.report(value, epoch)
        while running.rungs_left and running.rungs_left[0] <= epoch:
            rung = running.rungs_left.pop(0)
            self._learn(rung, running.trial.params, running.trial.distributions, value)

    def _withdraw(self, running: _Running) -> None:
        """The trial is pending no more: what is known of it, its model was told as a result."""
        if running.proposal:
            model, drawn = running.proposal
            model.tell(drawn, state=TrialState.FAIL)
