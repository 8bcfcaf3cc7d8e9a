"""MLflow by Ray's callback: an experiment for the search, a run for each trial.

Ray's callback sends each value by itself, and starts a new run for a trial that is resumed. This one sends an epoch in
one request, and continues the run.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from ray.air.constants import TRAINING_ITERATION
from ray.air.integrations.mlflow import MLflowLoggerCallback

from trainable.config.settings import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.tune.experiment import Trial

    from search.run.trackers.tracker import TrackedTrial

SEARCH = "search"
"""Tag of a run: the ID of its search, since several may have one name."""
MAX_PARAMS = 100
"""Parameters in one request."""
DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # with its own 7, a server that is away is noticed after minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Environment variables of MLflow, unless they are set."""


class MLflowRuns(MLflowLoggerCallback):
    """Records trials as runs of MLflow.

    Args:
        uri: of the tracking server or its database.
        name: of the search, and of MLflow's experiment.
        search_id: of the search.
    """

    def __init__(self, uri: str, name: str, search_id: str) -> None:
        for variable, value in DEFAULTS.items():
            os.environ.setdefault(variable, value)
        super().__init__(tracking_uri=uri, experiment_name=name, tags={SEARCH: search_id})
        self._client = MlflowClient(tracking_uri=uri)
        self._search_id = search_id

    def log_trial_start(self, trial: Trial) -> None:
        """Start the run of a trial with its settings, or continue it."""
        if trial in self._trial_runs:
            return
        if run_id := self._find(trial):
            self._client.update_run(run_id, status="RUNNING")
            self._trial_runs[trial] = run_id
            return
        tracked = cast("TrackedTrial", trial)
        super().log_trial_start(cast("Trial", replace(tracked, config={})))
        params = [Param(key, str(value)) for key, value in flatten(tracked.config).items()]
        for first in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._trial_runs[trial], params=params[first : first + MAX_PARAMS])

    def log_trial_result(self, iteration: int, trial: Trial, result: Mapping[str, Any]) -> None:
        """Log the metrics of an epoch."""
        self.log_trial_start(trial)
        now, epoch = int(time.time() * 1000), int(result[TRAINING_ITERATION])
        numbers = {name: value for name, value in result.items() if isinstance(value, int | float)}
        self._client.log_batch(
            self._trial_runs[trial], metrics=[Metric(name, float(value), now, epoch) for name, value in numbers.items()]
        )
        if result["outcome"]:
            self._client.set_tag(self._trial_runs[trial], "outcome", result["outcome"])

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the run, if it was started."""
        if trial in self._trial_runs:
            super().log_trial_end(trial, failed)
            del self._trial_runs[trial]

    def _find(self, trial: Trial) -> str | None:
        """The run of a trial that was started by an earlier run of the search."""
        found = self._client.search_runs(
            [str(self.mlflow_util.experiment_id)],
            filter_string=f"tags.{SEARCH} = '{self._search_id}' and tags.trial_name = '{trial}'",
            max_results=1,
        )
        return str(found[0].info.run_id) if found else None
