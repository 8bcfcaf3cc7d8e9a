"""The Jobs API of a Ray cluster: the transport of the commands that run on another machine than the search.

Ray reads the token of the cluster from $RAY_AUTH_TOKEN, the file $RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token. It is sent
in a header and written nowhere.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data.errors import InputError
from search.run.cluster import CONNECT_SECONDS, answers_without_token

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://localhost:8265"
"""The address of the dashboard on its own machine, and at the end of `ray dashboard cluster.yaml`."""
ADDRESS = "RAY_ADDRESS"
_OVERRIDE = "RAY_API_SERVER_ADDRESS"
"""With it, Ray's client ignores $RAY_ADDRESS, which it otherwise prefers to the address that it is given."""
_NODES = "/api/v0/nodes?detail=1&limit=10000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
"""The nodes that run now. By default, Ray returns a hundred, and dead ones among them; the limit is its largest."""
_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)

JobState = Literal["pending", "running", "stopped", "succeeded", "failed"]


class UnreachableError(InputError):
    """The cluster does not answer."""


class TokenError(InputError):
    """The cluster refuses the token, or there is none."""


class RefusedError(InputError):
    """The cluster answers a request with an error, such as for a job that it does not know any more."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job of the cluster that Twinhead submitted."""

    id: str
    """Its submission ID."""
    state: JobState
    exit_code: int | None
    """Of the driver; None while it runs, and if it was stopped or killed."""
    started: float | None
    """Unix time of the submission."""
    message: str
    """Ray's sentence about its state."""
    metadata: Mapping[str, str]

    @property
    def reason(self) -> str:
        """Why it failed: the last line of its output, which Ray puts at the end of its sentence."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        return lines[-1].removeprefix("twinhead: ") if lines else ""

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("pending", "running")


@dataclass(frozen=True, kw_only=True)
class ClusterInfo:
    """Versions of a cluster, and the resources of its nodes."""

    ray: str
    python: str
    nodes: tuple[Mapping[str, float], ...]
    """Such as {'CPU': 8, 'GPU': 1}; only the nodes that run now."""


class Cluster:
    """A reachable cluster that accepts the token.

    Args:
        client: Ray's client.
        is_open: whether it answers without a token.
    """

    def __init__(self, client: JobSubmissionClient, *, is_open: bool = False) -> None:
        self._client = client
        self.address = client.get_address()
        self.is_open = is_open

    @classmethod
    def connect(cls, address: str | None = None, *, insecure: bool = False) -> Cluster:
        """Connect to the cluster at an address: of its dashboard, or as $RAY_ADDRESS names a cluster.

        Args:
            address: default: $RAY_ADDRESS, else `DEFAULT_ADDRESS`.
            insecure: whether to accept a cluster that answers without a token.

        Raises:
            UnreachableError: if nothing answers there.
            TokenError: if the cluster refuses the token.
            RefusedError: if another web server answers.
            InputError: if the cluster answers without a token, and this is not accepted.
        """
        given = address or os.environ.get(ADDRESS) or DEFAULT_ADDRESS
        with _errors(given):
            url = _dashboard(given)
            is_open = answers_without_token(url)
            if not is_open or insecure:
                return cls(_client(url, sends_token=not is_open), is_open=is_open)
        raise InputError(
            f"The cluster at '{given}' answers without a token, so that anyone who reaches it can run code there; "
            "start it with RAY_AUTH_MODE=token (see docs/cluster.md), or insist with --insecure."
        )

    def info(self) -> ClusterInfo:
        """The versions of Ray and Python, and the nodes."""
        with _errors(self.address):
            versions = self._get("/api/v0/cluster_metadata")["data"]
            nodes = self._get(_NODES)["data"]["result"]["result"]
        alive = tuple(node["resources_total"] for node in nodes)
        return ClusterInfo(ray=versions["rayVersion"], python=versions["pythonVersion"], nodes=alive)

    def jobs(self, prefix: str) -> list[Job]:
        """The jobs whose ID begins with `prefix`, in the order of their submission."""
        with _errors(self.address):
            found = self._client.list_jobs()
        jobs = [_job(each) for each in found if each.submission_id and each.submission_id.startswith(prefix)]
        return sorted(jobs, key=lambda job: job.started or 0.0)

    def job(self, submission_id: str) -> Job:
        """A job by its ID."""
        with _errors(self.address):
            return _job(self._client.get_job_info(submission_id))

    def submit(
        self,
        submission_id: str,
        entrypoint: str,
        *,
        code: Path,
        env: Mapping[str, str],
        metadata: Mapping[str, str],
    ) -> bool:
        """Submit a job; returns False if there is one with this ID already.

        Args:
            submission_id: its ID.
            entrypoint: shell command that it runs, in the directory of the unpacked code.
            code: a zip archive.
            env: environment variables of the driver and all workers.
            metadata: shown on the dashboard.

        Raises:
            RefusedError: if the cluster refuses the job.
        """
        try:
            with _errors(self.address):
                self._client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=submission_id,
                    runtime_env={"working_dir": str(code), "env_vars": dict(env)},
                    metadata=dict(metadata),
                )
        except RefusedError as error:
            if f"{submission_id} already exists" in str(error):
                return False
            raise
        return True

    def stop(self, submission_id: str) -> bool:
        """Send the job's stop signal; returns False if it does not run."""
        with _errors(self.address):
            return bool(self._client.stop_job(submission_id))

    def log(self, submission_id: str) -> str:
        """All output of a job so far."""
        with _errors(self.address):
            return str(self._client.get_job_logs(submission_id))

    def _get(self, path: str) -> Any:
        answer = self._client._do_request("GET", path)
        answer.raise_for_status()
        return answer.json()


