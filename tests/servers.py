"""Servers of other tools, each in a process of its own on the loopback, and their HTTP APIs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

STARTS_WITHIN = 120.0


@contextmanager
def server(command: Sequence[str], probe: str, **environment: str) -> Iterator[str]:
    """The address of a server that a command starts; '{port}' in it is replaced by a free port.

    It and its descendants end with the block, however that ends.

    Args:
        command: starts it.
        probe: a path that answers when it is ready.
        environment: further variables.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [word.replace("{port}", str(port)) for word in command],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            give_up = time.monotonic() + STARTS_WITHIN
            while not _answers(f"{address}/{probe}"):
                assert process.poll() is None, "the server ended by itself"
                assert time.monotonic() < give_up, "the server did not start"
                time.sleep(0.1)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def ask(address: str, values: Any = None, *, method: str | None = None) -> Any:
    """The JSON that an address answers, to `values` as JSON if there are any."""
    content = None if values is None else json.dumps(values).encode()
    request = Request(address, content, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - a loopback
    with urlopen(request, timeout=STARTS_WITHIN) as answer:  # noqa: S310 - a loopback
        text = answer.read()
    return json.loads(text) if text else None


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):  # noqa: S310 - a loopback
            return True
    except (URLError, OSError):
        return False
