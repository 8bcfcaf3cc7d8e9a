"""The budget that a search has used: GPU hours, and trials without an improvement."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime

import optuna
from optuna.trial import TrialState
from ray.tune.experiment import Trial

from data.errors import InputError
from search.driver import TrialCallback, last_report
from search.spec.sections import BudgetConfig
from search.study.trials import GPU_SECONDS, TrialRecord
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
        self._best = -math.inf
        self._best_of: dict[str, float] = {}
        self._without_gain = 0
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
        for trial in sorted(ended, key=lambda trial: trial.datetime_complete or datetime.max):
            record = TrialRecord.of(trial, objective)
            self._end(record.best_epoch.rank if record.best_epoch else -math.inf, record.outcome)

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
        # A running trial that is the best so far is an improvement already.
        ahead = any(rank > self._best for rank in self._best_of.values())
        if patience is not None and self._without_gain >= patience and not ahead:
            return "patience"
        return ""

    def started(self, trial: Trial) -> None:
        """Note the time from which the trial uses its GPUs."""
        self._started.setdefault(trial.trial_id, self._clock())

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Update the trial's best value of the objective."""
        rank = self._objective.rank(report.metrics)
        self._best_of[trial.trial_id] = max(self._best_of.get(trial.trial_id, -math.inf), rank)

    def completed(self, trial: Trial) -> None:
        """Count a trial that ended, and store the GPU seconds."""
        self._end(self._best_of.pop(trial.trial_id, -math.inf), last_report(trial).outcome)
        self._used += (self._clock() - self._started.pop(trial.trial_id, self._clock())) * self._gpus
        self._study.set_user_attr(GPU_SECONDS, self._used)

    failed = completed

    def ended(self, trials: list[Trial]) -> None:
        """Count the time of interrupted trials, which the next run resumes."""
        self._used = self.gpu_seconds
        self._started.clear()
        self._best_of.clear()

    def _end(self, rank: float, outcome: str) -> None:
        if outcome == CONSTRAINT:
            return  # not trained: neither an improvement nor a failure to improve
        if rank > self._best:
            self._best, self._without_gain = rank, 0
        else:
            self._without_gain += 1
