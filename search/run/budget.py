"""What a search uses: its budget of GPU hours and of trials without an improvement, and room on the cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress

import optuna
import ray
from ray.tune.experiment import Trial

from data.errors import InputError, UnfinishedError
from search.driver import TrialCallback, last_report, request_of
from search.run.failures import find_fault, is_lost, last_error
from search.run.prepare import each_uses
from search.spec.sections import BudgetConfig
from search.study.trials import GPU_SECONDS, WAITING, by_end, trial_records
from search.terminal import Screen
from trainable.job import Workers
from trainable.metrics.names import CONSTRAINT
from trainable.metrics.objective import SCORE, Objective
from trainable.report import TrialReport

BUDGET_REASONS = {
    "hours": "its time is up (budget.hours)",
    "gpu_hours": "its GPU hours are used up (budget.gpu_hours)",
    "patience": "its trials have stopped improving (budget.patience)",
}
"""Why a search ended, by the key of the budget."""

STORE_SECONDS = 60.0
"""How often the GPU seconds of running trials are stored, for a driver that is killed and for `status`."""
ROOM_SECONDS = 15.0
"""Time without a running trial after which the cluster is asked for its room, and between two such questions."""


def check_budget(budget: BudgetConfig, workers: Workers) -> None:
    """Refuse a budget of GPU hours for trials without a GPU.

    Raises:
        InputError: if `gpu_hours` is set and the trials use no GPU.
    """
    if budget.gpu_hours is not None and not workers.gpus:
        raise InputError(
            f"The value of 'budget.gpu_hours' is {budget.gpu_hours:g}, but the trials use no GPU; remove it from the "
            "spec and give budget.hours, or set resources.gpus_per_trial on a cluster that has GPUs."
        )


class Budget(TrialCallback):
    """Counts what a search has used, over all its runs.

    Args:
        config: the limits.
        study: of the search; stores the GPU seconds.
        gpus: of each trial.
        clock: returns seconds.
        objective: of the search.
    """

    def __init__(
        self,
        config: BudgetConfig,
        study: optuna.Study,
        *,
        gpus: float,
        clock: Callable[[], float] = time.monotonic,
        objective: Objective = SCORE,
    ) -> None:
        self._config = config
        self._objective = objective
        self._study = study
        self._gpus = gpus
        self._clock = clock
        self._used = float(study.user_attrs.get(GPU_SECONDS, 0.0))
        self._started: dict[str, float] = {}
        self._stored = clock()
        self._best = -math.inf
        self._best_of: dict[str, float] = {}
        self._without_gain = 0
        records = trial_records(study, objective)
        for record in by_end(each for each in records if each.state.is_finished()):
            self._end(record.best_epoch.rank if record.best_epoch else -math.inf, record.outcome)
        self._interrupted: dict[int | None, float] = {
            each.number: each.best_epoch.rank for each in records if not each.state.is_finished() and each.best_epoch
        }
        """The best values that trials reached before they were interrupted, by number."""

    @property
    def gpu_seconds(self) -> float:
        """Of all trials so far, including the running ones."""
        running = sum(self._clock() - started for started in self._started.values())
        return self._used + running * self._gpus

    def spent(self) -> str:
        """The key of the budget that is used up; '' if none is."""
        hours, patience = self._config.gpu_hours, self._config.patience
        if hours is not None and self.gpu_seconds >= hours * 3600:
            return "gpu_hours"
        # A trial that has not ended and is the best so far is an improvement already.
        ahead = any(rank > self._best for rank in (*self._best_of.values(), *self._interrupted.values()))
        if patience is not None and self._without_gain >= patience and not ahead:
            return "patience"
        return ""

    def stepped(self) -> None:
        """Store the GPU seconds from time to time."""
        if self._started and self._gpus and self._clock() - self._stored >= STORE_SECONDS:
            self._store()

    def started(self, trial: Trial) -> None:
        """Note the time from which the trial uses its GPUs, and what it reached before an interruption."""
        self._started.setdefault(trial.trial_id, self._clock())
        if (rank := self._interrupted.pop(request_of(trial).number, None)) is not None:
            self._best_of[trial.trial_id] = rank

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Update the trial's best value of the objective."""
        rank = self._objective.rank(report.metrics)
        self._best_of[trial.trial_id] = max(self._best_of.get(trial.trial_id, -math.inf), rank)

    def completed(self, trial: Trial) -> None:
        """Count a trial that ended, and store the GPU seconds."""
        self._end(self._best_of.pop(trial.trial_id, -math.inf), last_report(trial).outcome)
        self._stop(trial)

    def failed(self, trial: Trial) -> None:
        """Count a trial that failed by itself; another one is interrupted."""
        error = last_error(trial)
        if find_fault(error) is None and not is_lost(error):
            self.completed(trial)
        else:
            self._stop(trial)

    def recovered(self, trial: Trial) -> None:
        """Store the GPU seconds until now: a trial that waits for its retry uses no GPU."""
        self._stop(trial)

    def ended(self, trials: list[Trial]) -> None:
        """Count and store the time of interrupted trials, which the next run resumes."""
        self._used = self.gpu_seconds
        with suppress(OSError, UnfinishedError):  # the storage itself may be lost
            self._study.set_user_attr(GPU_SECONDS, self._used)
        self._started.clear()
        for trial in trials:
            if trial.trial_id in self._best_of:
                self._interrupted[request_of(trial).number] = self._best_of[trial.trial_id]
        self._best_of.clear()

    def _stop(self, trial: Trial) -> None:
        self._used += (self._clock() - self._started.pop(trial.trial_id, self._clock())) * self._gpus
        self._store()

    def _store(self) -> None:
        self._stored = self._clock()
        self._study.set_user_attr(GPU_SECONDS, self.gpu_seconds)

    def _end(self, rank: float, outcome: str) -> None:
        if outcome == CONSTRAINT:
            return  # not trained: neither an improvement nor a failure to improve
        if rank > self._best:
            self._best, self._without_gain = rank, 0
        else:
            self._without_gain += 1


