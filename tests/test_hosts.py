"""Searches on a cluster of several hosts, some of which fail: each ends with the trials and scores of a calm one."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from data.errors import InputError
from tests.host_cluster import LIMIT_SECONDS, SMALL, Driver, HostCluster, host_cluster, wait_until
from tests.hosts import Host
from trainable.loop.checkpoint_files import load_metrics, load_origin

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TRIALS = 6
"""Of a search whose results are compared."""
MORE_TRIALS = 40
"""Of one that lasts until something happens, however fast the machine is."""
RETRAINING_EPOCHS = 70
KILL_TRIALS = "kill -9 $(ps -eo pid=,args= | grep ' ray::' | grep -v -e IDLE -e Agent -e grep | awk '{print $1}')"
ORPHAN_SECONDS = 60
"""After which no process of a killed search may be left."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[HostCluster]:
    with host_cluster(2, spare=1) as cluster:
        data = str(cluster.hosts.shared / "set")
        rendering = ["render", data, "--backgrounds", "24", "--per-background", "2", "--size", "32", "--seed", "3"]
        subprocess.run([sys.executable, "-m", "search.cli.main", *rendering], check=True, capture_output=True)
        yield cluster


@pytest.fixture(scope="module")
def calm(cluster: HostCluster) -> Mapping[int, Any]:
    """The results of a search without any fault."""
    with cluster.running(*search(cluster, "calm")) as driver:
        driver.wait()
    return results(cluster, "calm")


def search(cluster: HostCluster, name: str, trials: int = TRIALS) -> list[str]:
    data = str(cluster.hosts.shared / "set")
    options = ["--storage", str(cluster.storage), "--name", name, "--trials", str(trials)]
    return ["search", "--data", data, *options, *SMALL]


def resume(cluster: HostCluster, name: str) -> list[str]:
    return ["search", "--resume", name, "--storage", str(cluster.storage)]


def results(cluster: HostCluster, name: str) -> Mapping[int, Any]:
    """Configuration, scores and retries by trial; the scores are those of all epochs, in order, without gaps."""
    return {
        trial.number: (trial.config, [(record.epoch, record.score) for record in trial.epochs], trial.retries)
        for trial in cluster.records(name)
    }


def repeated_epochs(cluster: HostCluster, name: str) -> int:
    """How often an epoch of a trial was reported again."""
    reports: Counter[tuple[int, str]] = Counter()
    for line in cluster.experiment(name).study_file.read_text().splitlines():
        record = json.loads(line)
        reports.update((record["trial_id"], key) for key in record.get("user_attr", {}) if key.startswith("epoch:"))
    return reports.total() - len(reports)


def retried_has_ended(cluster: HostCluster, name: str) -> bool:
    """Whether a trial whose process was killed has ended."""
    return any(trial.retries and trial.state.is_finished() for trial in cluster.records(name))


def retraining(cluster: HostCluster, name: str) -> tuple[int, float]:
    """Epoch and number of workers of the newest checkpoint of a retraining; zeros before the first one."""
    found = [(0, 0.0)]
    for directory in cluster.experiment(name).groups.glob("retraining/run-*/checkpoint_*"):
        with contextlib.suppress(InputError, OSError):  # it is incomplete, or was removed in this moment
            found.append((load_origin(directory).epoch, load_metrics(directory)["workers"]))
    return max(found)


def interrupt_when_compared(cluster: HostCluster, name: str, driver: Driver) -> None:
    """End a search of `MORE_TRIALS` when those that are compared have ended."""

    def have_ended() -> bool:
        return sum(trial.state.is_finished() for trial in cluster.records(name)[:TRIALS]) == TRIALS

    wait_until(have_ended, "the end of the trials that are compared", driver)
    driver.kill(signal.SIGINT)
    driver.process.wait(LIMIT_SECONDS)


def compared(cluster: HostCluster, name: str) -> Mapping[int, Any]:
    """The results of the first trials of a search."""
    return {number: result for number, result in results(cluster, name).items() if number < TRIALS}


def wait_for_epochs(cluster: HostCluster, name: str, count: int, driver: Driver) -> None:
    wait_until(lambda: sum(len(trial.epochs) for trial in cluster.records(name)) >= count, "training", driver)


def processes(host: Host) -> list[str]:
    """Titles of the trials' processes on a host."""
    titles = host.run("ps -eo args= | grep '^ray::' | grep -v '^ray::IDLE' || true").stdout.splitlines()
    # Ray Train's coordinator outlives the retraining, and uses nothing.
    return [title for title in titles if "Agent" not in title and "AutoscalingCoordinator" not in title]


