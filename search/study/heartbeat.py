"""The heartbeat of a search's driver: `heartbeat.json` of an experiment, written every ten seconds.

It says whether a driver runs, where, and how the last one ended. On a remote storage, which has no locks, a fresh one
keeps a second driver away.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from data.atomic import partial_path
from data.dataset.transfer import read_whole, write_whole
from search.commands import JOB_VARIABLE
from search.study.paths import ExperimentPaths
from search.terminal import without_control

BEAT_SECONDS = 10.0
FRESH_SECONDS = 60.0
"""A running driver whose heartbeat is older than this is taken for lost."""

State = Literal["running", "ended", "interrupted", "failed"]
"""How the driver is, or how it ended: with a summary, by Ctrl-C or a stop, or by an error."""


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """The last sign of life of a driver."""

    driver: str
    """ID of the process, in hexadecimal."""
    host: str
    pid: int
    processes: str
    """ID of the PID namespace, without which `pid` has no meaning."""
    job: str
    """Submission ID of the Ray job that the driver runs in; '' outside of a job."""
    started: float
    """Start of the driver, in seconds since the epoch, less the time of earlier runs that is stored nowhere else."""
    written: float
    """Time of this heartbeat, in seconds since the epoch."""
    state: State
    reason: str = ""
    """Why the driver failed, in a sentence; '' otherwise."""
    unstored: float = 0.0
    """Seconds since `started` of a run that ended without storing them, as one that failed before its first trial."""

    @classmethod
    def of_this_process(cls, *, now: Callable[[], float] = time.time) -> Heartbeat:
        """The first heartbeat of a new driver."""
        at = now()
        return cls(
            driver=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=os.getpid(),
            processes=_process_namespace(),
            job=os.environ.get(JOB_VARIABLE) or os.environ.get("RAY_JOB_ID", ""),
            started=at,
            written=at,
            state="running",
        )

    @classmethod
    def read(cls, experiment: ExperimentPaths) -> Heartbeat | None:
        """The heartbeat in the experiment's storage; None if there is none, or it is damaged.

        Raises:
            UnavailableError: if a remote storage cannot be used.
            OSError: if a local file cannot be read.
        """
        try:
            content = read_whole(experiment.location / experiment.heartbeat_file.name)
        except FileNotFoundError:
            return None
        try:
            found = TypeAdapter(cls).validate_json(content)
        except ValidationError:
            return None
        host, job, reason = map(without_control, (found.host, found.job, found.reason))
        return replace(found, host=host, job=job, reason=reason)

    def as_plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def write(self, experiment: ExperimentPaths) -> None:
        """Write the heartbeat to the experiment's storage; a directory that is gone is not created again.

        Raises:
            UnavailableError: if a remote storage cannot be used.
            OSError: if a local file cannot be written.
        """
        text = json.dumps(self.as_plain(), indent=1) + "\n"
        file = experiment.location / experiment.heartbeat_file.name
        if file.local is None:
            write_whole(file, text.encode())
            return
        partial = partial_path(file.local)
        partial.write_text(text, encoding="utf-8")
        partial.replace(file.local)

    def now(self, state: State = "running", reason: str = "", *, now: Callable[[], float] = time.time) -> Heartbeat:
        """The next heartbeat of the same driver."""
        return replace(self, written=now(), state=state, reason=reason)

    def age(self, *, now: Callable[[], float] = time.time) -> float:
        """Seconds since the heartbeat; 0 if the clock of the driver is ahead."""
        return max(0.0, now() - self.written)

    def is_alive(self, *, now: Callable[[], float] = time.time) -> bool:
        """Whether the driver runs: it says so, recently enough, and its process exists if it is one of this machine."""
        return self.state == "running" and self.age(now=now) < FRESH_SECONDS and not self._is_gone()

    def is_lost(self, *, now: Callable[[], float] = time.time) -> bool:
        """Whether the driver ended without saying so, as after `kill -9` or with its machine."""
        return self.state == "running" and not self.is_alive(now=now)

    def seconds(self, *, now: Callable[[], float] = time.time) -> float:
        """Seconds that the driver has not stored, as it does at its end: it runs, was lost, or failed early."""
        if self.state != "running":
            return self.unstored
        return max(0.0, (self.written if self.is_lost(now=now) else now()) - self.started)

    def is_of_same_process(self, other: Heartbeat) -> bool:
        """Whether both are of one process, which ran one driver after the other."""
        return (self.host, self.processes, self.pid) == (other.host, other.processes, other.pid)

    def _is_gone(self) -> bool:
        """Whether the driver ran on this machine and its process no longer exists."""
        if (self.host, self.processes) != (socket.gethostname(), _process_namespace()) or not self.processes:
            return False
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return True
        return status.rpartition(") ")[2].startswith("Z")  # ended, but its parent has not noticed yet


def _process_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:  # not on Linux
        return ""
