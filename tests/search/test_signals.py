"""Signals that end a command, sent to real processes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

COMMAND = """
import os, signal, sys, time
from search.signals import end_like_ctrl_c
if "ignored" in sys.argv: signal.signal(signal.SIGINT, signal.SIG_IGN)
# Whatever the tests themselves run under.
signal.signal(signal.SIGHUP, signal.SIG_IGN if "nohup" in sys.argv else signal.SIG_DFL)
end_like_ctrl_c()
if "forked" in sys.argv:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b"ready")
        time.sleep(60)
    else:
        os.read(reading, 5)
        os.kill(child, signal.SIGTERM)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 128)
try:
    print("ready", flush=True)
    for _ in range(2 if "nohup" in sys.argv else 600):  # a signal just before a sleep would wait for its end
        time.sleep(0.1)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize(
    ("how", "number", "code"),
    [
        ("plain", signal.SIGTERM, 130),
        ("plain", signal.SIGHUP, 130),
        ("ignored", signal.SIGTERM, 130),
        ("nohup", signal.SIGHUP, 0),
    ],
)
def test_a_signal_ends_a_command_like_ctrl_c(how: str, number: signal.Signals, code: int) -> None:
    """Of a service manager and of a lost terminal; `nohup` protects from the latter."""
    with subprocess.Popen([sys.executable, "-c", COMMAND, how], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        process.send_signal(number)

        assert process.wait(timeout=60) == code


LOST = """
import signal, sys, time
from search.signals import end_like_ctrl_c
signal.signal(signal.SIGHUP, signal.SIG_DFL)
end_like_ctrl_c()
try:
    print("ready", flush=True)
    for _ in range(600):
        time.sleep(0.1)
except KeyboardInterrupt:
    print("stored", flush=True)
    print("continue with ...", file=sys.stderr, flush=True)
    sys.exit(130)
"""


def test_a_command_that_loses_its_terminal_ends_well() -> None:
    """What it says at the end has no reader, and must not be an error."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", LOST], stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as process:
        os.close(its)
        said = b""
        while not said.endswith(b"\n"):  # the end of a line may be written by itself
            said += os.read(ours, 100)
        os.close(ours)
        process.send_signal(signal.SIGHUP)  # as the system does for a session's terminal

        assert process.wait(timeout=60) == 130


def test_a_forked_process_ends_at_once() -> None:
    """Pools end their workers with SIGTERM."""
    done = subprocess.run([sys.executable, "-c", COMMAND, "forked"], timeout=60, check=False)

    assert done.returncode == 128 - signal.SIGTERM
