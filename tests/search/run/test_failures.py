"""Failures of a trial itself, and failures of its environment."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ray.exceptions as lost
import torch
from ray import cloudpickle
from ray.train import WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.tune.experiment import Trial

from data.errors import EnvironmentFaultError, InputError, NodeDrainedError
from search.run.failures import MAX_LOST, Failures, find_fault, is_drained, is_lost, last_error
from trainable.report import TrialReport

FAULT = EnvironmentFaultError("The data set 'x' does not exist; give the directory of a data set.")
GONE = lost.ActorUnavailableError("RPC error: Socket closed", None)
DRAINED = NodeDrainedError("the node is drained")
HEALTH = WorkerHealthCheckFailedError("A worker failed its health check.", failure=GONE)
PREEMPTED = lost.ActorDiedError()
PREEMPTED._preempted = True


def raised(error: Exception) -> lost.RayTaskError:
    """An error as Ray hands it to the driver."""
    return lost.RayTaskError("train", "Traceback ...", error)


def group(*errors: Exception) -> lost.RayTaskError:
    """What a trial of several workers fails with."""
    return raised(WorkerGroupError("several", dict(enumerate(errors))))


def trial_with(directory: Path, error: BaseException) -> Trial:
    """As much of Tune's trial as is looked at, which failed with `error`."""
    (directory / "error.pkl").write_bytes(cloudpickle.dumps(error))
    return cast("Trial", SimpleNamespace(trial_id="a", error_file=str(directory / "error.txt"), max_failures=2))


@pytest.mark.parametrize(
    "error", [FAULT, raised(FAULT), raised(FAULT).as_instanceof_cause(), group(RuntimeError("closed by peer"), FAULT)]
)
def test_environment_fault_is_found_in_any_error_chain(error: Exception) -> None:
    """In a process of its own, or in one worker of a group whose others fail for it."""
    found = find_fault(cloudpickle.loads(cloudpickle.dumps(error)))  # as Tune keeps it

    assert found is not None
    assert found.reason == "The data set 'x' does not exist"
    assert not is_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        *(GONE, PREEMPTED, lost.ObjectLostError("ab", None, ""), raised(GONE), group(GONE)),
        *(group(HEALTH), raised(DRAINED), group(RuntimeError("closed by peer"), DRAINED)),
    ],
)
def test_lost_node_is_not_a_failure_of_the_trial(error: Exception) -> None:
    """It died, was taken away, is drained, or cannot be reached."""
    assert is_lost(cloudpickle.loads(cloudpickle.dumps(error)))
    assert find_fault(error) is None


@pytest.mark.parametrize(("error", "expected"), [(raised(DRAINED), True), (group(DRAINED), True), (GONE, False)])
def test_drained_node_differs_from_a_dead_one(error: Exception, expected: bool) -> None:
    """The user reads why a trial moves."""
    assert is_drained(error) == expected


@pytest.mark.parametrize(
    "error",
    [
        raised(torch.OutOfMemoryError("CUDA out of memory")),
        lost.OutOfMemoryError("the node ran out of memory"),
        raised(ValueError("a bug")),
        raised(InputError("The state 'x' cannot be read; start the trial anew.")),
        raised(OSError("raised by a loss")),
        lost.ActorDiedError(),
        group(RuntimeError("closed by peer"), torch.OutOfMemoryError("CUDA out of memory")),
        None,
    ],
)
def test_other_errors_are_failures_of_the_trial(tmp_path: Path, error: Exception | None) -> None:
    """Out of memory, killed on a node that lives, or with a bug: it has the retries that it has, and no more."""
    paused: list[EnvironmentFaultError] = []
    trial = trial_with(tmp_path, cast("Any", error))

    assert Failures(paused.append).is_own(trial)
    assert (paused, trial.max_failures) == ([], 2)


def test_a_trial_without_a_file_of_errors_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of this name in the working directory may be from anyone: unpickling it runs their code."""
    trial = trial_with(tmp_path, FAULT)
    assert last_error(trial) is not None
    monkeypatch.chdir(tmp_path)
    trial.error_file = None  # type: ignore[misc, assignment]

    assert last_error(trial) is None


@pytest.mark.parametrize("ended", [False, True])
def test_environment_fault_pauses_the_run(tmp_path: Path, ended: bool) -> None:
    """Whether the trial had retries left or not: none of them is spent."""
    paused: list[EnvironmentFaultError] = []

    assert not Failures(paused.append).is_own(trial_with(tmp_path, raised(FAULT)), ended=ended)
    assert [str(fault) for fault in paused] == [str(FAULT)]


def test_a_lost_node_costs_no_retry(tmp_path: Path) -> None:
    """But a trial that loses one node after the other without an epoch is what kills them."""
    paused: list[EnvironmentFaultError] = []
    failures, trial = Failures(paused.append), trial_with(tmp_path, GONE)
    judged = [failures.is_own(trial) for _ in range(MAX_LOST + 1)]
    allowed = trial.max_failures
    failures.reported(trial, TrialReport(epoch=1, metrics={}))

    assert judged == [False] * MAX_LOST + [True]
    assert allowed == 2 + MAX_LOST
    assert not failures.is_own(trial)
    assert paused == []


def test_node_lost_after_the_last_retry_pauses_the_run(tmp_path: Path) -> None:
    """Tune would count the trial as failed."""
    paused: list[EnvironmentFaultError] = []

    assert not Failures(paused.append).is_own(trial_with(tmp_path, GONE), ended=True)
    assert [fault.reason for fault in paused] == ["A node of the cluster died or cannot be reached"]
