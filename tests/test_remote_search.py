"""A search with its storage on an S3 server, on a cluster that Ray starts: killed, continued elsewhere, and outages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from data.dataset.storage import Location
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.study import open_existing_study
from search.study.trials import TrialRecord, trial_records
from tests.commands import GIVE_UP, started, twinhead
from tests.s3 import Store

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SEARCH = (
    *("--trials", "3", "--set", "data.image_size=32", "--set", "model.family=debug", "--set", "model.width=2"),
    *("--set", "scheduler.max_epochs=12", "--set", "scheduler.grace_epochs=12", "--set", "resources.concurrent=1"),
    *("--set", "retrain.enabled=false", "--json"),
)


def scored(address: str, name: str) -> list[tuple[int, int, list[float]]]:
    """Number, epochs and scores of the trials of a search."""
    return [
        (record.number, record.last_epoch, [epoch.score for epoch in record.epochs]) for record in found(address, name)
    ]


def found(address: str, name: str) -> list[TrialRecord]:
    experiment = Experiment(storage=Location.of_storage(address), name=name)
    return trial_records(open_existing_study(experiment))


def wait_for_epochs(process: subprocess.Popen[str], store: Store, name: str, count: int) -> None:
    """Until so many reports are published."""
    give_up = time.monotonic() + GIVE_UP
    journal = f"runs/{name}/study.journal"
    while not (store.names(journal.removesuffix("/study.journal")) and _reports(store, journal) >= count):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.2)


def _reports(store: Store, journal: str) -> int:
    try:
        return store.read(journal).count(b'"epoch:')
    except FileNotFoundError:
        return 0


def test_a_killed_search_continues_on_another_machine(
    store: Store, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same trials and scores as without the fault, from the storage alone, half a minute without it."""
    runs = store.address("runs")
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "one"))
    twinhead("search", "--data", str(drawn), "--name", "whole", "--storage", runs, *SEARCH)
    with started("search", "--data", str(drawn), "--name", "cut", "--storage", runs, *SEARCH) as process:
        wait_for_epochs(process, store, "cut", 16)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    killed = Heartbeat.read(Experiment(storage=Location.of_storage(runs), name="cut"))
    assert killed is not None
    assert killed.is_lost()
    published = _reports(store, "runs/cut/study.journal")  # several at a time: more than 16

    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "two"))
    with started("search", "--resume", "cut", "--storage", runs, "--json") as process:
        wait_for_epochs(process, store, "cut", published + 1)
        store.faults.refuses = "busy"
        time.sleep(30)
        store.faults.refuses = ""
        out, err = process.communicate(timeout=GIVE_UP)
    assert process.returncode == 0, err
    assert json.loads(out)["complete"]

    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "three"))
    assert scored(runs, "cut") == scored(runs, "whole")
    assert len(found(runs, "cut")) == 3
    best = json.loads(out)["best"]["trial"]
    exported = json.loads(
        twinhead("best", "cut", "--trial", str(best), "--storage", runs, "--out", str(tmp_path / "out"), "--json")
    )
    assert Path(exported["out"]).is_dir()
    for record in found(runs, "cut"):
        files = store.names(f"runs/cut/trials/{record.number:05d}")
        assert not [file for file in files if file.endswith("state.pt")]
    assert not list(Path.cwd().glob("s3*"))
