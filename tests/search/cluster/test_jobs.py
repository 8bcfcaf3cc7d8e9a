"""Searches as jobs of a real cluster of one node with token authentication, by the commands as users type them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from tests.commands import GIVE_UP, LONG, SMALL, command, records
from tests.ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.cluster

Command = Callable[..., "subprocess.CompletedProcess[str]"]

SHORT = (*SMALL, "--set", "scheduler.max_epochs=2", "--set", "budget.trials=2", "--set", "retrain.enabled=false")
ORPHAN_SECONDS = 60
"""After which no process of a killed search may be left."""
ENDLESS = (
    *LONG,
    *("--set", "scheduler.max_epochs=5000", "--set", "scheduler.grace_epochs=5000"),
    *("--set", "data.image_size=128"),  # epochs of some tenths of a second, which the driver and the study keep up with
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    directory = Path(tempfile.mkdtemp(prefix="tw", dir="/tmp"))
    try:
        with ray_cluster(directory / "c") as started:
            yield started
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def environment(cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> RayCluster:
    """The variables with which commands of this test find the cluster."""
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    return cluster


@pytest.fixture
def twinhead(environment: RayCluster) -> Command:
    """A command without a terminal; its output never has the token."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIVE_UP,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert environment.token not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def status(twinhead: Command, experiment: Experiment) -> dict[str, Any]:
    found = twinhead("status", experiment.name, "--storage", str(experiment.storage), "--json")
    return dict(json.loads(found.stdout))


