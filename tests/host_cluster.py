"""A Ray cluster on `tests.hosts`: a head without trials on the first host, a worker with one CPU on each other one."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from search.run.cluster import ENVIRONMENT
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.trials import TrialRecord, trial_records
from tests.hosts import Host, Hosts, running_hosts

CHECKOUT = Path(__file__).parents[1]
PORT = 6379
LIMIT_SECONDS = 300
"""After which something that a test waits for will not happen."""
SMALL = (
    *("--set", "data.image_size=32", "--set", "model.family=debug", "--set", "model.width={choices: [2, 4]}"),
    *("--set", "scheduler.grace_epochs=100", "--set", "scheduler.max_epochs=100", "--set", "retrain.enabled=false"),
    *("--set", "model.precision=fp32"),
)
"""Trials of some ten seconds, all of which run to their end."""


class HostCluster:
    """A running cluster.

    Attributes:
        hosts: head first.
        storage: a directory that all hosts see.
        token: of the cluster.
    """

    def __init__(self, hosts: Hosts, workers: int) -> None:
        self.hosts = hosts
        self._workers = workers
        self.storage = hosts.shared / "searches"
        self.token = "5" * 64
        self._token_file = hosts.shared / "token"
        self._token_file.write_text(self.token)

    @property
    def workers(self) -> list[Host]:
        """The hosts on which trials run from the start."""
        return self.hosts.hosts[1 : 1 + self._workers]

    @property
    def head(self) -> Host:
        """The host of the driver, on which no trial runs."""
        return self.hosts[0]

    def start_head(self) -> None:
        """Start Ray on the first host."""
        options = f"--head --port={PORT} --num-cpus=0 --dashboard-host=127.0.0.1"
        self.head.run(self._in_environment(f"{_script('ray')} start {options}"))

    def join(self, host: Host) -> None:
        """Start Ray on another host."""
        options = f"--address={self.head.address}:{PORT} --num-cpus=1"
        host.run(self._in_environment(f"{_script('ray')} start {options}"))

    def leave(self, host: Host) -> None:
        """End all Ray processes on a host."""
        host.run(f"{_script('ray')} stop --force", check=False)

    def rejoin(self, host: Host) -> None:
        """End all Ray processes on a host, and start Ray on it again."""
        self.leave(host)
        self.join(host)

    @contextlib.contextmanager
    def joined(self, host: Host) -> Iterator[None]:
        """A host of the cluster for a while."""
        self.join(host)
        try:
            yield
        finally:
            self.leave(host)

    @contextlib.contextmanager
    def ending(self, host: Host, *, seconds: int) -> Iterator[None]:
        """A host that will be taken away, as AWS announces on a spot instance, for `spot_notice`; then it is back."""
        host.run("ip addr add 169.254.169.254/32 dev lo || true")
        log, words = f"{self.hosts.shared}/notice-{time.monotonic_ns()}.log", f"{sys.executable} -m"
        service = f"{words} tests.instance_metadata {seconds}"
        watcher = f"{words} search.cluster.spot_notice {self.head.address}:{PORT}"
        for command in (service, watcher):
            host.run(self._in_environment(f"({command} > {log} 2>&1 < /dev/null & echo $! >> /tmp/announcement)"))
        try:
            yield
        finally:
            host.run("kill $(cat /tmp/announcement); rm /tmp/announcement", check=False)
            self.rejoin(host)

    @contextlib.contextmanager
    def running(self, *arguments: str, module: str = "search.cli.main") -> Iterator[Driver]:
        """A `twinhead` command, or another module with its arguments, on the head while it runs."""
        log = self.hosts.shared / f"{arguments[0]}-{time.monotonic_ns()}.log"
        words = shlex.join([sys.executable, "-m", module, *arguments])
        process = self.head.start(self._in_environment(f"echo pid $$; exec {words}"), log)
        driver = Driver(process, log, self.head)
        try:
            yield driver
        finally:
            if process.poll() is None:
                driver.kill()
            process.kill()
            process.wait()

    def experiment(self, name: str) -> Experiment:
        """An experiment in the storage."""
        return Experiment(storage=self.storage, name=name)

    def records(self, name: str) -> list[TrialRecord]:
        """The trials of a search so far."""
        experiment = self.experiment(name)
        return trial_records(open_study(experiment)) if experiment.study_file.exists() else []

    def _in_environment(self, command: str) -> str:
        variables = ENVIRONMENT | {
            "RAY_ADDRESS": f"{self.head.address}:{PORT}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self._token_file),
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # so that a retraining lasts until hosts left and joined
            "TWINHEAD_CACHE": "/tmp/cache",  # noqa: S108 - a directory of each host's own
        }
        if command.startswith(_script("ray")):
            del variables["RAY_ADDRESS"]
        settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        return f"cd {shlex.quote(str(CHECKOUT))} && export {settings} && {command}"


class Driver:
    """A command that runs on the head."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, host: Host) -> None:
        self.process, self._log, self._host = process, log, host

    @property
    def output(self) -> str:
        """What it wrote so far."""
        return self._log.read_text()

    def wait(self) -> str:
        """Wait until it ends well; return what it wrote."""
        self.process.wait(LIMIT_SECONDS)
        assert self.process.returncode == 0, self.output
        return self.output

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to it."""
        pid = next(line.split()[1] for line in self.output.splitlines() if line.startswith("pid "))
        self._host.run(f"kill -{signal_number} {pid}", check=False)


@contextlib.contextmanager
def host_cluster(workers: int, *, spare: int = 0) -> Iterator[HostCluster]:
    """Start a cluster on hosts of its own.

    Args:
        workers: hosts with a worker.
        spare: further hosts, on which Ray does not run yet.
    """
    checkout_is_shared()
    with running_hosts(1 + workers + spare) as hosts:
        cluster = HostCluster(hosts, workers)
        cluster.start_head()
        for host in cluster.workers:
            cluster.join(host)
        yield cluster


def checkout_is_shared() -> None:
    """Skip the test if the hosts do not see this checkout and its environment."""
    if str(CHECKOUT).startswith("/tmp/") or sys.prefix.startswith("/tmp/"):  # noqa: S108
        pytest.skip("each host has its own /tmp, in which this checkout lies")


def wait_until(condition: Callable[[], bool], what: str, driver: Driver | None = None) -> float:
    """Wait until a condition holds; return the seconds that it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() < started + LIMIT_SECONDS, f"{what} did not happen: {driver and driver.output}"
        assert driver is None or driver.process.poll() is None, f"the command ended before {what}: {driver.output}"
        time.sleep(0.2)
    return time.monotonic() - started


def _script(name: str) -> str:
    return os.path.join(sys.prefix, "bin", name)  # noqa: PTH118 - not resolved: a link would leave the environment
