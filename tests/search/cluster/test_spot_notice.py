"""Notices of AWS that a spot instance ends; tests/test_hosts.py has what follows from one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from search.cluster.spot_notice import announced_end
from tests.instance_metadata import service

END = datetime(2026, 11, 26, 12, 30, 15, tzinfo=UTC)


@pytest.fixture
def metadata() -> Iterator[Callable[[datetime | None], str]]:
    """Starts a metadata service; returns its address."""
    with ExitStack() as started:

        def start(end: datetime | None) -> str:
            server = service(("127.0.0.1", 0), end)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            started.callback(server.server_close)
            started.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/latest"

        yield start


@pytest.mark.slow
def test_a_notice_says_when_the_instance_ends(metadata: Callable[[datetime | None], str]) -> None:
    assert announced_end(metadata(END)) == END


@pytest.mark.slow
def test_no_notice_is_no_end(metadata: Callable[[datetime | None], str], capsys: pytest.CaptureFixture[str]) -> None:
    assert announced_end(metadata(None)) is None
    assert capsys.readouterr().err == ""


def test_a_service_that_does_not_answer_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Its next look may succeed: the node must not stop watching."""
    assert announced_end("http://127.0.0.1:1/latest") is None
    assert "the metadata service does not answer" in capsys.readouterr().err