def test_trials_of_killed_processes_and_of_a_host_without_power_resume(
    cluster: HostCluster, calm: Mapping[int, Any]
) -> None:
    """A trial whose process is killed repeats at most one epoch, and a host that is back gets trials again."""
    with cluster.running(*search(cluster, "killed", trials=MORE_TRIALS)) as driver:
        wait_for_epochs(cluster, "killed", 20, driver)
        cluster.hosts[2].run(KILL_TRIALS)
        wait_until(lambda: retried_has_ended(cluster, "killed"), "the end of the trial", driver)
        assert repeated_epochs(cluster, "killed") <= 1

        host = cluster.hosts[1]
        host.power_off()
        host.power_on()
        cluster.join(host)
        wait_until(lambda: bool(processes(host)), "a trial on the host", driver)
        interrupt_when_compared(cluster, "killed", driver)
    found = compared(cluster, "killed")
    assert {number: result[:2] for number, result in found.items()} == {
        number: result[:2] for number, result in calm.items()
    }
    assert sum(retries for _, _, retries in found.values()) == 1


def test_trials_of_a_host_that_loses_its_network_resume_elsewhere(
    cluster: HostCluster, calm: Mapping[int, Any]
) -> None:
    host = cluster.hosts[2]
    with cluster.running(*search(cluster, "network")) as driver:
        wait_for_epochs(cluster, "network", 40, driver)
        host.cut()
        time.sleep(30)
        host.heal()
        driver.wait()
    assert results(cluster, "network") == calm
    wait_until(lambda: not processes(host), "the end of the host's processes")
    cluster.rejoin(host)


def test_trials_move_from_a_spot_host_and_to_a_host_that_joins(cluster: HostCluster, calm: Mapping[int, Any]) -> None:
    """A spot notice costs neither an epoch nor a retry. A host whose cache's disk is full decodes the images itself."""
    spot, spare = cluster.hosts[1], cluster.hosts[3]
    with cluster.running(*search(cluster, "moves", trials=MORE_TRIALS)) as driver:
        wait_for_epochs(cluster, "moves", 20, driver)
        with cluster.ending(spot, seconds=60):
            wait_until(lambda: "its node is drained" in driver.output, "a move", driver)
            wait_until(lambda: not processes(spot), "the end of the host's processes", driver)
        spare.run("mkdir /tmp/cache && mount -t tmpfs -o size=300k tmpfs /tmp/cache")
        spare.run("cat /dev/zero > /tmp/cache/fill", check=False)
        with cluster.joined(spare):
            seconds = wait_until(lambda: bool(processes(spare)), "a trial on the host that joined", driver)
            interrupt_when_compared(cluster, "moves", driver)
    assert compared(cluster, "moves") == calm
    assert repeated_epochs(cluster, "moves") == 0
    print(f"a trial ran {seconds:.1f} s after its host had joined")  # noqa: T201 - pytest shows it with -s


def test_a_retraining_goes_on_as_hosts_leave_and_join(cluster: HostCluster) -> None:
    """It uses both hosts, then the one that remains, then both again."""
    host = cluster.hosts[1]
    options = ["--set", "scheduler.max_epochs=2", "--set", "scheduler.grace_epochs=2", "--set", "retrain.enabled=true"]
    options += ["--set", "retrain.workers=[1, 2]", "--set", f"retrain.epochs={RETRAINING_EPOCHS}"]
    with cluster.running(*search(cluster, "elastic", trials=1), *options) as driver:
        wait_until(lambda: retraining(cluster, "elastic") >= (3, 2), "a retraining with two workers", driver)
        # Ray sets the title of a call while it runs.
        wait_until(lambda: "ray::twinhead: elastic retraining worker" in processes(host), "a title", driver)
        with cluster.ending(host, seconds=20):
            wait_until(lambda: "the training moves after epoch" in driver.output, "a move", driver)
            wait_until(lambda: retraining(cluster, "elastic")[1] == 1, "an epoch with one worker", driver)
        wait_until(lambda: retraining(cluster, "elastic")[1] == 2, "a retraining with two workers again", driver)
        driver.wait()
    assert retraining(cluster, "elastic")[0] == RETRAINING_EPOCHS
    assert cluster.experiment("elastic").summary().complete


def test_a_search_resumes_after_its_driver_is_killed_and_after_its_head_is_lost(
    cluster: HostCluster, calm: Mapping[int, Any]
) -> None:
    """On the same cluster, and on a new one."""
    with cluster.running(*search(cluster, "lost")) as driver:
        wait_for_epochs(cluster, "lost", 150, driver)
        driver.kill()
        driver.process.wait()
    seconds = wait_until(lambda: not any(processes(host) for host in cluster.hosts.hosts), "the end of all trials")
    assert seconds < ORPHAN_SECONDS

    with cluster.running(*resume(cluster, "lost")) as driver:
        wait_for_epochs(cluster, "lost", 350, driver)
        cluster.head.power_off()
        driver.process.wait()
    cluster.head.power_on()
    cluster.start_head()
    for host in cluster.workers:
        cluster.rejoin(host)
    with cluster.running(*resume(cluster, "lost")) as driver:
        driver.wait()
    assert results(cluster, "lost") == calm
