"""The one way in which trials and their reports are counted for the state of a search.

The running command passes a tally each report as it comes; `twinhead status` makes one from the study.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search.results.status import BestTrial, Budget, Kind, Retraining, SearchStatus, State
from search.results.summary import outcome_of
from search.spec.spec import SearchSpec
from search.study.trials import TrialRecord, by_end
from trainable.config import TrialConfig, build
from trainable.config.describe import describe
from trainable.metrics.names import CONSTRAINT, OBJECTIVE
from trainable.metrics.objective import SCORE, Objective

RUNNING, INTERRUPTED = "running", "interrupted"
OUTCOMES = ("finished", "stopped", "diverged", "constraint", "failed")
"""Outcomes of trials that ended; see `search.results.summary.outcomes`."""
STATES = (RUNNING, *OUTCOMES, INTERRUPTED)
"""States of trials that were started."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run consists of."""

    name: str
    kind: Kind = "search"
    trials: int
    epochs: int
    """Of a whole trial; the largest number of several."""
    max_epochs: int | None = None
    """Of all trials together; None if trials are stopped early."""
    rungs: Sequence[int] = ()
    hours: float | None = None
    gpu_hours: float | None = None
    objective: Objective = SCORE

    @classmethod
    def of_search(cls, name: str, spec: SearchSpec) -> RunPlan:
        """The plan of a search."""
        budget, scheduler = spec.plan.budget, spec.plan.scheduler
        return cls(
            name=name,
            trials=budget.trials,
            epochs=scheduler.max_epochs,
            rungs=scheduler.rungs,
            hours=budget.hours,
            gpu_hours=budget.gpu_hours,
            objective=spec.plan.objective,
        )

    @classmethod
    def of_trainings(cls, name: str, kind: Kind, epochs: Sequence[int]) -> RunPlan:
        """The plan of a comparison or a training, with the epochs of each configuration."""
        return cls(name=name, kind=kind, trials=len(epochs), epochs=max(epochs), max_epochs=sum(epochs))


@dataclass
class Counted:
    """What a `Tally` knows of a trial."""

    number: int
    state: str = ""
    """A key of `SearchStatus.trials`; '' before its first start."""
    epoch: int = 0
    """Last epoch."""
    seconds: float = 0.0
    """Of all epochs."""
    samples_per_second: float = 0.0
    best: float | None = None
    """Best value of the objective."""
    best_epoch: int = 0
    recipe: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)


