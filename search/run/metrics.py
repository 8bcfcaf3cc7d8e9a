"""Figures of a running search for Prometheus, exported through Ray from the process of the driver.

Ray adds the prefix `ray_` and, to counters, the suffix `_total`. `docs/grafana.json` shows them.
"""

from __future__ import annotations

from collections.abc import Callable

from ray.tune.experiment import Trial
from ray.util import metrics

from search.driver import TrialCallback, request_of
from search.results.tally import Tally
from search.run.budget import Budget
from search.spec.spec import SearchSpec
from trainable.report import TrialReport


class SearchMetrics(TrialCallback):
    """Exports the figures of a search. All have the tag `search`, and none has one for the trial.

    Args:
        name: of the search.
        spec: of the search.
        tally: of the search; a callback before this one updates it.
        budget: counts the GPU seconds.
        seconds: returns those that `budget.hours` counts, over all runs.
    """

    def __init__(
        self,
        name: str,
        spec: SearchSpec,
        tally: Tally,
        budget: Budget,
        seconds: Callable[[], float],
    ) -> None:
        self._limits = spec.plan.budget
        self._tally, self._budget, self._seconds = tally, budget, seconds
        self._figures = _Figures(name)
        self._last: dict[int | None, TrialReport] = {}
        """The last report of each running trial."""
        self._update()

    def started(self, trial: Trial) -> None:
        """Update the number of running trials."""
        self._update()

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Count the epoch, and update what the running trials do."""
        if "seconds" in report.metrics:  # an epoch that was completed
            self._last[request_of(trial).number] = report
            self._figures.epochs.inc()
            if checkpoint := report.metrics["seconds"] * report.metrics["time_checkpoint"]:
                self._figures.checkpoint_seconds.inc(checkpoint)  # which refuses 0
        self._update()

    def completed(self, trial: Trial) -> None:
        """Update the numbers of trials, without the last report of this one."""
        self._last.pop(request_of(trial).number, None)
        self._update()

    failed = recovered = completed

    def ended(self, trials: list[Trial]) -> None:
        """Update the numbers of trials; none runs any more."""
        self._last.clear()
        self._update()

    def _update(self) -> None:
        """Update the numbers of trials, sums over the last reports of the running ones, and the used budget."""
        figures, last = self._figures, [report.metrics for report in self._last.values()]
        for state, count in self._tally.counts.items():
            figures.trials.set(count, {"state": state})
        if best := self._tally.best:
            figures.best_score.set(best.value)
        seconds = sum(epoch["seconds"] for epoch in last)
        waiting = sum(epoch["seconds"] * epoch["time_data"] for epoch in last)
        figures.data_wait.set(waiting / seconds if seconds else 0.0)
        figures.samples.set(sum(epoch["samples_per_second"] for epoch in last))
        for memory, where in (("host", "host"), ("gpu", "device")):
            peak = max((epoch.get(f"memory_{where}_gb", 0.0) for epoch in last), default=0.0)
            figures.memory.set(peak * 1e9, {"memory": memory})
        shares = {"trials": self._tally.ended / self._limits.trials}
        if self._limits.hours is not None:
            shares["hours"] = self._seconds() / 3600 / self._limits.hours
        if self._limits.gpu_hours is not None:
            shares["gpu_hours"] = self._budget.gpu_seconds / 3600 / self._limits.gpu_hours
        for limit, share in shares.items():
            figures.budget.set(share, {"limit": limit})


class _Figures:
    """The metrics of Ray, with the name of the search as a tag."""

    def __init__(self, search: str) -> None:
        def gauge(name: str, description: str, *tags: str) -> metrics.Gauge:
            made = metrics.Gauge(f"twinhead_{name}", description, ("search", *tags))
            made.set_default_tags({"search": search})
            return made

        def counter(name: str, description: str) -> metrics.Counter:
            made = metrics.Counter(f"twinhead_{name}", description, ("search",))
            made.set_default_tags({"search": search})
            return made

        self.trials = gauge("trials", "Number of trials by state.", "state")
        self.best_score = gauge(
            "best_score", "Best value of the objective of all trials: of the score, in 0..1, by default."
        )
        self.epochs = counter("epochs", "Epochs that trials completed.")
        self.checkpoint_seconds = counter("checkpoint_seconds", "Seconds that trials spent on checkpoints.")
        self.samples = gauge("samples_per_second", "Training samples per second of all running trials.")
        self.data_wait = gauge("data_wait", "Share of the trials' time in which they wait for data, in 0..1.")
        self.memory = gauge(
            "memory_bytes", "Largest peak memory of a running trial, of its process and on its GPU.", "memory"
        )
        self.budget = gauge("budget_used", "Used share of each limit of the budget; 1 ends the search.", "limit")
