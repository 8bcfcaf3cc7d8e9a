"""The driver's side of an experiment: its lock, its heartbeat, and the publication of its files.

with running(experiment, say):
...         # the files of a remote storage are read first, and what changes here is published
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from data.dataset.storage import UnavailableError
from data.dataset.transfer import listing
from data.errors import InputError, UnfinishedError
from search.commands import cited
from search.signals import InterruptedSearchError
from search.study.experiment import Experiment
from search.study.heartbeat import BEAT_SECONDS, FRESH_SECONDS, Heartbeat, State

Say = Callable[[str], None]

POLL_SECONDS = 2.0
"""Time between two looks for changes."""
CURVES_SECONDS = 60.0
"""Time between two publications of TensorBoard's files."""
MAX_PAUSE_SECONDS = 30.0
"""Longest pause between two attempts to reach a storage that refuses requests."""
CLAIM_SECONDS = 1.0
"""Time after which a new driver reads its heartbeat back, in case that another one started at the same time."""
CHANGE_SECONDS = 2.5 * BEAT_SECONDS
"""Time in which the heartbeat of a driver that runs on another machine changes."""
FLUSH_SECONDS = 60.0
"""Time for which a storage that refuses requests is waited for at the end."""


@dataclass
class RunTime:
    """The time of a run that its study does not have yet."""

    lost: float
    """Seconds of earlier runs that are stored nowhere, because their drivers were lost or failed early."""
    is_stored: bool = False
    """Whether the study has the seconds of this run and of the lost ones."""


@contextmanager
def running(experiment: Experiment, say: Say) -> Iterator[RunTime]:
    """Run an experiment within the context: hold its lock, write its heartbeat, publish its files.

    Args:
        experiment: exists in its storage.
        say: callback for messages about the storage.

    Yields:
        What is to be stored of its time. Until it is, the heartbeat has it, for the next run.

    Raises:
        InputError: if another driver runs it, or a remote storage cannot be used.
    """
    with experiment.lock():
        beat, last = Heartbeat.of_this_process(), Heartbeat.read(experiment)
        # The lock is held, so that the last driver is gone, however fresh its heartbeat is.
        run_time = RunTime(lost=last.seconds(now=lambda: math.inf) if last is not None else 0.0)
        beat = replace(beat, started=beat.started - run_time.lost)
        if experiment.mirror:
            _claim(experiment, beat, last, say)
            experiment.mirror.refresh(as_driver=True)
        publisher = _Publisher(experiment, beat, say)
        publisher.start()
        state: State = "ended"
        reason = ""
        try:
            yield run_time
        except (InterruptedSearchError, KeyboardInterrupt):
            state = "interrupted"
            raise
        except BaseException as error:
            state, reason = "failed", str(error).strip().rpartition("\n")[2]
            raise
        finally:
            publisher.stop(state, reason, is_stored=run_time.is_stored or state == "ended")


def _claim(experiment: Experiment, beat: Heartbeat, other: Heartbeat | None, say: Say) -> None:
    """Write the first heartbeat, unless the driver of `other` runs: a remote storage has no locks."""
    is_ahead = other is not None and other.written > time.time() + BEAT_SECONDS
    if not is_ahead:
        _refuse_second(experiment, beat, other)
    if other is not None and other.state == "running" and (is_ahead or other.host != beat.host):
        # It looks lost by the clock of this machine, or alive for as long as its clock is ahead; one that changes is of
        # a driver that runs.
        say(f"waiting {CHANGE_SECONDS:.0f} s to see whether the driver on '{other.host}' still runs")
        time.sleep(CHANGE_SECONDS)
        found = Heartbeat.read(experiment)
        if found is not None and found != other:
            _refuse_second(experiment, beat, replace(found, written=time.time()))
    beat.write(experiment)
    time.sleep(CLAIM_SECONDS)
    found = Heartbeat.read(experiment)
    if found is not None and found.driver != beat.driver:
        _refuse_second(experiment, beat, found)


def _refuse_second(experiment: Experiment, beat: Heartbeat, other: Heartbeat | None) -> None:
    if other is not None and other.is_alive() and not other.is_of_same_process(beat):
        job = f", job {other.job}" if other.job else ""
        raise InputError(
            f"The search '{experiment.name}' in '{experiment.storage}' is running on '{other.host}' (process "
            f"{other.pid}{job}, last heard of {other.age():.0f} s ago); stop it there, or, if it was killed, give the "
            f"same command again in {FRESH_SECONDS - other.age():.0f} s."
        )


