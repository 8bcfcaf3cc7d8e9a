"""A Prometheus server for tests, which scrapes the nodes of a Ray cluster; the test is skipped where it is missing."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

START_SECONDS = 60
"""After which a server that does not answer has failed to start."""


@dataclass(frozen=True, kw_only=True)
class Prometheus:
    """A running server."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its HTTP API."""
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and present value of each series of an expression."""
        found = self.get("query", query=expression)["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]


@contextmanager
def prometheus(discovery: Path, directory: Path) -> Iterator[Prometheus]:
    """Start a server.

    Args:
        discovery: the file in which Ray lists the addresses of its nodes.
        directory: a new one, for the configuration and the data.
    """
    if (program := shutil.which("prometheus")) is None:
        pytest.skip("Prometheus is not installed (Debian's package 'prometheus')")
    directory.mkdir(parents=True)
    scrape = {"job_name": "ray", "file_sd_configs": [{"files": [str(discovery)], "refresh_interval": "1s"}]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
    (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [program, f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}"]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://{address}", process, directory / "log")
        yield Prometheus(url=f"http://{address}")
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with suppress(requests.ConnectionError):
            if requests.get(f"{url}/-/ready", timeout=5).ok:
                return
        time.sleep(0.1)
    raise AssertionError(f"Prometheus did not start: {log.read_text()}")
