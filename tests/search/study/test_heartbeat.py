"""Heartbeats: whoever looks at a search knows whether its driver runs, and how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.study.experiment import Experiment
from search.study.heartbeat import FRESH_SECONDS, Heartbeat


def experiment_in(storage: Path) -> Experiment:
    found = Experiment(storage=storage, name="first")
    found.root.mkdir(parents=True)
    return found


def test_what_is_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command on another machine knows the driver from this file alone."""
    monkeypatch.setenv("TWINHEAD_SUBMISSION", "twinhead-first")
    experiment = experiment_in(tmp_path)
    beat = Heartbeat.of_this_process()
    beat.now("failed", "the disk is full").write(experiment)

    found = Heartbeat.read(experiment)

    assert found is not None
    assert (found.driver, found.pid, found.started) == (beat.driver, os.getpid(), beat.started)
    assert (found.state, found.reason, found.job) == ("failed", "the disk is full", "twinhead-first")
    assert not found.is_alive()
    assert not found.is_lost()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"driver": "x"}', '{"state": "sleeping"}'])
def test_a_damaged_heartbeat_is_none(tmp_path: Path, content: str) -> None:
    """It must not keep anyone from looking at the search, or from resuming it."""
    experiment = experiment_in(tmp_path)
    assert Heartbeat.read(experiment) is None
    experiment.heartbeat_file.write_text(content, encoding="utf-8")

    assert Heartbeat.read(experiment) is None


def test_a_reason_has_no_control_characters(tmp_path: Path) -> None:
    """It is an error of anything that runs in a trial, and `list` and `status` print it on a terminal."""
    experiment = experiment_in(tmp_path)
    Heartbeat.of_this_process().now("failed", "\x1b]0;title\x07\x1b[2Jthe disk\x9b2J is full").write(experiment)
    found = Heartbeat.read(experiment)

    assert found is not None
    assert found.reason == "]0;titlethe disk2J is full"


def test_an_old_heartbeat_is_of_a_lost_driver() -> None:
    """A driver whose machine is gone cannot say so."""
    beat = Heartbeat.of_this_process()

    assert beat.is_alive()
    assert beat.is_alive(now=lambda: beat.written + FRESH_SECONDS - 1)
    assert beat.is_lost(now=lambda: beat.written + FRESH_SECONDS)
    assert beat.age(now=lambda: beat.written - 5) == 0


def test_a_killed_driver_of_this_machine_is_lost_at_once(tmp_path: Path) -> None:
    """Its search can be resumed here without waiting."""
    code = (
        "import sys, time; from pathlib import Path; from search.study.experiment import Experiment;"
        "from search.study.heartbeat import Heartbeat;"
        "Heartbeat.of_this_process().write(Experiment(storage=Path(sys.argv[1]), name='first')); print(flush=True);"
        "time.sleep(600)"
    )
    experiment = experiment_in(tmp_path)
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        driver.stdout.readline()
        beat = Heartbeat.read(experiment)
        assert beat is not None
        assert beat.is_alive()

        driver.kill()
        give_up = time.monotonic() + 60
        while beat.is_alive() and time.monotonic() < give_up:
            time.sleep(0.05)

        assert beat.age() < FRESH_SECONDS
        assert beat.is_lost()