class _Publisher:
    """Threads that write the heartbeat, and publish the changed files of a remote experiment."""

    def __init__(self, experiment: Experiment, beat: Heartbeat, say: Say) -> None:
        self._experiment, self._beat, self._say = experiment, beat, say
        self._wake = experiment.mirror.changed if experiment.mirror else threading.Event()
        self._ended = threading.Event()
        # The heartbeat has a thread of its own: publication of a large search can take longer than it may be late.
        self._threads = [
            threading.Thread(target=self._run, name="publisher", daemon=True),
            threading.Thread(target=self._run_heartbeat, name="heartbeat", daemon=True),
        ]
        self._curves = -float("inf")
        self._refused_since: float | None = None
        self._is_replaced = False

    def start(self) -> None:
        """Write the first heartbeat, and start the threads."""
        with contextlib.suppress(OSError, InputError, UnfinishedError):
            self._write_heartbeat()
        with contextlib.suppress(OSError, InputError, UnfinishedError):
            self._publish()
        for thread in self._threads:
            thread.start()

    def stop(self, state: State, reason: str, *, is_stored: bool) -> None:
        """Publish everything, write the last heartbeat, and end the threads; never raises.

        Args:
            state: how the run ended.
            reason: why it failed; '' otherwise.
            is_stored: whether its seconds are in the study.
        """
        unstored = 0.0 if is_stored else self._beat.now().seconds()
        self._ended.set()
        self._wake.set()
        for thread in self._threads:
            thread.join()
        self._experiment.checkpoints.settle()
        if self._is_replaced:
            return
        if not self._exists():
            self._remove_heartbeat()
            return
        end, pause = time.monotonic() + FLUSH_SECONDS, 1.0
        while True:
            try:
                if self._experiment.mirror:
                    self._experiment.mirror.publish()
                replace(self._beat.now(state, reason), unstored=unstored).write(self._experiment)
            except (OSError, InputError, UnfinishedError) as error:
                if not isinstance(error, UnavailableError) or time.monotonic() + pause > end:
                    self._say_unpublished(error)
                    return
            else:
                return
            time.sleep(pause)
            pause *= 2

    def _run(self) -> None:
        pause = POLL_SECONDS
        while not self._ended.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._ended.is_set() or not self._exists():
                continue
            started = time.monotonic()
            try:
                self._publish()
            except (OSError, InputError, UnfinishedError) as error:
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
                self._note_refusal(error)
            else:
                # A journal of a large search takes long: no more than half of the time is spent on it.
                pause = max(POLL_SECONDS, time.monotonic() - started)
                self._note_answer()

    def _run_heartbeat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # A storage that refuses requests is named by the publication.
            with contextlib.suppress(OSError, InputError, UnfinishedError):
                if self._exists():
                    self._write_heartbeat()

    def _write_heartbeat(self) -> None:
        if not self._is_replaced and self._holds():
            self._beat.now().write(self._experiment)

    def _publish(self) -> None:
        """Publish what changed."""
        now = time.monotonic()
        if self._experiment.mirror and not self._is_replaced:
            curves = now - self._curves >= CURVES_SECONDS
            self._experiment.mirror.publish(curves=curves)
            self._curves = now if curves else self._curves

    def _holds(self) -> bool:
        """Whether no other driver took the search over, such as while this machine was suspended; else ends it."""
        if not self._experiment.mirror:
            return True
        found = Heartbeat.read(self._experiment)
        if found is not None and found.driver != self._beat.driver and found.is_alive():
            self._is_replaced = True
            self._say(
                f"the search '{self._experiment.name}' was taken over by a driver on '{found.host}' (process "
                f"{found.pid}); this one ends, and publishes nothing more"
            )
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)  # also ends a wait of that thread
        return not self._is_replaced

    def _remove_heartbeat(self) -> None:
        """Remove the heartbeat that was written while the experiment was removed, so that its name is free."""
        with contextlib.suppress(OSError, InputError):
            if listing(self._experiment.location).keys() <= {self._experiment.heartbeat_file.name}:
                self._experiment.remove()

    def _exists(self) -> bool:
        """Whether the experiment was not removed, as one is that fails before its first trial."""
        return self._experiment.spec_file.is_file() or self._experiment.fixed_file.is_file()

    def _note_refusal(self, error: Exception) -> None:
        if self._refused_since is not None:
            return
        self._refused_since = time.monotonic()
        if isinstance(error, UnavailableError):
            self._say(f"{error.reason}; what changes is kept on this machine, and published when the storage answers")
        elif self._experiment.mirror:
            self._say(f"warning: nothing is published: {error}")

    def _note_answer(self) -> None:
        if self._refused_since is not None:
            seconds, self._refused_since = time.monotonic() - self._refused_since, None
            if self._experiment.mirror:
                self._say(f"the storage answers again after {seconds:.0f} s; everything is published")

    def _say_unpublished(self, error: Exception) -> None:
        if self._experiment.mirror:
            self._say(
                f"warning: {str(error).removesuffix('.')}; the last changes are in "
                f"'{self._experiment.mirror.directory}' alone, from where {cited(self._experiment.resume_command)} on "
                "this machine publishes them"
            )
