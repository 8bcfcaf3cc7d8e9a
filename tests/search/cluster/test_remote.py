"""States and logs of searches in a remote storage, seen from a machine that has nothing of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.dataset.storage import Location
from search.cluster.logs import STILL_RUNNING, driver_log, trial_log
from search.cluster.status import list_searches, search_status
from search.signals import InterruptedSearchError
from search.spec.spec import load_spec
from search.study import running as driving
from search.study.experiment import Experiment
from search.study.running import running
from search.study.study import open_study
from search.terminal import append_line
from tests.s3 import Store, failing_store

SOON = 60.0
"""Seconds after which something does not happen any more."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket, and a driver that looks for changes often."""
    monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "driver"))
    monkeypatch.setattr(driving, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(driving, "CLAIM_SECONDS", 0.01)
    monkeypatch.setattr(driving, "CURVES_SECONDS", 0.1)
    with failing_store() as started:
        yield started


@pytest.mark.slow
def test_a_remote_search_is_watched_from_another_machine(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it runs and afterwards, with no cluster; what is read again is read anew."""
    storage = Location.of_storage(store.address())
    driver = Experiment(storage=storage, name="first")
    driver.create(load_spec(data_path="set"))
    seen = Experiment(storage=storage, name="first")
    with pytest.raises(InterruptedSearchError), running(driver, lambda _: None):
        study = open_study(driver)
        driver.logs.mkdir()
        monkeypatch.setenv("TWINHEAD_CACHE", str(tmp_path / "elsewhere"))
        assert search_status(seen, None).state == "running"
        log = driver_log(seen, None, None)
        assert log.exit_code() == STILL_RUNNING

        for number in (0, 1):
            study.ask()
            append_line(driver.driver_log, f"trial {number}: score 0.5")
            append_line(driver.trial_log(number), f"epoch 1 of {number}")
            end = time.monotonic() + SOON
            while f"trial {number}: score" not in log.read() or search_status(seen, None).trials["running"] <= number:
                assert time.monotonic() < end
                time.sleep(0.1)
        raise InterruptedSearchError

    (found,) = list_searches(storage, None)
    assert (found.name, found.state, found.trials["interrupted"]) == ("first", "stopped", 2)
    assert found.command == f"twinhead search --resume first --storage '{storage}'"
    assert "epoch 1 of 1\n" in trial_log(seen, 1, None).read()