class Room(TrialCallback):
    """Says when nothing runs because the cluster has no room, and keeps the reason in the study.

    Args:
        screen: where it is said.
        study: of the search.
        workers: of a trial, or of the retraining.
        shortage: returns the reason; '' if there is room, or a process is starting.
        clock: returns seconds.
    """

    def __init__(
        self,
        screen: Screen,
        study: optuna.Study,
        workers: Workers,
        *,
        shortage: Callable[[Workers], str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._screen, self._study, self._workers = screen, study, workers
        self._shortage, self._clock = shortage or find_shortage, clock
        self._running: set[str] = set()
        self._next = clock() + ROOM_SECONDS
        self.reason = ""
        """Why nothing runs; '' if something does."""
        if study.user_attrs.get(WAITING):
            study.set_user_attr(WAITING, "")

    def stepped(self) -> None:
        """Look for room, if nothing has run for a while."""
        if self._running or self._clock() < self._next:
            return
        self._next = self._clock() + ROOM_SECONDS
        self._set(self._shortage(self._workers))

    def started(self, trial: Trial) -> None:
        """Note that there is room."""
        self._running.add(trial.trial_id)
        self._set("")

    def completed(self, trial: Trial) -> None:
        """Note that the trial does not run any more."""
        self._running.discard(trial.trial_id)
        self._next = self._clock() + ROOM_SECONDS

    failed = recovered = completed

    def ended(self, trials: list[Trial]) -> None:
        """Note that nothing waits any more."""
        self._running.clear()
        self._set("")

    def _set(self, reason: str) -> None:
        if reason and not self.reason:
            self._screen.say(f"waits for room on the cluster: {reason}")
        if bool(reason) != bool(self.reason):
            self._study.set_user_attr(WAITING, reason)
        self.reason = reason


def find_shortage(workers: Workers) -> str:
    """Why the cluster has no room for a trial, as a clause; '' if it has, or its process is starting.

    Args:
        workers: of the trial.
    """
    groups = ray.util.placement_group_table().values()
    if not any(group["state"] == "PENDING" for group in groups):
        return ""
    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    names = [name for name in ("CPU", "GPU") if name in total or (name == "GPU" and workers.gpus)]
    found = " and ".join(f"{free.get(name, 0):g} of {total.get(name, 0):g} {name}" for name in names)
    return f"it needs {each_uses(workers)}, and {found} are free"
