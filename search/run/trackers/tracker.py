"""Passes what trials report to a callback of Ray's, such as that of MLflow, in a thread.

Such a callback waits for its server and may fail. Here it neither delays nor ends the search: a failure is said once,
and what is missed then is lost there. The study has everything.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ray.air.constants import TRAINING_ITERATION
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from search.driver import TrialCallback
from search.run.failures import find_fault, last_error
from search.terminal import Screen
from trainable.report import TrialReport

RETRY_SECONDS = 60.0
"""Time after a failure until the callback is called again."""
FLUSH_SECONDS = 60.0
"""Longest time at the end of a run for what is not sent yet."""
MAX_REASON = 200
"""Characters of an error that are shown."""

_Action = Callable[[LoggerCallback], None]


@dataclass(frozen=True)
class TrackedTrial:
    """A trial as Ray's callbacks read it, in place of Tune's own, which changes when a search is resumed."""

    trial_id: str
    """The same in all runs of the search, and in no other search."""
    name: str = field(compare=False)
    config: Mapping[str, Any] = field(compare=False)
    """Values of its `TrialConfig`."""
    experiment_dir_name: str = field(compare=False)
    """Name of the search."""
    local_path: str = field(compare=False)
    """A directory that exists on this machine."""

    def __str__(self) -> str:
        return self.name


class Tracker(TrialCallback):
    """Calls a callback of Ray's in a thread.

    Args:
        name: of the tool.
        make: makes the callback, in the thread.
        tracked: describes a trial.
        screen: shows failures.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], LoggerCallback],
        tracked: Callable[[Trial], TrackedTrial],
        screen: Screen,
    ) -> None:
        self._name, self._make, self._tracked, self._screen = name, make, tracked, screen
        self._callback: LoggerCallback | None = None
        self._open: dict[str, TrackedTrial] = {}
        self._waiting: queue.Queue[_Action] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._failed: float | None = None
        """Time of the last failure; None if the last call succeeded."""
        self._is_given_up = False

    def started(self, trial: Trial) -> None:
        """Start its run, or continue it."""
        tracked = self._open.setdefault(trial.trial_id, self._tracked(trial))
        self._add(lambda callback: callback.log_trial_start(_as_tunes(tracked)))

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Log the metrics of an epoch."""
        tracked = self._open.setdefault(trial.trial_id, self._tracked(trial))
        result = {**report.metrics, TRAINING_ITERATION: report.epoch, "outcome": report.outcome}
        self._add(lambda callback: callback.log_trial_result(0, _as_tunes(tracked), dict(result)))

    def completed(self, trial: Trial) -> None:
        """End its run."""
        self._end(trial, is_failure=False)

    def failed(self, trial: Trial) -> None:
        """End its run, as failed if the failure is its own; otherwise it is resumed later."""
        self._end(trial, is_failure=find_fault(last_error(trial)) is None)

    def ended(self, trials: list[Trial]) -> None:
        """End the runs of interrupted trials, and wait until everything is sent."""
        while self._open:
            self._end_run(self._open.popitem()[1])
        self._add(lambda callback: callback.on_experiment_end([]))
        give_up = time.monotonic() + FLUSH_SECONDS
        with self._waiting.all_tasks_done:
            while self._waiting.unfinished_tasks and (left := give_up - time.monotonic()) > 0:
                self._waiting.all_tasks_done.wait(left)
            self._is_given_up = bool(self._waiting.unfinished_tasks)
        if self._is_given_up:
            self._screen.say(f"warning: {self._name} has not received everything after {FLUSH_SECONDS:.0f} s")

    def _end(self, trial: Trial, *, is_failure: bool) -> None:
        tracked = self._open.pop(trial.trial_id, None)
        if tracked is not None:
            self._end_run(tracked, is_failure=is_failure)

    def _end_run(self, tracked: TrackedTrial, *, is_failure: bool = False) -> None:
        self._add(lambda callback: callback.log_trial_end(_as_tunes(tracked), failed=is_failure))

    def _add(self, action: _Action) -> None:
        self._is_given_up = False
        self._waiting.put(action)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"tracker of {self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            action = self._waiting.get()
            try:
                if not self._is_given_up and not self._is_pausing():
                    self._call(action)
            finally:
                self._waiting.task_done()

    def _is_pausing(self) -> bool:
        return self._failed is not None and time.monotonic() - self._failed < RETRY_SECONDS

    def _call(self, action: _Action) -> None:
        try:
            if self._callback is None:
                callback = self._make()
                callback.setup()
                self._callback = callback
            action(self._callback)
        except Exception as error:  # noqa: BLE001 - of another project, which may raise anything
            if self._failed is None:
                self._screen.say(
                    f"warning: {self._name} does not record the trials ({_reason(error)}); the search goes on, and "
                    f"{self._name} is tried again every {RETRY_SECONDS:.0f} s"
                )
            self._failed = time.monotonic()
        else:
            if self._failed is not None:
                self._screen.say(f"{self._name} records the trials again")
            self._failed = None


def _as_tunes(tracked: TrackedTrial) -> Trial:
    return cast("Trial", tracked)


def _reason(error: BaseException) -> str:
    """What the operating system said, such as 'Connection refused'; else the first line of the error, shortened."""
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}…"