def _dashboard(address: str) -> str:
    """The URL of the dashboard; for any other address of a cluster, Ray looks it up."""
    if address.startswith(("http://", "https://")):
        return address.rstrip("/")
    host, colon, port = address.rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()  # Ray would try for a minute
        if _answers_http(url := f"http://{address}"):
            return url
    from ray.dashboard.utils import get_address_for_submission_client

    with _environment(ADDRESS, address):
        try:
            return str(get_address_for_submission_client(address)).rstrip("/")
        except ValueError:
            raise InputError(
                f"'{address}' is not the address of a cluster; give --address that of its dashboard, such as "
                f"{DEFAULT_ADDRESS}, or set ${ADDRESS} to it."
            ) from None


def _answers_http(url: str) -> bool:
    """Whether a dashboard answers there; the other port that `ray start` names does not."""
    import requests

    try:
        requests.get(f"{url}/api/version", timeout=CONNECT_SECONDS)
    except requests.RequestException:
        return False
    return True


def _client(url: str, *, sends_token: bool) -> JobSubmissionClient:
    """Ray's client; an open cluster is not sent the token of another one."""
    from ray.job_submission import JobSubmissionClient

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    with _environment(_OVERRIDE, url):
        try:
            return JobSubmissionClient(url, headers=None if sends_token else {"Authorization": "none"})
        except (KeyError, TypeError):  # JSON without a version, of another web server
            raise _unreachable(url) from None


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def _errors(address: str) -> Iterator[None]:
    """Convert errors of the transport into sentences."""
    import requests

    try:
        yield
    except (requests.HTTPError, RuntimeError) as error:  # RuntimeError: of Ray's client, for any answer but 200
        raise RefusedError(f"The cluster at '{address}' refused a request ({_last_line(error)}).") from None
    except OSError:  # so are all others of requests
        raise _unreachable(address) from None
    except Exception as error:
        from ray.exceptions import AuthenticationError, RpcError  # imports Ray, which has raised them if any

        if isinstance(error, AuthenticationError):
            raise TokenError(
                f"The cluster at '{address}' refuses the token, or there is none; copy the cluster's token to "
                "~/.ray/auth_token, or set $RAY_AUTH_TOKEN_PATH to its file."
            ) from None
        if isinstance(error, RpcError):
            raise _unreachable(address) from None
        raise


def _unreachable(address: str) -> UnreachableError:
    return UnreachableError(
        f"No Ray cluster answers at '{address}'; check that it runs and that a tunnel to its dashboard is open "
        "(ray dashboard cluster.yaml), or give --address."
    )


def _job(details: JobDetails) -> Job:
    return Job(
        id=str(details.submission_id),
        state=details.status.value.lower(),  # type: ignore[arg-type]
        exit_code=details.driver_exit_code,
        started=details.start_time / 1000 if details.start_time else None,
        message=details.message or "",
        metadata=details.metadata or {},
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" .")]
    return lines[-1].rstrip(".") if lines else type(error).__name__
