"""The connection to a cluster, to a server that answers as a dashboard does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from search.cluster import entry
from search.cluster.client import Cluster, RefusedError, UnreachableError
from search.cluster.submission import AFTER
from search.study.experiment import Experiment
from search.terminal import Screen
from tests.search.conftest import TOKEN, Dashboard


@pytest.fixture
def connected(tmp_path: Path) -> Callable[..., str]:
    """What a process knows of a cluster, or its error; Ray reads the mode and the token once in a process."""

    def run(address: str | None, *, token: str = TOKEN, insecure: bool = False, **environment: str) -> str:
        (tmp_path / "token").write_text(token)
        code = f"""
from data.errors import InputError
from search.run.cluster import prepare_environment
prepare_environment()
from search.cluster.client import Cluster
try:
    print(Cluster.connect({address!r}, insecure={insecure}).info())
except InputError as error:
    print(type(error).__name__, error)
"""
        own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=own | environment, capture_output=True, text=True, check=True
        )
        assert token not in ran.stdout + ran.stderr
        return ran.stdout.strip()

    return run


@pytest.mark.slow
def test_a_cluster_that_demands_the_token(dashboard: Callable[..., Dashboard], connected: Callable[..., str]) -> None:
    """Its versions and its living nodes are known before anything is uploaded."""
    server = dashboard()

    assert connected(server.url) == "ClusterInfo(ray='2.60.0', python='3.11.7', nodes=({'CPU': 8.0, 'GPU': 1.0},))"
    assert server.sent[0] is None
    assert server.sent[-1] == f"Bearer {TOKEN}"


@pytest.mark.slow
def test_an_address_that_is_given_wins(dashboard: Callable[..., Dashboard], connected: Callable[..., str]) -> None:
    """Ray itself prefers $RAY_ADDRESS, and would submit a search to another cluster."""
    nowhere = "http://127.0.0.1:1"

    assert connected(dashboard().url, RAY_ADDRESS=nowhere).startswith("ClusterInfo(")
    assert connected(None, RAY_ADDRESS=nowhere).startswith(f"UnreachableError No Ray cluster answers at '{nowhere}'")


@pytest.mark.slow
def test_an_address_without_a_scheme(dashboard: Callable[..., Dashboard], connected: Callable[..., str]) -> None:
    """As `ray start` prints that of the dashboard; Ray itself takes it for that of the GCS, and tries for a minute."""
    assert connected(dashboard().url.removeprefix("http://")).startswith("ClusterInfo(")
    assert connected("127.0.0.1:1").startswith("UnreachableError No Ray cluster answers at '127.0.0.1:1'")
    assert connected("nowhere").startswith("InputError 'nowhere' is not the address of a cluster; give --address")


@pytest.mark.slow
def test_a_wrong_token(dashboard: Callable[..., Dashboard], connected: Callable[..., str]) -> None:
    """The sentence names where the token is looked for, and not the token."""
    said = connected(dashboard().url, token="b" * 64)

    assert said.startswith("TokenError ")
    assert "refuses the token, or there is none; copy the cluster's token to ~/.ray/auth_token" in said


@pytest.mark.slow
def test_an_open_cluster_is_refused_and_is_not_sent_the_token(
    dashboard: Callable[..., Dashboard], connected: Callable[..., str]
) -> None:
    """It may be anybody's; who insists does not give a token away either."""
    server = dashboard(is_open=True)

    assert connected(server.url).startswith(f"InputError The cluster at '{server.url}' answers without a token")
    assert connected(server.url, insecure=True).startswith("ClusterInfo(")
    assert not any(TOKEN in (token or "") for token in server.sent)


def test_a_gateway_without_its_cluster_is_not_an_open_cluster(dashboard: Callable[..., Dashboard]) -> None:
    """The sentence on clusters without a token would be wrong: the cluster only starts, or is gone."""
    with pytest.raises(UnreachableError, match="No Ray cluster answers at"):
        Cluster.connect(dashboard(error=503).url)


class _Refusing:
    """Ray's client at a head that was replaced: its error for any answer but 200."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_address(self) -> str:
        return "http://head:8265"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def refuse(*_: object, **__: object) -> None:
            raise RuntimeError(f"Request failed with status code 404: {self._text}.")

        return refuse


def refusing(text: str) -> Cluster:
    return Cluster(cast("Any", _Refusing(text)))


@pytest.mark.parametrize(
    "ask",
    [
        lambda cluster: cluster.jobs("twinhead-"),
        lambda cluster: cluster.job("a-1"),
        lambda cluster: cluster.stop("a-1"),
        lambda cluster: cluster.log("a-1"),
        lambda cluster: cluster.submit("a-1", "true", code=Path("code.zip"), env={}, metadata={}),
    ],
    ids=["jobs", "job", "stop", "log", "submit"],
)
def test_an_answer_that_is_an_error_is_a_sentence(ask: Callable[[Cluster], object]) -> None:
    """A traceback: Ray's client raises a plain RuntimeError, in 'logs --follow' once the head was replaced."""
    with pytest.raises(
        RefusedError, match=r"cluster at 'http://head:8265' refused a request \(.*404: Job a-1 does not exist\)\."
    ):
        ask(refusing("Job a-1 does not exist"))


def test_a_job_that_exists_is_not_an_error() -> None:
    """Two machines may submit the same search at a time; the answer is a traceback of Ray."""
    text = "Traceback:\n  File\nValueError: Job with submission_id a-1 already exists. Use a different submission_id.\n"

    assert not refusing(text).submit("a-1", "true", code=Path("code.zip"), env={}, metadata={})


def test_a_job_waits_on_while_the_cluster_answers_with_errors(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash: the job that waits for another one outlives the restart of the dashboard."""
    answers = iter([refusing("Internal Server Error"), refusing("Internal Server Error"), None])
    said: list[str] = []
    screen = Screen()
    monkeypatch.setattr(Cluster, "connect", lambda **_: next(answers))
    monkeypatch.setattr(entry, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(screen, "say", said.append)
    monkeypatch.setenv(AFTER, experiment.name)
    entry.prepare_driver(experiment, screen)

    assert said == ["waiting until the search 'first' ended", "the search 'first' ended"]
