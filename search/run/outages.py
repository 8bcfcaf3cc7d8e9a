"""A search outlives what it depends on: while the data set, the storage or the cache is away, it waits.

What the wait ends with is never a trial's result: those that ran stay interrupted in the study, and go on from their
checkpoints as after Ctrl-C.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from data.cache.cache import cache_root
from data.dataset.dataset import Dataset
from data.disk import disk_error
from data.errors import EnvironmentFaultError, InputError, UnfinishedError, environment
from search.commands import cited
from search.run.cluster import has_one_node
from search.run.failures import find_fault
from search.run.tuner import InterruptedSearchError, Stopper
from search.study.experiment import Experiment
from search.terminal import Screen, clock
from trainable.job import TrialData

T = TypeVar("T")

FIRST_SECONDS, MAX_SECONDS = 1.0, 60.0
"""Until the first look whether all is back, and at most between two; each wait is twice the one before."""
LIMIT, DEFAULT_LIMIT = "TWINHEAD_OUTAGE_SECONDS", 600.0
"""How long is waited in all. A fault that comes back within that time goes on with the wait before it."""
POLL_SECONDS = 0.2
"""How soon a wait ends after Ctrl-C."""
PROBE = bytes(2**20)
"""What is written to see whether a directory takes files; about a small network's checkpoint."""


class Outages:
    """Does work again when the environment was at fault, once it is back.

    Args:
        experiment: whose work it is.
        data: what it reads.
        screen: says that it waits, and that it goes on.
        stopper: knows of Ctrl-C, and until when the work may last.
        command: goes on with the work later; the experiment's own when left out.
        now: gives seconds.
        sleep: waits for so many seconds.

    Raises:
        InputError: if $TWINHEAD_OUTAGE_SECONDS is no number.
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
        """Waited in all."""

    def outlast(self, work: Callable[[], T]) -> T:
        """What `work` returns, which is called again whenever the environment was at fault, and is back.

        An error that comes while the environment is not whole is taken to come of that.

        Raises:
            UnfinishedError: if it does not come back.
            InterruptedSearchError: after Ctrl-C while it was waited for.
        """
        while True:
            try:
                return work()
            except (InterruptedSearchError, UnfinishedError):
                raise
            except Exception as error:
                fault = find_fault(error) or self.fault()
                if fault is None:
                    raise
            self._wait(fault)

    def fault(self) -> EnvironmentFaultError | None:
        """What is wrong with the environment now, as far as this machine sees it; None if nothing is."""
        try:
            self._check()
        except EnvironmentFaultError as error:
            return error
        return None

    def _check(self) -> None:
        root = self._experiment.root
        if not (self._experiment.spec_file.is_file() or self._experiment.given_file.is_file()):
            raise EnvironmentFaultError(f"The storage '{root}' is gone; bring it back.")
        with environment(f"The storage '{root}'"):
            _probe(root)
        with environment(f"The data set '{self._data.path}'"):
            found = Dataset.open(self._data.path).info.fingerprint
        if found != self._data.fingerprint:
            raise EnvironmentFaultError(
                f"The data set '{self._data.path}' is another one (fingerprint {found[:12]}, and not "
                f"{self._data.fingerprint[:12]}); bring the old one back."
            )
        if has_one_node():
            cache = cache_root()
            with environment(f"The cache '{cache}'"):
                cache.mkdir(parents=True, exist_ok=True)
                _probe(cache)

    def _wait(self, fault: EnvironmentFaultError) -> None:
        """Return when the environment is back."""
        fault = self.fault() or fault  # what this machine sees says most
        started, since = self._now(), datetime.now().astimezone().strftime("%H:%M:%S")
        if started - self._resumed > self._limit:
            self._next, self._waited = FIRST_SECONDS, 0.0
        self._end_if_lasting(fault, since)
        self._screen.say(
            f"{fault.reason}; waiting since {since}, the next look is in {clock(self._next)}, further ones up to "
            f"{clock(MAX_SECONDS)} apart, for {clock(self._limit - self._waited)} at most"
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
            f"all is back after {clock(self._resumed - started)}; interrupted trials go on from their checkpoints"
        )

    def _end_if_lasting(self, fault: EnvironmentFaultError, since: str) -> None:
        cause = fault.__cause__
        if isinstance(cause, OSError) and Path(str(cause.filename)).is_relative_to(self._experiment.root):
            full = disk_error(cause)  # a storage that is full or read-only does not come back by itself
            if full is not None:
                raise full.followed_by(f"go on with {cited(self._command)}")
        if self._waited >= self._limit:
            raise UnfinishedError(
                f"{fault.reason}, since {since}, and {clock(self._limit)} were waited ({LIMIT}); when it is back, "
                f"go on with {cited(self._command)}, which takes up interrupted trials from their checkpoints."
            )

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until Ctrl-C."""
        end = self._now() + seconds
        while (left := end - self._now()) > 0:
            self._sleep(min(left, POLL_SECONDS))
            if self._stopper.interrupted:
                raise InterruptedSearchError
        self._waited += seconds


def outage_limit() -> float:
    """Seconds for which what is lost is waited for: $TWINHEAD_OUTAGE_SECONDS, or ten minutes.

    Raises:
        InputError: if it is no number.
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
    """See that a directory takes a file.

    Raises:
        OSError: if it does not; its `filename` is in the directory.
    """
    path = directory / f".probe-{os.getpid()}"
    try:
        path.write_bytes(PROBE)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
