"""The driver of an experiment on a disk: one at a time, and its heartbeat says how it is and how it ended."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import InputError
from search.signals import InterruptedSearchError
from search.spec.spec import load_spec
from search.study import running as driving
from search.study.experiment import Experiment
from search.study.heartbeat import Heartbeat
from search.study.running import running


def created(storage: Path) -> Experiment:
    experiment = Experiment(storage=storage, name="first")
    experiment.create(load_spec(data_path="set"))
    return experiment


def state(experiment: Experiment) -> tuple[str, str]:
    beat = Heartbeat.read(experiment)
    assert beat is not None
    return beat.state, beat.reason


def beat_time(experiment: Experiment) -> float:
    beat = Heartbeat.read(experiment)
    assert beat is not None
    return beat.written


def test_it_is_running_until_it_ends(tmp_path: Path) -> None:
    """Nothing else is written to a storage on a disk."""
    experiment = created(tmp_path)
    with running(experiment, lambda _: None):
        assert state(experiment) == ("running", "")
        with pytest.raises(InputError, match="is running in another process"), running(experiment, lambda _: None):
            pass

    assert state(experiment) == ("ended", "")
    assert sorted(path.name for path in experiment.root.iterdir()) == [".lock", "heartbeat.json", "spec.yaml"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InterruptedSearchError(), ("interrupted", "")),
        (KeyboardInterrupt(), ("interrupted", "")),
        (InputError("The disk is gone."), ("failed", "The disk is gone.")),
    ],
)
def test_how_it_ended_is_kept(tmp_path: Path, error: BaseException, expected: tuple[str, str]) -> None:
    """A search that was stopped is not taken for one that failed."""
    experiment = created(tmp_path)
    with pytest.raises(type(error)), running(experiment, lambda _: None):
        raise error

    assert state(experiment) == expected


def test_a_removed_experiment_does_not_come_back(tmp_path: Path) -> None:
    """One that fails before its first trial is removed, and its name is free."""
    experiment = created(tmp_path)
    with running(experiment, lambda _: None):
        experiment.remove()
        with pytest.raises(FileNotFoundError):
            Heartbeat.of_this_process().write(experiment)

    assert not experiment.root.exists()


def test_a_storage_that_is_away_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory in its place would hide the one that is mounted there later."""
    monkeypatch.setattr(driving, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(driving, "BEAT_SECONDS", 0.02)
    experiment = created(tmp_path / "storage")
    with running(experiment, lambda _: None):
        experiment.root.rename(tmp_path / "away")
        (tmp_path / "storage").rmdir()
        driving.time.sleep(0.2)
        assert not (tmp_path / "storage").exists()
        (tmp_path / "storage").mkdir()
        (tmp_path / "away").rename(experiment.root)

    assert state(experiment) == ("ended", "")


def test_the_heartbeat_does_not_wait_for_a_publication(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that publishes much for a minute would be shown as lost, and a second driver could start."""
    publishing, ended = threading.Event(), threading.Event()

    def publish(_: object) -> None:
        publishing.set()
        ended.wait(60)

    monkeypatch.setattr(driving, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(driving, "BEAT_SECONDS", 0.02)
    experiment = created(tmp_path)
    with running(experiment, lambda _: None):
        monkeypatch.setattr(driving._Publisher, "_publish", publish)
        assert publishing.wait(60)
        before = beat_time(experiment)
        try:
            while beat_time(experiment) == before:
                time.sleep(0.01)
        finally:
            ended.set()


def test_the_time_of_a_lost_run_is_known_to_the_next(tmp_path: Path) -> None:
    """Its driver could not store it; one that ended did."""
    experiment = created(tmp_path)
    now = time.time()
    first = replace(Heartbeat.of_this_process(), host="another", started=now - 500, written=now - 100)
    first.write(experiment)
    with running(experiment, lambda _: None) as run_time:
        assert run_time.lost == pytest.approx(400)
        last = Heartbeat.read(experiment)
        assert last is not None
    with running(experiment, lambda _: None) as run_time:
        assert run_time.lost == 0
    replace(last, host="another", written=now - 100).write(experiment)  # it was killed before it stored them
    with running(experiment, lambda _: None) as run_time:
        assert run_time.lost == pytest.approx(400 - 100, abs=5)


def test_the_time_of_a_run_that_was_just_lost_is_known_to_the_next(tmp_path: Path) -> None:
    """A container that is started again within a minute finds a fresh heartbeat of a process that it cannot see."""
    experiment, now = created(tmp_path), time.time()
    killed = replace(Heartbeat.of_this_process(), processes="pid:[1]", started=now - 405, written=now - 5)
    killed.write(experiment)
    with running(experiment, lambda _: None) as run_time:
        assert run_time.lost == pytest.approx(400)


@pytest.mark.parametrize(("is_stored", "lost"), [(False, 400), (True, 0)])
def test_the_time_of_a_failed_run_is_known_to_the_next(tmp_path: Path, is_stored: bool, lost: float) -> None:
    """Unless it was stored; a failure before the first trial stores nothing."""
    experiment = created(tmp_path)
    now = time.time()
    replace(Heartbeat.of_this_process(), host="another", started=now - 500, written=now - 100).write(experiment)
    with pytest.raises(InputError), running(experiment, lambda _: None) as run_time:
        run_time.is_stored = is_stored
        raise InputError("The cluster has no room.")
    with running(experiment, lambda _: None) as run_time:
        assert run_time.lost == pytest.approx(lost, abs=5)