def wait_for(twinhead: Command, experiment: Experiment, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + GIVE_UP
    while not reached(found := status(twinhead, experiment)):
        assert time.monotonic() < end, found
        assert found["state"] in {"queued", "running"}, found
        time.sleep(1)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


def titles(cluster: RayCluster) -> dict[int, str]:
    """The title of each process of the cluster."""
    found = {}
    for pid in cluster.processes():
        with suppress(OSError):  # it has ended
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().decode().strip(" \0")
    return found


def api(cluster: RayCluster, path: str) -> Any:
    """An answer of the dashboard."""
    answer = requests.get(f"{cluster.url}{path}", headers={"Authorization": f"Bearer {cluster.token}"}, timeout=30)
    answer.raise_for_status()
    return answer.json()


def test_a_search_from_its_submission_to_its_removal(
    twinhead: Command, environment: RayCluster, drawn: Path, tmp_path: Path
) -> None:
    """It is submitted once, followed to its end, listed, and removed; its log is calm, and stays in the storage."""
    experiment = Experiment(storage=tmp_path, name="first")
    where = ("--storage", str(tmp_path))
    submission = ("submit", "--data", str(drawn), "--name", "first", *where, *SHORT)

    asked = twinhead(*submission, code=2)
    assert asked.stderr.splitlines()[-1].endswith(
        "Standard input is not a terminal, so nobody can answer; give -y to confirm."
    )
    trials = r"^trials +2 of up to 2 epochs, \d+ to \d+ optimizer steps, on \d+ train, \d+ val, \d+ test samples$"
    assert re.search(trials, asked.stderr, re.MULTILINE)
    assert "optimizer steps are too few to train a network" in asked.stderr
    assert re.search(r"^upload +[\d.]+ \S+ in \d+ files; the largest: ", asked.stderr, re.MULTILINE)
    assert not experiment.root.exists()

    first = twinhead(*submission, "-y").stdout
    second = twinhead(*submission, "-y").stdout
    job = re.search(r"as job (twinhead-first-[0-9a-f]{8}-1)$", first, re.MULTILINE)
    assert job
    assert "'first' is submitted already, as job" in second
    assert f"dashboard   {environment.url}/#/jobs/{job[1]}" in first

    followed = twinhead("logs", "first", "--follow", *where)
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ trial \d+.*: score", followed.stdout, re.MULTILINE)) == 2
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", followed.stdout)

    found = status(twinhead, experiment)
    assert (found["state"], found["job"], found["budget"]["trials"]) == ("finished", job[1], 2)
    assert found["best"]["score"] > 0
    assert [each["name"] for each in json.loads(twinhead("list", *where, "--json").stdout)] == ["first"]
    assert "first  finished  2 of 2" in re.sub(" +", "  ", twinhead("list", *where).stdout).replace(
        "2  of  2", "2 of 2"
    )

    details = api(environment, f"/api/jobs/{job[1]}")
    assert details["status"] == "SUCCEEDED"
    assert details["metadata"]["search"] == "first"
    assert details["metadata"]["storage"] == str(tmp_path)
    assert details["metadata"]["trials"] == "2 of 2"
    assert re.fullmatch(r"0\.\d{4}, trial [01]", details["metadata"]["best"])
    assert environment.token not in json.dumps(details)

    assert "epoch 1: score" in twinhead("logs", "first", "0", *where).stdout
    stored = experiment.driver_log.read_text()
    assert all(line in followed.stdout for line in stored.splitlines())
    assert environment.token not in stored

    twinhead("rm", "first", *where, code=2)
    twinhead("rm", "first", *where, "-y")
    assert not experiment.root.exists()


def test_a_search_is_stopped_and_resumed(
    twinhead: Command, environment: RayCluster, drawn: Path, tmp_path: Path
) -> None:
    """Ctrl-C on the display leaves it running, `stop` ends it with a summary, and `resume` continues its trials."""
    experiment = Experiment(storage=tmp_path, name="second")
    where = ("--storage", str(tmp_path))
    trials = ("--set", "budget.trials=2", "--share", "0.5")
    twinhead("submit", "--data", str(drawn), "--name", "second", *where, *ENDLESS, *trials, "-y")
    found = wait_for(twinhead, experiment, lambda found: bool(found["best"]))
    assert (found["state"], found["concurrent"], found["cpus_busy"]) == ("running", 1, 1)

    actors = api(environment, "/api/v0/actors?detail=1")["data"]["result"]["result"]
    assert [
        actor["repr_name"] for actor in actors if "twinhead" in actor["class_name"] and actor["state"] == "ALIVE"
    ] == ["twinhead: second trial 0+"]
    assert "ray::twinhead: second trial 0" in titles(environment).values()

    with subprocess.Popen(
        command("logs", "second", "--follow", *where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as display:
        assert display.stdout is not None
        display.stdout.readline()
        display.send_signal(signal.SIGINT)
        said = display.communicate(timeout=60)[1]
    assert display.returncode == 130
    assert "The search 'second' goes on." in said
    assert status(twinhead, experiment)["state"] == "running"
    assert twinhead("logs", "second", *where, code=3).stdout
    assert "its budget cannot be changed now" in twinhead("resume", "second", *where, "--trials", "8", code=2).stderr
    assert "is running; stop it first" in twinhead("rm", "second", *where, "-y", code=2).stderr

    stopped = twinhead("stop", "second", *where).stdout
    assert "stopped 'second': 0 of 2 trials ended, best score" in stopped
    assert f"twinhead resume second --storage {tmp_path}" in stopped
    assert status(twinhead, experiment)["state"] == "stopped"
    assert json.loads(experiment.summary_file.read_text())["outcomes"]["interrupted"] == 1
    before = records(experiment)[0]

    assert "give -y to confirm" in twinhead("resume", "second", *where, "--trials", "8", code=2).stderr
    assert experiment.spec().plan.budget.trials == 2
    assert "-2\n" in twinhead("resume", "second", *where, "-y").stdout
    wait_for(twinhead, experiment, lambda _: records(experiment)[0].last_epoch > before.last_epoch + 1)
    after = records(experiment)[0]
    assert [each.score for each in after.epochs[: len(before.epochs)]] == [each.score for each in before.epochs]
    assert status(twinhead, experiment)["recoveries"] == 1

    job = status(twinhead, experiment)["job"]
    subprocess.run(
        [sys.executable, "-m", "ray.scripts.scripts", "job", "stop", job, "--address", environment.url],
        check=True,
        capture_output=True,
    )
    found = status(twinhead, experiment)
    assert found["state"] == "stopped", found


def test_a_search_whose_driver_or_supervisor_is_killed_is_lost(
    twinhead: Command, environment: RayCluster, monkeypatch: pytest.MonkeyPatch, drawn: Path, tmp_path: Path
) -> None:
    """With or without the cluster, its state says so and names the command that resumes it; the trial goes on."""
    experiment = Experiment(storage=tmp_path, name="lost")
    where = ("--storage", str(tmp_path))
    twinhead("submit", "--data", str(drawn), "--name", "lost", *where, *ENDLESS, "--trials", "1", "-y")
    wait_for(twinhead, experiment, lambda found: bool(found["best"]))
    driver = Heartbeat.read(experiment)
    assert driver is not None
    os.kill(driver.pid, signal.SIGKILL)
    twinhead("logs", "lost", "--follow", *where, code=137)
    found = status(twinhead, experiment)
    assert (found["state"], found["trials"]["interrupted"]) == ("lost", 1)
    assert found["command"] == f"twinhead resume lost --storage {tmp_path}"

    with monkeypatch.context() as away:
        away.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
        assert status(twinhead, experiment) == found
        assert "\nlost  lost " in twinhead("list", *where).stdout

    before = records(experiment)[0].last_epoch
    twinhead("resume", "lost", *where, "-y")
    wait_for(twinhead, experiment, lambda _: records(experiment)[0].last_epoch > before + 1)

    [supervisor] = [pid for pid, title in titles(environment).items() if "JobSupervisor" in title]
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not any("twinhead: lost" in title for title in titles(environment).values()), ORPHAN_SECONDS)
    wait_until(lambda: status(twinhead, experiment)["state"] == "lost", GIVE_UP)

    before = records(experiment)[0].last_epoch
    twinhead("resume", "lost", *where, "-y")
    wait_for(twinhead, experiment, lambda _: records(experiment)[0].last_epoch > before + 1)
    twinhead("stop", "lost", *where)
    assert [trial.number for trial in records(experiment)] == [0]


def test_a_search_waits_for_another(twinhead: Command, drawn: Path, tmp_path: Path) -> None:
    """It is queued, says so in its log, and can be stopped while it waits."""
    where = ("--storage", str(tmp_path))
    twinhead("submit", "--data", str(drawn), "--name", "long", *where, *ENDLESS, "--share", "0.5", "-y")
    twinhead("submit", "--data", str(drawn), "--name", "next", *where, *SHORT, "--after", "long", "-y")
    waiting = Experiment(storage=tmp_path, name="next")
    end = time.monotonic() + GIVE_UP
    while "waiting until the search 'long' ended" not in twinhead("logs", "next", *where, code=3).stdout:
        assert time.monotonic() < end
        time.sleep(1)
    assert status(twinhead, waiting)["state"] == "queued"

    twinhead("stop", "long", *where)

    assert "trial 0" in twinhead("logs", "next", "--follow", *where).stdout
    assert status(twinhead, waiting)["state"] == "finished"


def test_without_its_token_a_cluster_answers_nothing(
    twinhead: Command, environment: RayCluster, monkeypatch: pytest.MonkeyPatch, drawn: Path, tmp_path: Path
) -> None:
    """Neither its jobs nor its logs; the command says which token is missing, and starts nothing."""
    for path in ("/api/jobs/", "/api/version", "/api/v0/actors", "/api/cluster_status"):
        assert requests.get(f"{environment.url}{path}", timeout=30).status_code == 401
    wrong = {"Authorization": "Bearer 0"}
    assert requests.get(f"{environment.url}/api/jobs/", headers=wrong, timeout=30).status_code == 403

    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    submission = ("submit", "--data", str(drawn), "--name", "first", "--storage", str(tmp_path), *SHORT, "-y")
    assert "refuses the token, or there is none" in twinhead(*submission, code=2).stderr

    (tmp_path / "none").write_text("f" * 64)
    assert "refuses the token, or there is none" in twinhead(*submission, code=2).stderr
    assert not (tmp_path / "first").exists()


def test_an_open_cluster_is_refused(
    twinhead: Command, monkeypatch: pytest.MonkeyPatch, drawn: Path, tmp_path: Path
) -> None:
    """Anyone who reaches it can run code there, and the token is not sent to it."""
    directory = Path(tempfile.mkdtemp(prefix="tw", dir="/tmp"))
    try:
        with ray_cluster(directory / "o", mode="disabled", cpus=1) as opened:
            monkeypatch.setenv("RAY_ADDRESS", opened.url)
            submission = ("submit", "--data", str(drawn), "--name", "first", "--storage", str(tmp_path), *SHORT, "-y")
            refused = twinhead(*submission, code=2).stderr
            assert f"The cluster at '{opened.url}' answers without a token" in refused
            assert not (tmp_path / "first").exists()

            assert "as job twinhead-first-" in twinhead(*submission, "--insecure", "--follow").stdout
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_an_autoscaler_may_start_the_workers(
    twinhead: Command, monkeypatch: pytest.MonkeyPatch, drawn: Path, tmp_path: Path
) -> None:
    """A search is submitted to a head without room for a trial; a node starts for it."""
    directory = Path(tempfile.mkdtemp(prefix="tw", dir="/tmp"))
    try:
        with ray_cluster(directory / "a", cpus=0, startable={"CPU": 1, "object_store_memory": 100_000_000}) as scaling:
            for name, value in scaling.environment().items():
                monkeypatch.setenv(name, value)
            submission = ("submit", "--data", str(drawn), "--name", "first", "--storage", str(tmp_path), *SHORT, "-y")
            assert "the search fails unless an autoscaler may start nodes" in twinhead(*submission).stderr
            assert "trial 1" in twinhead("logs", "first", "--follow", "--storage", str(tmp_path)).stdout
            assert len(api(scaling, "/api/v0/nodes")["data"]["result"]["result"]) == 2
    finally:
        shutil.rmtree(directory, ignore_errors=True)
