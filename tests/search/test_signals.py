"""Signals that end a command, sent to real processes."""

from __future__ import annotations

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
    else:
        os.read(reading, 5)
        os.kill(child, signal.SIGTERM)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) + 128)
try:
    print("ready", flush=True)
    time.sleep(0.2 if "nohup" in sys.argv else 60)
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


def test_a_forked_process_ends_at_once() -> None:
    """Pools end their workers with SIGTERM."""
    done = subprocess.run([sys.executable, "-c", COMMAND, "forked"], timeout=60, check=False)

    assert done.returncode == 128 - signal.SIGTERM
