"""What all calls of the Python API share."""

from __future__ import annotations

import errno
import signal
from pathlib import Path

import pytest

from data.dataset.storage import Location
from data.errors import DiskError, InputError
from search.api.session import interruptible, load_given, pairs_of, prepare, screen_of, storage_of
from search.signals import InterruptedSearchError
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from trainable.plugins.active import active_records


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    return experiment


def test_an_interruption_is_one_of_the_program(experiment: Experiment) -> None:
    """A notebook shows it as it shows every stopped cell, with what continues; no call exits the program."""
    with (
        pytest.raises(KeyboardInterrupt, match="continue with: twinhead search --resume first"),
        interruptible(experiment),
    ):
        raise InterruptedSearchError


def test_the_signal_handlers_of_the_program_stay(experiment: Experiment) -> None:
    """Ray sets its own when it starts, which would exit a notebook that gets SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)
    with interruptible(experiment):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    assert signal.getsignal(signal.SIGTERM) == before


def test_a_full_disk_is_named(experiment: Experiment) -> None:
    """In place of the error of whatever wrote to it."""
    full = OSError(errno.ENOSPC, "No space left on device", str(experiment.root / "file"))
    with pytest.raises(DiskError, match="full"), interruptible(experiment):
        raise RuntimeError("a task failed") from full


def test_other_errors_stay_as_they_are(experiment: Experiment) -> None:
    """A program that catches InputError gets it."""
    with pytest.raises(InputError, match="wrong"), interruptible(experiment):
        raise InputError("wrong")


def test_a_storage_is_a_path_or_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As --storage, with the same default."""
    monkeypatch.setenv("TWINHEAD_STORAGE", str(tmp_path))
    assert storage_of(None) == tmp_path
    assert storage_of("searches") == storage_of(Path("searches")) == Path("searches")
    assert isinstance(storage_of("s3://bucket/searches"), Location)


def test_settings_are_those_of_the_command_line() -> None:
    """Values of Python as YAML has them."""
    pairs = pairs_of({"budget.trials": 3, "model.family": "debug", "search.study": None, "retrain.enabled": False})
    spec = load_spec(overrides=pairs, data_path="set")

    assert (spec.plan.budget.trials, spec.space["model.family"]) == (3, "debug")
    assert (spec.plan.search.study, spec.plan.retrain.enabled) == (None, False)
    assert pairs_of(None) == []


def test_progress_is_plain_in_a_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar would stay in the output of the cell as a widget; without progress, there is none."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with screen_of(True).bar("searching", 2, "trials") as move:
        move(1, "")
    screen_of(True).say("a line")
    screen_of(False).say("another")

    assert capsys.readouterr() == ("", "a line\n")


@pytest.mark.slow
def test_a_call_without_plugins_has_none(own_plugin: Path) -> None:
    """Those of an earlier call in the program are not those of this one."""
    assert [source.file for source in load_given([own_plugin])] == ["own.py"]
    assert load_given([]) == ()
    assert active_records() == []


def test_ray_must_not_be_imported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be refused by its own cluster, after 20 seconds and with another reason."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(InputError, match="import ray after the first use of a name of twinhead"):
        prepare()
