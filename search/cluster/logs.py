"""The logs of a search: of its driver, from its job or its storage, and of each trial, from its storage."""

from __future__ import annotations

import re
import time
from calendar import timegm
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.dataset.storage import UnavailableError
from data.dataset.transfer import read_whole
from data.errors import InputError
from search.cluster.client import Cluster, Job, UnreachableError
from search.cluster.status import search_status
from search.results.status import LIVE
from search.study.experiment import Experiment
from search.terminal import STAMP, without_control

STILL_RUNNING = 3
"""Exit code of `twinhead logs` while the search runs."""
NOT_FINISHED = 1
STOPPED = 130
POLL_SECONDS = 1.0
_STAMPED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_JOB_MANAGER = re.compile(
    r"^(?:[\d-]+ [\d:,]+\s+INFO job_manager\.py:\d+ -- |Running entrypoint for job ).*\n", re.MULTILINE
)
"""Lines of Ray at the beginning of a job's log."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """A growing text, and whether its writer still runs."""

    read: Callable[[], str]
    """Returns all of it so far.

    Raises:
        UnreachableError: while its cluster does not answer.
        UnavailableError: while its storage does not.
    """
    exit_code: Callable[[], int]
    """Returns `STILL_RUNNING`, or the exit code of the writer; raises as `read`."""


def driver_log(experiment: Experiment, cluster: Cluster | None, job: Job | None) -> Log:
    """The log of a search: of its job while the cluster knows one, and else the one in the storage, of all runs."""
    if cluster is None or job is None:
        return _stored_log(experiment, experiment.driver_log, cluster)
    return Log(read=lambda: cluster.log(job.id), exit_code=lambda: exit_code_of(cluster.job(job.id)))


def trial_log(experiment: Experiment, number: int, cluster: Cluster | None) -> Log:
    """The log of a trial, in the storage.

    Raises:
        InputError: if the trial has none.
    """
    log = _stored_log(experiment, experiment.trial_log(number), cluster)
    if not log.read():
        raise InputError(f"Trial {number} of '{experiment.name}' has no log; 'twinhead trials' lists the trials.")
    return log


def exit_code_of(job: Job) -> int:
    """The exit code of a job's driver; `STILL_RUNNING` while it runs."""
    if job.is_live:
        return STILL_RUNNING
    if job.exit_code is not None:
        return job.exit_code if job.exit_code >= 0 else 128 - job.exit_code  # a signal, as a shell counts it
    return {"succeeded": 0, "stopped": STOPPED}.get(job.state, NOT_FINISHED)


def seconds_of(text: str) -> float:
    """The seconds of a duration such as 30s, 10m, 2h or 1d.

    Raises:
        InputError: if it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise InputError(f"The value of --since is '{text}', but must be a duration such as 30s, 10m, 2h or 1d.")
    return float(found[1]) * _UNITS[found[2]]


def lines_since(text: str, earliest: float) -> str:
    """The lines of a log from a time on; a line without a time belongs to the one before.

    Args:
        text: of the log.
        earliest: seconds since the epoch.
    """
    kept, is_kept = [], False
    for line in text.splitlines(keepends=True):
        if _STAMPED.match(line):
            is_kept = timegm(time.strptime(line[:20], STAMP)) >= earliest
        if is_kept:
            kept.append(line)
    return "".join(kept)


def follow(
    log: Log,
    write: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    earliest: float | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Write a log as it grows until its writer ends; return the writer's exit code.

    If it cannot be read for a time, this is said once, and reading goes on where it ended.

    Args:
        log: the log.
        write: callback for each new text.
        warn: callback for a sentence.
        earliest: the first line's time in the first text, as in `lines_since`.
        pause: waits for a number of seconds.
    """
    shown, is_lost = 0, False
    while True:
        try:
            code = log.exit_code()  # before the text, so that the last lines are in it
            text = clean(log.read())
        except (UnreachableError, UnavailableError) as error:
            if not is_lost:
                warn(f"{error} Trying again; the search goes on.")
            is_lost = True
            pause(POLL_SECONDS)
            continue
        if is_lost:
            warn("The connection is back.")
            is_lost = False
        shown = min(shown, len(text))  # a log that was replaced
        end = text.rfind("\n") + 1 if code == STILL_RUNNING else len(text)
        if end > shown:
            new, shown = text[shown:end], end
            write(new if earliest is None else lines_since(new, earliest))
        if code != STILL_RUNNING:
            return code
        earliest = None  # what comes after the first text is later, also lines without a time
        pause(POLL_SECONDS)


def clean(text: str) -> str:
    """A job's own text, without control characters."""
    return _JOB_MANAGER.sub("", without_control(text))


def _stored_log(experiment: Experiment, path: Path, cluster: Cluster | None) -> Log:
    file = experiment.in_storage(path)

    def read() -> str:
        try:
            return read_whole(file).decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def exit_code() -> int:
        state = search_status(experiment, cluster).state
        if state in LIVE:
            return STILL_RUNNING
        return {"finished": 0, "stopped": STOPPED}.get(state, NOT_FINISHED)

    return Log(read=read, exit_code=exit_code)
