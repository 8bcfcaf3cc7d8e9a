"""A real Ray cluster of one node for tests: own ports, own directory, own token; it ends with what it started."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

GIVE_UP = 120
"""Seconds after which a cluster does not start for sure."""


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A running cluster."""

    url: str
    """Of its dashboard."""
    directory: Path
    gcs_address: str
    token: str

    @property
    def token_path(self) -> Path:
        return self.directory / "token"

    def environment(self) -> dict[str, str]:
        """The variables with which a command finds the cluster and its token."""
        return {"RAY_ADDRESS": self.url, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token_path)}

    def processes(self) -> list[int]:
        """Every process of the cluster, by the directory or the address that it was started with."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                started_with = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
                if int(path.name) != os.getpid() and os.fsencode(self.directory) in started_with:
                    found.append(int(path.name))
        return found


@contextmanager
def ray_cluster(
    directory: Path, *, mode: str = "token", cpus: int = 2, startable: dict[str, int] | None = None
) -> Iterator[RayCluster]:
    """A cluster with token authentication, or an open one with the mode 'disabled'.

    Args:
        directory: a new one with a short path, for Ray puts sockets there.
        mode: of authentication.
        cpus: of its node.
        startable: resources of a worker node that its autoscaler may start, as another raylet on this machine.
    """
    directory.mkdir(parents=True)
    gcs, dashboard, client, agent, agent_grpc, metrics = _free_ports(6)
    token = secrets.token_hex(32)
    cluster = RayCluster(
        url=f"http://127.0.0.1:{dashboard}", directory=directory, gcs_address=f"127.0.0.1:{gcs}", token=token
    )
    cluster.token_path.write_text(token)
    options = _autoscaling(directory, gcs, startable) if startable else ()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TWINHEAD_SUB"))}
    environment |= {
        "RAY_AUTH_MODE": mode,
        "RAY_AUTH_TOKEN_PATH": str(cluster.token_path),
        "RAY_TMPDIR": str(directory),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HOME": str(directory),
        "PATH": "/usr/bin:/bin",  # as for a cluster whose environment is not activated
    }
    if startable:
        environment |= {"RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "0", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--dashboard-agent-grpc-port={agent_grpc}", f"--metrics-export-port={metrics}"),
        *(f"--num-cpus={cpus}", "--num-gpus=0", f"--temp-dir={directory / 'r'}", "--disable-usage-stats", *options),
    ]
    with (directory / "out").open("wb") as out:
        started = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        _wait_until_up(cluster, started)
        yield cluster
    finally:
        for _ in range(3):  # a process may start another one while it ends
            for pid in cluster.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        started.wait()


def _autoscaling(directory: Path, gcs: int, worker: dict[str, int]) -> tuple[str, ...]:
    """The option of an autoscaler that starts nodes on this machine, as Ray's own tests do."""
    from ray.util import get_node_ip_address

    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    config = {
        "cluster_name": "fake",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": {"type": "fake_multinode", "gcs_address": f"{get_node_ip_address()}:{gcs}"},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "min_workers": 0, "max_workers": 1},
        },
        "head_node_type": "ray.head.default",
        **{f"{name}_commands": [] for name in commands},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }
    file = directory / "autoscaling.json"
    file.write_text(json.dumps(config))
    return (f"--autoscaling-config={file}",)


def _wait_until_up(cluster: RayCluster, started: subprocess.Popen[bytes]) -> None:
    """Wait until the node has joined, which is a moment after the dashboard answers."""
    headers = {"Authorization": f"Bearer {cluster.token}"}
    end = time.monotonic() + GIVE_UP
    while time.monotonic() < end and started.poll() is None:
        with suppress(requests.RequestException, KeyError, ValueError):
            answer = requests.get(f"{cluster.url}/api/v0/nodes", headers=headers, timeout=5)
            if answer.json()["data"]["result"]["total"]:
                return
        time.sleep(0.3)
    raise AssertionError(f"the cluster did not start: {(cluster.directory / 'out').read_text()}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()
