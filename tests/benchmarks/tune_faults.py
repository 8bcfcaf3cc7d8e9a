"""The same faults during a search of Twinhead and one of Ray Tune alone, on a cluster of hosts on this machine.

python tests/benchmarks/tune_faults.py [--faults none power network driver head process]

Needs root, iproute2 and openssh-server. For each fault and side: the trials that reached their last epoch, the epochs
that were trained again, and the seconds from the fault to the end. After the loss of the driver or the head, Twinhead
is resumed with --resume, Tune with `Tuner.restore`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from results import Row, arguments, publish

from tests.host_cluster import SMALL, Driver, HostCluster, host_cluster, wait_until
from tests.test_hosts import repeated_epochs

TRIALS, EPOCHS = 6, 100
FAULTS = ("none", "power", "network", "driver", "head", "process")
STARTED = 40
"""Epochs of all trials together after which the fault happens."""


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__)
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), choices=FAULTS)
    options = parser.parse_args()
    rows: list[Row] = []
    with host_cluster(2) as cluster:
        _render(cluster)
        for fault in options.faults:
            for side in (Twinhead(cluster, fault), TuneAlone(cluster, fault)):
                rows.append(_measure(cluster, side, fault))
                sys.stderr.write(f"{rows[-1]}\n")
    publish(rows, {}, options.json)


class Twinhead:
    """A search of this project."""

    name = "Twinhead"

    def __init__(self, cluster: HostCluster, fault: str) -> None:
        self._cluster, self._fault = cluster, fault

    @contextmanager
    def running(self, *, resume: bool) -> Iterator[Driver]:
        storage = ["--storage", str(self._cluster.storage)]
        new = [
            "--data",
            str(self._cluster.hosts.shared / "set"),
            "--name",
            self._fault,
            "--trials",
            str(TRIALS),
            *SMALL,
        ]
        with self._cluster.running("search", *storage, *(["--resume", self._fault] if resume else new)) as driver:
            yield driver

    def epochs(self) -> int:
        return sum(len(trial.epochs) for trial in self._cluster.records(self._fault))

    def whole(self) -> int:
        return sum(trial.last_epoch == EPOCHS for trial in self._cluster.records(self._fault))

    def repeated(self) -> int:
        return repeated_epochs(self._cluster, self._fault)


class TuneAlone:
    """A search of Ray Tune, as documented."""

    name = "Ray Tune alone"

    def __init__(self, cluster: HostCluster, fault: str) -> None:
        self._cluster, self._directory = cluster, cluster.hosts.shared / f"tune-{fault}"

    @contextmanager
    def running(self, *, resume: bool) -> Iterator[Driver]:
        words = ("restore" if resume else "run", str(self._directory), str(TRIALS), str(EPOCHS))
        with self._cluster.running(*words, module="tests.benchmarks.tune_alone") as driver:
            yield driver

    def epochs(self) -> int:
        return sum(len(epochs) for epochs in self._noted())

    def whole(self) -> int:
        return sum(str(EPOCHS) in epochs for epochs in self._noted())

    def repeated(self) -> int:
        return sum(sum(Counter(epochs).values()) - len(set(epochs)) for epochs in self._noted())

    def _noted(self) -> list[list[str]]:
        return [path.read_text().split() for path in (self._directory / "notes").glob("*")]


def _measure(cluster: HostCluster, side: Twinhead | TuneAlone, fault: str) -> Row:
    with side.running(resume=False) as driver:
        wait_until(lambda: side.epochs() >= STARTED, "training", driver)
        started = time.monotonic()
        _HAPPEN[fault](cluster, driver)
        ended = _end(driver)
    _repair(cluster, fault)
    if fault in ("driver", "head"):
        with side.running(resume=True) as driver:
            ended = _end(driver)
    seconds = time.monotonic() - started
    return {
        "fault": fault,
        "side": side.name,
        "whole trials": f"{side.whole()} of {TRIALS}",
        "epochs again": side.repeated(),
        "seconds": round(seconds),
        "end": ended,
    }


def _end(driver: Driver) -> str:
    try:
        return f"exit {driver.process.wait(300)}"
    except subprocess.TimeoutExpired:
        return "hung"


def _cut(cluster: HostCluster, _: Driver) -> None:
    cluster.hosts[2].cut()
    time.sleep(30)
    cluster.hosts[2].heal()


def _kill_process(cluster: HostCluster, _: Driver) -> None:
    found = "ps -eo pid=,args= | grep ' ray::' | grep -v -e IDLE -e Agent -e grep | awk '{print $1}'"
    cluster.hosts[2].run(f"kill -9 $({found})")


_HAPPEN: dict[str, Callable[[HostCluster, Driver], None]] = {
    "none": lambda _, __: None,
    "power": lambda cluster, _: cluster.hosts[1].power_off(),
    "network": _cut,
    "driver": lambda _, driver: driver.kill(),
    "head": lambda cluster, _: cluster.head.power_off(),
    "process": _kill_process,
}


def _repair(cluster: HostCluster, fault: str) -> None:
    """Bring all hosts back."""
    if fault == "power":
        cluster.hosts[1].power_on()
    if fault == "head":
        cluster.head.power_on()
        cluster.start_head()
    if fault in ("power", "network", "head"):
        for host in cluster.workers:
            cluster.rejoin(host)


def _render(cluster: HostCluster) -> None:
    rendering = ["render", str(cluster.hosts.shared / "set"), "--backgrounds", "24", "--per-background", "2"]
    words = [sys.executable, "-m", "search.cli.main", *rendering, "--size", "32", "--seed", "3"]
    subprocess.run(words, check=True, capture_output=True)


if __name__ == "__main__":
    main()
