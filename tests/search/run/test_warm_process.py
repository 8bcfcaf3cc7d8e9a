"""Consecutive trials in one process: none affects the next one, and nothing accumulates."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.run.cluster import ENVIRONMENT

pytestmark = pytest.mark.cluster

PROGRAM = Path(__file__).parent / "warm.py"
MORE_MEGABYTES = 64
"""Of 550 after the fifth trial: what the unlike networks of the later ones leave in the caches of torch's kernels."""

PASSING = 4
"""Threads and files that are seen before they are gone; a fifth of what twenty trials with one each would leave."""


@pytest.fixture(scope="module")
def warm(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Curves of trials by themselves and in a warm process, and the states of that process."""
    command = [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("warm")), str(scenes)]
    environment = {**os.environ, **ENVIRONMENT, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_trial_in_a_reused_process_equals_one_in_a_fresh_process(warm: dict[str, Any]) -> None:
    """Else a configuration would be judged by what happened to run before it."""
    assert len(warm["warm"]) == 21
    assert len({state["process"] for state in warm["states"]}) == 1
    assert warm["warm"] == warm["fresh"]


def test_reused_process_does_not_grow(warm: dict[str, Any]) -> None:
    """A search of thousands of trials runs in it."""
    states = warm["states"]
    megabytes = [state["kilobytes"] / 1024 for state in states]
    assert max(megabytes[10:]) < megabytes[5] + MORE_MEGABYTES
    assert [state["tensors"] for state in states] == [0] * 21


def test_a_trial_leaves_nothing_running_or_open(warm: dict[str, Any]) -> None:
    """Threads would take the next one's cores, and open files are few; Ray's own come and go."""
    first, *others = warm["states"]
    for name in ("files", "threads"):
        assert all(state[name] <= first[name] + PASSING for state in others)
    assert all(state["processes"] == first["processes"] for state in others)


def test_trial_restores_global_settings(warm: dict[str, Any]) -> None:
    """Of torch, of Python's warnings, and of the process; the first trial's imports may add to them."""
    _, first, *others = warm["states"]
    assert all(state["settings"] == first["settings"] for state in others)
