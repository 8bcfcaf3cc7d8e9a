"""Commands that are killed while they write: the next command that writes there removes their leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import started, twinhead, wait_for_file

ROOT = Path(__file__).parents[3]
HAND_OVER = """
import sys, time
from pathlib import Path
from search.results import export as handover

def never(*_):
    print("writing", flush=True)
    time.sleep(600)

handover.model_card = never
handover.export_checkpoint(Path(sys.argv[1]), Path(sys.argv[2]), metrics={}, title="")
"""


def small_set(path: Path) -> None:
    twinhead("render", str(path), "--backgrounds", "1", "--per-background", "1", "--size", "32")


@pytest.mark.slow
def test_leftovers_of_a_killed_render_are_removed(tmp_path: Path) -> None:
    """Its half data set may be gigabytes."""
    with started("render", str(tmp_path / "large"), "--backgrounds", "5000", "--size", "64") as process:
        wait_for_file(process, tmp_path, ".large.partial-*/large")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == [".large.partial"]

    small_set(tmp_path / "small")

    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.slow
def test_leftovers_of_a_killed_export_are_removed(network: Path, tmp_path: Path) -> None:
    """What was there before stays whole until the new one is."""
    before = {path.name: path.read_bytes() for path in network.iterdir()}
    process = subprocess.Popen(
        [sys.executable, "-c", HAND_OVER, str(tmp_path / "raw"), str(network)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list(tmp_path.glob(".best.partial-*"))) == 1
    assert {path.name: path.read_bytes() for path in network.iterdir()} == before

    small_set(tmp_path / "small")

    assert not list(tmp_path.glob(".best.partial-*"))
