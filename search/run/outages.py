"""Waiting for a data set, storage or cache that is unavailable, instead of failing the search.

Running trials stay interrupted in the study, and resume from their checkpoints as after Ctrl-C.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from data.cache.cache import cache_root
from data.dataset.dataset import Dataset
from data.dataset.storage import Location
from data.dataset.transfer import remove_file, write_whole
from data.disk import disk_error
from data.errors import EnvironmentFaultError, InputError, UnfinishedError, environment
from search.commands import cited
from search.run.cluster import has_one_node
from search.run.failures import find_fault, find_unavailable
from search.run.tuner import Stopper
from search.signals import InterruptedSearchError
from search.study.experiment import Experiment
from search.terminal import Screen, clock
from trainable.job import TrialData

T = TypeVar("T")

FIRST_SECONDS, MAX_SECONDS = 1.0, 60.0
"""Time before the first check and the longest time between two checks; each is twice the one before."""
LIMIT, DEFAULT_LIMIT = "TWINHEAD_OUTAGE_SECONDS", 600.0
"""Environment variable of the time to wait in all, and its default. A fault that returns within that time counts on."""
POLL_SECONDS = 0.2
"""Time until a wait ends after Ctrl-C."""
PROBE = bytes(2**20)
"""Written to check whether a directory can be written to; about the size of a small network's checkpoint."""


class Outages:
    """Repeats work that failed by a fault of the environment, once the fault is gone.

    Args:
        experiment: whose storage is checked.
        data: the data set that is checked.
        screen: shows when a wait begins and ends.
        stopper: of the search; its deadline is postponed by the waits.
        command: resumes the work later; the experiment's own when left out.
        now: returns seconds.
        sleep: waits for a number of seconds.

    Raises:
        InputError: if $TWINHEAD_OUTAGE_SECONDS is not a number.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: TrialData,
        screen: Screen,
        stopper: Stopper,
        *,
        command: str = "",
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._experiment, self._data, self._screen, self._stopper = experiment, data, screen, stopper
        self._command = command or experiment.resume_command
        self._now, self._sleep = now, sleep
        self._limit = outage_limit()
        self._next = FIRST_SECONDS
        self._waited = 0.0
        self._resumed = -math.inf
        self.seconds = 0.0
        """Total time waited."""

    def outlast(self, work: Callable[[], T]) -> T:
        """Call `work` until it returns without a fault of the environment, and return its result.

        Any error is taken for such a fault if the environment is at fault at that time.

        Raises:
            UnfinishedError: if the fault lasts longer than the limit.
            InterruptedSearchError: after Ctrl-C during a wait.
        """
        while True:
            try:
                return work()
            except (InterruptedSearchError, UnfinishedError):
                raise
            except Exception as error:
                fault = find_fault(error) or find_unavailable(error, self._experiment.location) or self.fault()
                if fault is None:
                    raise
            self._wait(fault)

    def fault(self) -> EnvironmentFaultError | None:
        """The present fault of the environment, as seen from this machine; None if there is none."""
        try:
            self._check()
        except EnvironmentFaultError as error:
            return error
        return None

    def _check(self) -> None:
        experiment, root = self._experiment, self._experiment.root
        if not (experiment.spec_file.is_file() or experiment.fixed_file.is_file()):
            raise EnvironmentFaultError(f"The storage '{root}' is gone; restore it.")
        with environment(f"The storage '{root}'"):
            _probe(root)
        if experiment.mirror:
            with environment(f"The storage '{experiment.location}'"):
                _probe_remote(experiment.location)
        with environment(f"The data set '{self._data.path}'"):
            found = Dataset.open(self._data.path).info.fingerprint
        if found != self._data.fingerprint:
            raise EnvironmentFaultError(
                f"The data set '{self._data.path}' is another one (fingerprint {found[:12]}, not "
                f"{self._data.fingerprint[:12]}); restore the previous one."
            )
        if has_one_node():
            cache = cache_root()
            with environment(f"The cache '{cache}'"):
                cache.mkdir(parents=True, exist_ok=True)
                _probe(cache)

    def _wait(self, fault: EnvironmentFaultError) -> None:
        """Return when the fault is gone."""
        fault = self.fault() or fault  # this machine's view is more precise
        started, since = self._now(), datetime.now(UTC).strftime("%H:%M:%SZ")
        if started - self._resumed > self._limit:
            self._next, self._waited = FIRST_SECONDS, 0.0
        self._end_if_lasting(fault, since)
        self._screen.say(
            f"{fault.reason}; waiting since {since}, next check in {clock(self._next)}, later ones up to "
            f"{clock(MAX_SECONDS)} apart, for at most {clock(self._limit - self._waited)}"
        )
        with self._stopper.on_ctrl_c():
            while True:
                self._pause(min(self._next, self._limit - self._waited))
                self._next = min(2 * self._next, MAX_SECONDS)
                found = self.fault()
                if found is None:
                    break
                fault = found
                self._end_if_lasting(fault, since)
        self._resumed = self._now()
        self._stopper.extend(self._resumed - started)
        self.seconds += self._resumed - started
        self._screen.say(
            f"available again after {clock(self._resumed - started)}; interrupted trials resume from their checkpoints"
        )

    def _end_if_lasting(self, fault: EnvironmentFaultError, since: str) -> None:
        cause = fault.__cause__
        if isinstance(cause, OSError) and Path(str(cause.filename)).is_relative_to(self._experiment.root):
            full = disk_error(cause)  # a full or read-only storage does not recover by itself
            if full is not None:
                raise full.followed_by(f"continue with {cited(self._command)}")
        if self._waited >= self._limit:
            raise UnfinishedError(
                f"{fault.reason}, since {since}, for longer than {clock(self._limit)} ({LIMIT}); once it is available "
                f"again, continue with {cited(self._command)}, which resumes interrupted trials from their checkpoints."
            )

    def _pause(self, seconds: float) -> None:
        """Wait, or raise after Ctrl-C."""
        end = self._now() + seconds
        while (left := end - self._now()) > 0:
            self._sleep(min(left, POLL_SECONDS))
            if self._stopper.interrupted:
                raise InterruptedSearchError
        self._waited += seconds


def outage_limit() -> float:
    """Seconds to wait for the environment: $TWINHEAD_OUTAGE_SECONDS, or ten minutes.

    Raises:
        InputError: if it is not a number of at least 0.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(
            f"The value of '{LIMIT}' is '{text}', but must be a number of seconds, at least 0; correct it in the "
            "environment, or leave it out."
        )
    return seconds


def _probe(directory: Path) -> None:
    """Check that a directory can be written to.

    Raises:
        OSError: if it cannot; its `filename` is in the directory.
    """
    path = directory / f".probe-{os.getpid()}"
    try:
        path.write_bytes(PROBE)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _probe_remote(directory: Location) -> None:
    """Check that a remote directory can be written to.

    Raises:
        UnavailableError: if it cannot.
    """
    path = directory / f".probe-{os.getpid()}"
    write_whole(path, PROBE)
    remove_file(path)
