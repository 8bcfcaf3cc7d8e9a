"""How a search appears on the Ray dashboard: the names of its trials' actors, and the metadata of its job."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray._private import ray_constants
from ray._raylet import setproctitle  # type: ignore[attr-defined]
from ray.dashboard.modules.job.common import JobInfoStorageClient
from ray.tune.experiment import Trial
from ray.tune.trainable.function_trainable import wrap_function

from search.commands import JOB_VARIABLE
from search.driver import TrialCallback
from search.results.tally import Tally
from trainable.job import TrialRequest, trial_title
from trainable.metrics.objective import SCORE
from trainable.report import TrialReport


def named_trainable(function: Callable[[dict[str, Any]], None], search: str, *, is_warm: bool) -> type[Any]:
    """The actor class of a Tune function, named after the search and the trial that it runs.

    The title of its process always names the present trial. Ray reads `repr` once, when the actor starts: that of a
    warm actor, which runs many trials, names the first of them, such as 'twinhead: first trial 12+'.

    Args:
        function: with its resources, as `ray.tune.with_resources` returns it.
        search: name of the search.
        is_warm: whether an actor runs many trials.
    """
    function_class: Any = wrap_function(function)

    class NamedTrial(function_class):  # type: ignore[misc]
        def setup(self, config: dict[str, Any], **parameters: Any) -> None:
            super().setup(config, **parameters)
            _set_title(self, search, config)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            is_reset = bool(super().reset_config(new_config))
            _set_title(self, search, new_config)
            return is_reset

        def step(self) -> dict[str, Any]:
            # Ray sets the title of a call before it, and that of the class after it; a call lasts an epoch.
            setproctitle(f"ray::{type(self).__name__}")
            result: dict[str, Any] = super().step()
            return result

        def __repr__(self) -> str:
            return f"{type(self).__name__}{'+' if is_warm else ''}"

    NamedTrial.__name__ = NamedTrial.__qualname__ = "twinhead"
    return NamedTrial


def update_job(submission_id: str, changes: Mapping[str, str]) -> None:
    """Change the metadata of a running job on the dashboard.

    Only the job's own driver may call it: Ray writes the same record when the driver has ended, and no earlier.
    """
    client = ray._private.worker.global_worker.gcs_client  # type: ignore[attr-defined]
    key = JobInfoStorageClient.JOB_DATA_KEY.format(job_id=submission_id).encode()
    namespace = ray_constants.KV_NAMESPACE_JOB
    record = client.internal_kv_get(key, namespace, timeout=5)
    if record is None:
        return
    values = json.loads(record)
    values["metadata"] = (values["metadata"] or {}) | dict(changes)
    client.internal_kv_put(key, json.dumps(values).encode(), True, namespace, timeout=5)


class JobNote(TrialCallback):
    """Keeps the best trial and the number of ended trials in the metadata of the job, for the Ray dashboard.

    Args:
        tally: of the search; a callback before this one updates it.
    """

    def __init__(self, tally: Tally) -> None:
        self._job = os.environ.get(JOB_VARIABLE, "")
        self._tally = tally
        self._noted: dict[str, str] = {}

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Note a better score."""
        self._update()

    def completed(self, trial: Trial) -> None:
        """Note the number of trials."""
        self._update()

    failed = completed

    def _update(self) -> None:
        if not self._job:
            return
        best = self._tally.best
        objective = self._tally.plan.objective
        named = "" if objective == SCORE else f"{objective.name} "
        value = "none yet" if best is None else f"{named}{best.value:.4f}, trial {best.trial}"
        found = {"best": value, "trials": f"{self._tally.ended} of {self._tally.plan.trials}"}
        if found == self._noted:
            return
        self._noted = found
        with contextlib.suppress(Exception):  # the dashboard's record is a convenience; the study has the results
            update_job(self._job, found)


def _set_title(actor: object, search: str, config: Mapping[str, Any]) -> None:
    """Name the actor's class, from which Ray makes the title of the process at each call."""
    type(actor).__name__ = trial_title(search, TrialRequest.from_plain(config).number)
