"""Notices of AWS that a spot instance ends; tests/test_hosts.py has what follows from one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from search.cluster import spot_notice
from search.cluster.spot_notice import announced_end, watch
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


def test_a_cluster_that_does_not_answer_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The watch ended at the first try, and the trials of the node were lost with it."""
    answers = iter([ConnectionError("the head restarts"), RuntimeError("no node yet"), "ab12"])
    drained: list[str] = []

    def node_id(_: str) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(command: list[str], **_: object) -> SimpleNamespace:
        drained.extend(word for word in command if word.startswith("--node-id="))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(spot_notice, "_node_id", node_id)
    monkeypatch.setattr(spot_notice.subprocess, "run", run)
    monkeypatch.setattr(spot_notice.time, "sleep", lambda _: None)
    watch("head:6379", look=lambda: datetime.now(UTC) + timedelta(seconds=120))

    assert drained == ["--node-id=ab12"]
    assert "the cluster does not answer: the head restarts" in capsys.readouterr().err
