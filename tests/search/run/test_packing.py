"""Where trials run: as many concurrently as fit on a GPU, and in each process that was started for one."""

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

PROGRAM = Path(__file__).parent / "packing.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ran where."""
    command = [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("packing"))]
    environment = {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_concurrent_trials_share_the_gpu(found: dict[str, Any]) -> None:
    """Small trials on a large GPU: those that ask for a quarter of it run four at a time, and never five."""
    concurrent = found["concurrent"]
    assert {name: most for name, (most, _) in concurrent.items()} == {
        "a quarter of a GPU": 4,
        "two CPUs": 3,
    }
    assert {name: set(gpus) for name, (_, gpus) in concurrent.items()} == {
        "a quarter of a GPU": {1},
        "two CPUs": {0},
    }


def test_process_that_starts_slowly_gets_trials(found: dict[str, Any]) -> None:
    """Also if others end trials while it starts, whose processes could take the one that waits for it."""
    fewest, most = found["by_process"]
    assert fewest >= 4
    assert fewest + most == 32