class Tally:
    """Counts trials and their reports; what a report costs does not grow with the search.

    Args:
        plan: of the run.
        earlier: trials so far.
    """

    def __init__(self, plan: RunPlan, earlier: Iterable[TrialRecord] = ()) -> None:
        self.plan = plan
        self._trials: dict[int, Counted] = {}
        self._running: dict[int, Counted] = {}
        self._counts: Counter[str] = Counter()
        self._rungs = dict.fromkeys(plan.rungs, 0)
        self._best: tuple[float, float, int, Counted] | None = None
        self._values: list[float] = []
        self._settings: tuple[int, str] | None = None
        self._epochs = self._restarts = 0
        self._seconds = self._ended_seconds = 0.0
        for record in by_end(earlier):
            self._add(record)

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by state: running, by outcome, and interrupted."""
        return {name: self._counts[name] for name in STATES}

    @property
    def ended(self) -> int:
        """Number of trials that ended."""
        return sum(self._counts[name] for name in OUTCOMES)

    @property
    def running(self) -> int:
        """Number of trials that run."""
        return len(self._running)

    @property
    def best(self) -> BestTrial | None:
        """The best trial so far."""
        if self._best is None:
            return None
        value, score, epoch, trial = self._best
        if self._settings is None or self._settings[0] != trial.number:
            known = trial.config and str(describe(build(TrialConfig, trial.config, source="the study")))
            self._settings = (trial.number, known or "")
        return BestTrial(
            trial=trial.number,
            epoch=epoch,
            score=score,
            objective=self.plan.objective.key,
            value=value,
            settings=self._settings[1],
            recipe=trial.recipe,
        )

    def start(self, number: int, *, recipe: str = "", config: Mapping[str, Any] | None = None) -> None:
        """Count a trial as running, with the epochs that it ran before an interruption."""
        trial = self._trials.setdefault(number, Counted(number))
        trial.recipe, trial.config = recipe or trial.recipe, config or trial.config
        self._move(trial, RUNNING)
        self._running[number] = trial

    def report(self, number: int, epoch: int, metrics: Mapping[str, float], *, counts: bool = True) -> None:
        """Count an epoch of a trial.

        Args:
            number: of the trial.
            epoch: counted from 1.
            metrics: of the epoch.
            counts: whether its value may be the best: not that of a trial outside the limits.
        """
        trial, value = self.trial(number), self.plan.objective.value(metrics)
        trial.samples_per_second = float(metrics.get("samples_per_second", 0.0))
        if epoch > trial.epoch:  # else it is repeated, after a crash
            for rung in self._rungs:
                self._rungs[rung] += trial.epoch < rung <= epoch
            trial.epoch = epoch
            if "seconds" in metrics:  # an epoch that was completed
                self._epochs += 1
                trial.seconds += float(metrics["seconds"])
                self._seconds += float(metrics["seconds"])
            if self.plan.trials == 1:
                self._values.append(value)
        if self._is_better(value, trial.best):
            trial.best, trial.best_epoch = value, epoch
        if counts and self._is_better(value, self._best and self._best[0]):
            self._best = value, float(metrics.get(OBJECTIVE, math.nan)), epoch, trial

    def end(self, number: int, outcome: str) -> None:
        """Count a trial that ended, or is interrupted, by its outcome."""
        trial = self.trial(number)
        self._running.pop(number, None)
        self._move(trial, outcome)
        if outcome == INTERRUPTED:
            return
        self._ended_seconds += trial.seconds
        if self._best is not None and self.plan.trials > 1:
            self._values.append(self._best[0])

    def interrupt(self) -> None:
        """Count the running trials as interrupted."""
        for number in [*self._running]:
            self.end(number, INTERRUPTED)

    def trial(self, number: int) -> Counted:
        """A trial by its number."""
        return self._trials.setdefault(number, Counted(number))

    def status(
        self,
        *,
        state: State = "running",
        reason: str = "",
        seconds: float,
        gpu_seconds: float = 0.0,
        slots: Mapping[str, Any] | None = None,
        retraining: Retraining | None = None,
        **origin: Any,
    ) -> SearchStatus:
        """The present state.

        Args:
            state: of the run.
            reason: why it failed or waits.
            seconds: of all runs, without completed retrainings, which `budget.hours` does not count.
            gpu_seconds: of all trials.
            slots: number of concurrent trials, and the CPUs and GPUs of each; None if unknown.
            retraining: how far it is, if a driver retrains.
            **origin: the fields of `SearchStatus` about the driver and its job.
        """
        plan, running, slots = self.plan, [*self._running.values()], slots or {}
        budget = Budget(
            trials=self.ended,
            max_trials=plan.trials,
            hours=round(seconds / 3600, 4),
            max_hours=plan.hours,
            gpu_hours=round(gpu_seconds / 3600, 4),
            max_gpu_hours=plan.gpu_hours,
        )
        uses = {name: len(running) * slots.get(name, 0) for name in ("cpus", "gpus")}
        speed = sum(trial.samples_per_second for trial in running)
        left = self._seconds_left(budget, slots.get("concurrent"))
        if retraining is not None:
            uses = {"cpus": retraining.cpus, "gpus": retraining.gpus}
            speed, left = retraining.samples_per_second, retraining.seconds_left
        best = self.best
        return SearchStatus(
            name=plan.name,
            kind=plan.kind,
            state=state,
            reason=reason,
            trials=self.counts,
            recoveries=self._restarts,
            best=best,
            rungs=dict(self._rungs),
            budget=budget,
            seconds_left=left if state == "running" else None,
            concurrent=slots.get("concurrent"),
            cpus_busy=uses["cpus"],
            gpus_busy=uses["gpus"],
            objective=plan.objective.key,
            epochs=self._epochs,
            max_epochs=plan.max_epochs,
            scores=(*self._values, *([best.value] if best and plan.trials > 1 else [])),
            samples_per_second=round(speed, 1),
            retraining=retraining,
            **origin,
        )

    def _add(self, record: TrialRecord) -> None:
        """Count a trial of the study."""
        self.start(record.number, recipe=record.recipe, config=record.config)
        for epoch in record.epochs:
            self.report(record.number, epoch.epoch, epoch.metrics, counts=record.outcome != CONSTRAINT)
        self.end(record.number, outcome_of(record, self.plan.epochs))
        self._restarts += record.retries + max(0, record.attempt)

    def _is_better(self, value: float, other: float | None) -> bool:
        """Whether a value of the objective is better than another one, if there is one; NaN never is."""
        oriented = self.plan.objective.oriented
        return oriented(value) > (-math.inf if other is None else oriented(other))

    def _move(self, trial: Counted, state: str) -> None:
        self._counts[trial.state] -= 1
        trial.state = state
        self._counts[state] += 1

    def _seconds_to_rung(self, trial: Counted) -> float:
        """The time until a running trial can be stopped, which may exceed what is left of the mean of others."""
        rung = next((rung for rung in self.plan.rungs if rung > trial.epoch), trial.epoch + 1)
        return (rung - trial.epoch) * trial.seconds / max(1, trial.epoch)

    def _seconds_left(self, budget: Budget, concurrent: int | None) -> float | None:
        if not concurrent:
            return None
        if self.plan.max_epochs is not None:
            if not self._epochs:
                return None
            left = max(0, self.plan.max_epochs - self._epochs) * self._seconds / self._epochs
            return round(left / max(1, min(concurrent, self.plan.trials - self.ended)), 1)
        if not self.ended:
            return None
        mean = self._ended_seconds / self.ended
        running = [*self._running.values()]
        rest = [max(mean - trial.seconds, self._seconds_to_rung(trial)) for trial in running]
        waiting = max(0, budget.max_trials - budget.trials - len(running)) * mean
        left = max((waiting + sum(rest)) / concurrent, *rest, 0.0)
        if budget.max_hours is not None:
            left = min(left, max(0.0, 3600 * (budget.max_hours - budget.hours)))
        return round(float(left), 1)
