"""Weights & Biases by Ray's callback: a group for the search, a run for each trial, also after a resumption.

Ray's callback runs an actor for each trial on this node. It passes the API key to the actors as an environment variable
of their runtime environment, which Ray's dashboard and logs show; here, it is an argument.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.air.integrations.wandb import WandbLoggerCallback, _WandbLoggingActor
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ray.tune.experiment import Trial

UPLOAD_SECONDS = 45
"""Longest time at the end for uploads."""
DEFAULTS = {"WANDB_SILENT": "true", "WANDB_CONSOLE": "off", "WANDB_ERROR_REPORTING": "false"}
"""Environment variables of W&B, unless they are set."""


class WandbLogger(_WandbLoggingActor):
    """The actor of a trial, with environment variables that it is given as an argument."""

    def __init__(self, *args: Any, environment: Mapping[str, str], **kwargs: Any) -> None:
        os.environ.update(environment)
        super().__init__(*args, **kwargs)

    def run(self) -> None:
        """Record the trial, and return when everything is written, since the actor is killed then."""
        super().run()  # type: ignore[no-untyped-call]
        self._wandb.teardown()  # waits for W&B's process, whose last writes `finish` does not wait for


class WandbRuns(WandbLoggerCallback):
    """Records trials as runs of Weights & Biases.

    Args:
        project: PROJECT or ENTITY/PROJECT.
        name: of the search, and of the group.
        directory: has W&B's own files in its directory wandb/, unless $WANDB_DIR is set.
    """

    _logger_actor_cls = WandbLogger

    def __init__(self, project: str, name: str, directory: Path) -> None:
        entity, _, project = project.rpartition("/")
        own = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        super().__init__(
            project=project,
            group=name,
            upload_timeout=UPLOAD_SECONDS,
            entity=entity or None,
            dir=os.environ.get("WANDB_DIR", str(directory)),
            resume="allow",
            environment=DEFAULTS | own,
        )
        self.AUTO_CONFIG_KEYS = ["outcome"]
        self._cut_off: list[str] = []
        """Names of the trials whose actors were killed before they had written everything."""

    def setup(self, *args: Any, **kwargs: Any) -> None:
        """Check the API key, and prepare the class of the actors, which the next report starts anew if they end."""
        super().setup(*args, **kwargs)  # type: ignore[no-untyped-call]
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._remote_logger_class = ray.remote(self._logger_actor_cls).options(  # type: ignore[assignment]
            num_cpus=0, scheduling_strategy=here
        )

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        """Log the metrics of an epoch; raises the error of an actor that ended."""
        future = self._trial_logging_futures.get(trial)
        if future is not None and ray.wait([future], timeout=0)[0]:
            self._cleanup_logging_actor(trial)
        super().log_trial_result(iteration, trial, result)

    def log_trial_end(self, trial: Trial, failed: bool = False) -> None:
        """End the run, if it was started."""
        if trial in self._trial_queues:
            super().log_trial_end(trial, failed)

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Wait for the runs to be complete; raises TimeoutError if some are not, which Ray's callback ignores."""
        super().on_experiment_end(trials, **info)
        if self._cut_off:
            names, self._cut_off = ", ".join(self._cut_off), []
            raise TimeoutError(f"not everything of {names} was recorded within {self._upload_timeout} s")

    def _cleanup_logging_actor(self, trial: Trial) -> None:
        """Forget the actor of a trial; raises its error, which Ray's callback ignores."""
        future = self._trial_logging_futures[trial]
        has_ended = bool(ray.wait([future], timeout=0)[0])
        self._logging_future_to_trial.pop(future, None)
        super()._cleanup_logging_actor(trial)
        if has_ended:
            ray.get(future)
        else:
            self._cut_off.append(str(trial))
