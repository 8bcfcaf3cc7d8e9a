"""Trials that crash: they are resumed from their checkpoints, at most twice, and the search continues."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.commands import JOB_VARIABLE
from search.run.cluster import ENVIRONMENT

pytestmark = pytest.mark.cluster

PROGRAM = Path(__file__).parent / "trouble.py"
FINE, KILLED, LEFT, MEMORY = "none", "killed:9", "left:1", "memory:9"
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def troubled(storage: Path, data: Path, workers: int, *troubles: str, **variables: str) -> dict[str, Any]:
    """What a search has of trials with these troubles, by their names."""
    command = [sys.executable, str(PROGRAM), str(storage), str(data), str(workers), *troubles]
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def found(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A search with trials of a single worker in every trouble."""
    return troubled(tmp_path_factory.mktemp("troubled"), scenes, 1, KILLED, LEFT, MEMORY, FINE)


def test_crashed_trial_resumes_from_its_checkpoint(found: dict[str, Any]) -> None:
    """Its first epoch is not trained again."""
    trial = found["trials"][LEFT]
    assert (trial["state"], trial["outcome"], trial["retries"]) == ("COMPLETE", "trained", 1)
    assert trial["begun"] == [1, 2, 2, 3]
    assert trial["epochs"] == [1, 2, 3]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(KILLED, "its process died: Worker unexpectedly exits"), (MEMORY, OUT_OF_MEMORY)],
)
def test_trial_fails_after_repeated_crashes(found: dict[str, Any], trouble: str, reason: str) -> None:
    """After two more attempts, and with a reason that helps."""
    trial = found["trials"][trouble]
    assert (trial["state"], trial["outcome"], trial["retries"]) == ("FAIL", "failed", 2)
    assert trial["begun"] == [1, 2, 2, 2]
    assert trial["reason"].startswith(reason)


def test_crashes_do_not_end_the_search(found: dict[str, Any]) -> None:
    """The last trial was started after the others' crashes, and every one of them is counted."""
    nothing = {"stopped": 0, "diverged": 0, "constraint": 0, "interrupted": 0}
    assert found["trials"][FINE]["begun"] == [1, 2, 3]
    assert found["outcomes"] == {"finished": 2, "failed": 2, **nothing}


def test_trial_of_a_dead_node_resumes_elsewhere(scenes: Path, tmp_path: Path) -> None:
    """From its checkpoint, and without a retry spent: it can do nothing for it."""
    open_cluster = {"RAY_AUTH_MODE": "disabled", JOB_VARIABLE: "insecure"}
    found = troubled(tmp_path, scenes, 1, "node:1", FINE, **open_cluster)
    trial = found["trials"]["node:1"]
    assert (trial["state"], trial["outcome"], trial["retries"]) == ("COMPLETE", "trained", 0)
    assert trial["begun"] == [1, 2, 2, 3]
    assert trial["epochs"] == [1, 2, 3]
    assert found["outcomes"]["finished"] == 2


def test_worker_group_out_of_memory_is_reported(scenes: Path, tmp_path: Path) -> None:
    """Although several processes fail with it, each with an error of its own."""
    [trial] = troubled(tmp_path, scenes, 2, MEMORY)["trials"].values()
    assert (trial["state"], trial["outcome"], trial["reason"]) == ("FAIL", "failed", OUT_OF_MEMORY)
    assert trial["begun"] == [1, 2]
