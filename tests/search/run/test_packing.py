"""Trials that share a GPU: as many run concurrently as fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from search.run.cluster import ENVIRONMENT

pytestmark = pytest.mark.cluster

PROGRAM = Path(__file__).parent / "packing.py"


def test_concurrent_trials_share_the_gpu(tmp_path: Path) -> None:
    """Small trials on a large GPU: those that ask for a quarter of it run four at a time, and never five."""
    command, environment = [sys.executable, str(PROGRAM), str(tmp_path)], {**os.environ, **ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])

    assert {name: most for name, (most, _) in found.items()} == {
        "a quarter of a GPU": 4,
        "a quarter, two at a time": 2,
        "four tenths": 2,
        "two CPUs": 3,
    }
    assert {name: set(gpus) for name, (_, gpus) in found.items()} == {
        "a quarter of a GPU": {1},
        "a quarter, two at a time": {1},
        "four tenths": {1},
        "two CPUs": {0},
    }
