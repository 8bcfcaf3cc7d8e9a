"""The causes of trial failures: a trial's own, which count against its retries, or the environment's, which do not.

Own failures are out of memory, a process killed on a node that is alive (as the kernel does to free memory), and bugs.
Failures of the environment are a data set, cache or storage that cannot be used, and a node that died, was preempted,
is drained or cannot be reached.
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
from ray.tune.experiment import Trial

from data.dataset.storage import Location, unavailable
from data.errors import EnvironmentFaultError, NodeDrainedError, causes
from search.driver import TrialCallback
from trainable.report import TrialReport

OUT_OF_MEMORY = re.compile(r"^[\w.]*OutOfMemoryError: ")
"""The line of an out-of-memory error."""
MAX_LOST = 5
"""Nodes that a trial may lose without completing an epoch; after that, the trial itself is taken for the cause."""
DEATH_CAUSE_SECONDS = 2.0
"""How long to wait until the cluster knows the cause of an actor's death."""
NODE_ERRORS = (
    lost.ActorUnavailableError,
    lost.NodeDiedError,
    lost.LocalRayletDiedError,
    lost.ObjectLostError,
    lost.OutOfDiskError,
    lost.RuntimeEnvSetupError,
    NodeDrainedError,
)
"""Errors that are caused by a node or the network, never by the code that runs there."""


class Failures(TrialCallback):
    """Classifies trial failures, each once: as a callback of a run, or called by another one.

    Args:
        pause: called with a fault of the environment; must end the run.
    """

    def __init__(self, pause: Callable[[EnvironmentFaultError], None]) -> None:
        self._pause = pause
        self._lost: Counter[str] = Counter()

    def is_own(self, trial: Trial, *, ended: bool = False) -> bool:
        """Whether a failure is the trial's own. If not, the trial gets one more attempt, or the run is paused.

        Args:
            trial: Tune's trial.
            ended: whether Tune will not retry it.
        """
        error = last_error(trial)
        fault = find_fault(error)
        if fault is None and self._lost[trial.trial_id] < MAX_LOST and is_lost(error):
            self._lost[trial.trial_id] += 1
            trial.max_failures += 1
            if not ended:
                return False
            fault = EnvironmentFaultError("A node of the cluster died or cannot be reached; restore it.")
        if fault is not None:
            self._pause(fault)
        return fault is None

    def reported(self, trial: Trial, report: TrialReport) -> None:
        """Note that a trial completed an epoch."""
        self._lost.pop(trial.trial_id, None)

    def recovered(self, trial: Trial) -> None:
        """Classify a failure that Tune retries."""
        self.is_own(trial)

    def failed(self, trial: Trial) -> None:
        """Classify the last failure."""
        self.is_own(trial, ended=True)


def find_fault(error: BaseException | None) -> EnvironmentFaultError | None:
    """The fault of the environment that caused an error; None if there is none."""
    return next((found for found in _causes(error) if isinstance(found, EnvironmentFaultError)), None)


def find_unavailable(error: BaseException | None, storage: Location) -> EnvironmentFaultError | None:
    """The refusal of a remote storage that caused an error, also of Ray's own requests; None if there is none."""
    refusals = (unavailable(storage, found) for found in _causes(error) if isinstance(found, OSError))
    return next((refusal for refusal in refusals if refusal is not None), None)


def is_lost(error: BaseException | None) -> bool:
    """Whether an error was caused by a node that died, is drained or cannot be reached."""
    return any(_is_lost(found) for found in _causes(error))


def is_drained(error: BaseException | None) -> bool:
    """Whether a trial ended because its node is drained."""
    return any(isinstance(found, NodeDrainedError) for found in _causes(error))


def last_error(trial: Trial) -> BaseException | None:
    """The last error of a trial; None if it is unknown."""
    if trial.error_file is None:
        return None
    path = Path(trial.error_file).with_suffix(".pkl")
    with contextlib.suppress(Exception):  # some errors cannot be unpickled
        error = pickle.loads(path.read_bytes())  # noqa: S301  Tune wrote it a moment ago, in this process
        return error if isinstance(error, BaseException) else None
    return None


def reason_of(trial: Trial) -> str:
    """A trial's last error in one line.

    Workers of a group fail one after the other, so the last line is not always the most informative one.
    """
    lines = [line.strip() for line in error_text(trial).splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("Failure #")]
    lines = lines[starts[-1] + 1 :] if starts else lines
    for line in lines:
        if OUT_OF_MEMORY.search(line):
            return line
    for line in lines:
        if died := line.partition("Worker exit detail: ")[2]:
            return f"its process died: {died.partition(' Some common causes')[0]}"
    return lines[-1] if lines else "its process ended"


def error_text(trial: Trial) -> str:
    """All errors of a trial with their tracebacks, as Tune wrote them; '' if there are none."""
    with contextlib.suppress(OSError):
        return Path(trial.error_file or "").read_text(encoding="utf-8", errors="replace")
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The causes of an error without Ray's errors of tasks: they have their cause's class too, but a traceback."""
    return (found for found in causes(error) if not isinstance(found, lost.RayTaskError))


def _is_lost(error: BaseException) -> bool:
    if isinstance(error, NODE_ERRORS):
        return True
    if not isinstance(error, lost.ActorDiedError):
        return False
    return error.preempted or (error.actor_id is not None and _node_died(error.actor_id))


def _node_died(actor_id: str) -> bool:
    """Whether an actor died with its node, as the cluster's tables say; the error has it as free text only.

    The tables may be updated a moment after the error arrives.
    """
    died: Any = common_pb2.ActorDiedErrorContext  # type: ignore[attr-defined]
    end = time.monotonic() + DEATH_CAUSE_SECONDS
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
