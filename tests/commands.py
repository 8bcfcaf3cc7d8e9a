"""Commands in separate processes, as users run them, and functions that watch and end them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import TrialRecord, trial_records

SMALL = ("--set", "data.image_size=32", "--set", "model.family=debug", "--set", "model.width={choices: [2, 4]}")
LONG = (
    *SMALL,
    "--set",
    "scheduler.max_epochs=40",
    "--set",
    "scheduler.grace_epochs=40",
    "--set",
    "retrain.enabled=false",
)
"""Trials that take several seconds, so that they can be interrupted."""

CLUSTER = """
import os, sys
from search.run.cluster import cluster, prepare_environment

prepare_environment()
with cluster():
    print(os.environ["RAY_ADDRESS"], flush=True)
    sys.stdin.read()
"""
"""Runs a Ray cluster until standard input is closed: by the tests, or by the system when their process dies."""

GIVE_UP = 900
"""Seconds after which a command has certainly hung: a worker group takes 20 s to start, and more on a busy machine."""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and wait for its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=GIVE_UP, check=False)


def twinhead(*arguments: str) -> str:
    """Standard output of a command that must succeed."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "search.cli.main", *arguments]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A running command in a process group of its own; it and its descendants are killed at the end."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_all(process)
        process.communicate()


def kill_all(process: subprocess.Popen[str]) -> None:
    """End a command and its descendants at once; those of Ray may end with the command."""
    for pid in (process.pid, *descendants(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def running_cluster() -> Iterator[str]:
    """The address of a Ray cluster, which stops at the end, or when this process dies."""
    # A session of its own: Ctrl-C reaches the tests alone, which then stop the cluster.
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = process.stdout.readline().strip()
            assert address, "Ray did not start; its error is on standard error"
            yield address
        finally:
            process.stdin.close()
            process.wait(timeout=60)


def wait_for(process: subprocess.Popen[str], pattern: str) -> None:
    """Read standard error of a command until a line matches."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if re.search(pattern, line):
            return
    pytest.fail(f"the command ended without printing {pattern!r}: {''.join(said)}")


def wait_for_epoch(process: subprocess.Popen[str], experiment: Experiment) -> None:
    """Wait until the study has an epoch of a trial; its checkpoint is written a moment earlier."""
    while not (experiment.study_file.exists() and any(trial.epochs for trial in records(experiment))):
        assert process.poll() is None
        time.sleep(0.1)


def wait_for_file(process: subprocess.Popen[str], directory: Path, pattern: str) -> None:
    """Wait until a file matches the pattern."""
    while not any(directory.glob(pattern)):
        assert process.poll() is None
        time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    """All descendants of the process `pid`."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listed.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def command_of(pid: int) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes().replace(b"\0", b" ").decode() if path.exists() else ""


def records(experiment: Experiment) -> list[TrialRecord]:
    return trial_records(open_study(experiment))
