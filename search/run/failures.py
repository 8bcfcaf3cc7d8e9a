"""Why a trial failed: by itself, or through what no trial can help, which is then not counted against it.

A trial fails by itself when it is out of memory, its process is killed on a node that lives (which the kernel does to
free memory), or its code has a bug. It is not its own failure when the data set, the cache or the storage cannot be
used, or when its node died, was taken away, or cannot be reached.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
import ray.exceptions as lost
from ray._private.state import state
from ray.core.generated import common_pb2
from ray.train import WorkerGroupError
from ray.tune.experiment import Trial

from data.errors import EnvironmentFaultError
from search.driver import DriverOnly

MEMORY = re.compile(r"^[\w.]*OutOfMemoryError: ")
"""The line of an error that says so."""
MAX_LOST = 5
"""Nodes that a trial may lose without an epoch between; after that it is taken to be what kills them."""
KNOWN_SECONDS = 2.0
"""After which a cluster that knows nothing of an actor's death is asked no more."""
LOST = (
    lost.ActorUnavailableError,
    lost.NodeDiedError,
    lost.LocalRayletDiedError,
    lost.ObjectLostError,
    lost.OutOfDiskError,
    lost.RuntimeEnvSetupError,
)
"""Errors of Ray that come of a node or of the network, never of what runs there."""


class Failures(DriverOnly):
    """Judges the failures of trials as they come, once each.

    Args:
        pause: called with a fault of the environment; it has to end the run.
    """

    def __init__(self, pause: Callable[[EnvironmentFaultError], None]) -> None:
        self._pause = pause
        self._lost: Counter[str] = Counter()

    def is_own(self, trial: Trial, *, ended: bool = False) -> bool:
        """Whether a trial failed by itself. If not, it has one more attempt, or the run is paused.

        Args:
            trial: Tune's.
            ended: whether Tune will not try it again.
        """
        error = last_error(trial)
        fault = find_fault(error)
        if fault is None and self._lost[trial.trial_id] < MAX_LOST and is_lost(error):
            self._lost[trial.trial_id] += 1
            trial.max_failures += 1
            if not ended:
                return False
            fault = EnvironmentFaultError("A node of the cluster died or cannot be reached; bring it back.")
        if fault is not None:
            self._pause(fault)
        return fault is None

    def reported(self, trial: Trial) -> None:
        """Note that a trial came to the end of an epoch."""
        self._lost.pop(trial.trial_id, None)


def find_fault(error: BaseException | None) -> EnvironmentFaultError | None:
    """The fault of the environment behind an error; None if there is none."""
    return next((found for found in _causes(error) if isinstance(found, EnvironmentFaultError)), None)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error comes of a node that died or cannot be reached."""
    return any(_is_lost(found) for found in _causes(error))


def last_error(trial: Trial) -> BaseException | None:
    """What a trial failed with last; None if that is not known."""
    path = Path(trial.error_file or "error").with_suffix(".pkl")
    with contextlib.suppress(Exception):  # an error may be none that can be read again
        error = pickle.loads(path.read_bytes())  # noqa: S301  Tune wrote it a moment ago, in this process
        return error if isinstance(error, BaseException) else None
    return None


def reason_of(trial: Trial) -> str:
    """What a trial's last error comes to, in a line.

    The workers of a group fail one after the other: what says most is not always what stands last.
    """
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = [
            line.strip()
            for line in Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace").splitlines()
            if line.strip()
        ]
    starts = [number for number, line in enumerate(lines) if line.startswith("Failure #")]
    lines = lines[starts[-1] + 1 :] if starts else lines
    for line in lines:
        if MEMORY.search(line):
            return line
    for line in lines:
        if died := line.partition("Worker exit detail: ")[2]:
            return f"its process died: {died.partition(' Some common causes')[0]}"
    return lines[-1] if lines else "its process ended"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it carries: the task's, the workers' of a group, the one that it was raised from."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, lost.RayTaskError):  # of its cause's class too, but its message is a traceback
            waiting.append(found.cause)
            continue
        yield found
        if isinstance(found, WorkerGroupError):
            waiting += found.worker_failures.values()


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, LOST):
        return True
    if not isinstance(error, lost.ActorDiedError):
        return False
    return error.preempted or (error.actor_id is not None and _node_died(error.actor_id))


def _node_died(actor_id: str) -> bool:
    """Whether an actor died with its node: its error says it in words alone, the cluster's tables in codes.

    They may know it a moment later than the error comes.
    """
    died: Any = common_pb2.ActorDiedErrorContext  # type: ignore[attr-defined]
    end = time.monotonic() + KNOWN_SECONDS
    while ray.is_initialized():
        known = state.actor_table(actor_id)
        cause = known["DeathCause"].actor_died_error_context.reason if "DeathCause" in known else died.UNSPECIFIED
        node = known["Address"]["NodeID"] if "Address" in known else ""
        if cause == died.NODE_DIED or any(each["NodeID"] == node and not each["Alive"] for each in ray.nodes()):  # type: ignore[no-untyped-call]
            return True
        if cause != died.UNSPECIFIED or time.monotonic() > end:
            return False
        time.sleep(0.1)
    return False
