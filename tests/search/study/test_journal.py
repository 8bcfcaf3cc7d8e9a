"""The journal loses only the record that was being written: incomplete ends, full disks, damage, other names."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage

from data.errors import DiskError, InputError
from search.spec.spec import load_spec
from search.study.damage import LOST_REASON
from search.study.experiment import Experiment
from search.study.journal import Journal
from search.study.study import OWNER, open_study
from search.study.trials import TrialRecord, note_epoch, note_start
from trainable.report import TrialReport

Command = Callable[..., Any]
TRIALS = 4


@pytest.fixture
def searched(tmp_path: Path) -> Experiment:
    """A search with four finished trials of one epoch each, the last of which was the best."""
    experiment = Experiment(storage=tmp_path / "storage", name="first")
    experiment.create(load_spec(data_path="set"))
    study = open_study(experiment)
    for number in range(TRIALS):
        add_trial(study, number)
    return experiment


def add_trial(study: optuna.Study, number: int) -> None:
    """Add a trial as a search does; every value contains its number."""
    trial = study.ask({"x": FloatDistribution(0, 100)})
    note_start(trial, {"number": number})
    trial.report(number / 10, 1)
    note_epoch(trial, TrialReport(epoch=1, metrics={"score": number / 10}, outcome="trained"))
    study.tell(trial, number / 10)


def numbers(experiment: Experiment) -> list[int | None]:
    """Which trials there are, by what is known of each; None for one that is not known any more."""
    records = [TrialRecord.of(trial) for trial in open_study(experiment).trials]
    return [record.config["number"] if record.config else None for record in records]


def lines_of(experiment: Experiment) -> list[bytes]:
    return experiment.study_file.read_bytes().splitlines(keepends=True)


def line_of(experiment: Experiment, operation: int, nth: int = 0) -> int:
    """The index of the nth record of an operation."""
    found = [at for at, line in enumerate(lines_of(experiment)) if f'"op_code":{operation},'.encode() in line]
    return found[nth]


def damage(experiment: Experiment, at: int, line: bytes = b"\0\0damaged\0\n") -> None:
    lines = lines_of(experiment)
    lines[at] = line
    experiment.study_file.write_bytes(b"".join(lines))


@pytest.mark.parametrize("tail", [b'{"op_code":8,"worker_id":"a","tri', b"\0" * 40, b"\0\0\0\n", b'{"op_code":4}\n'])
def test_incomplete_last_record_is_removed_before_the_next(
    searched: Experiment, capsys: pytest.CaptureFixture[str], tail: bytes
) -> None:
    """A full disk, a kill or a loss of power leaves one; later records must not be appended to it."""
    whole = searched.study_file.read_bytes()
    searched.study_file.write_bytes(whole + tail)
    assert numbers(searched) == [0, 1, 2, 3]
    assert searched.study_file.read_bytes() == whole + tail, "who reads alters nothing"
    assert capsys.readouterr().err == ""

    add_trial(open_study(searched), 4)

    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"journal '{searched.study_file}': {len(tail)} bytes, {tail.decode()!r}" in said[0]
    assert numbers(searched) == [0, 1, 2, 3, 4]
    assert searched.study_file.read_bytes().startswith(whole + b'{"op_code":4')


@pytest.mark.parametrize("missing", [1, 25, 60])
def test_truncated_journal_can_be_continued(searched: Experiment, missing: int) -> None:
    """What the last record said is lost, and nothing else."""
    os.truncate(searched.study_file, searched.study_file.stat().st_size - missing)
    add_trial(open_study(searched), 4)

    assert numbers(searched) == [0, 1, 2, 3, 4]
    assert open_study(searched).trials[2].state.is_finished()
    assert not open_study(searched).trials[3].state.is_finished()


def test_record_after_an_incomplete_one_is_read(searched: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    """Earlier versions appended to what a full disk had cut short; such a journal opens again, with all its trials."""
    lines = lines_of(searched)
    torn = line_of(searched, 6, 1)
    lines[torn] = lines[torn][:30] + lines[torn]
    searched.study_file.write_bytes(b"".join(lines))

    assert numbers(searched) == [0, 1, 2, 3]
    assert all(trial.state.is_finished() for trial in open_study(searched).trials)
    add_trial(open_study(searched), 4)
    assert numbers(searched) == [0, 1, 2, 3, 4]
    assert "was rewritten" not in capsys.readouterr().err.partition("is damaged")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "nth"), [(5, 1), (6, 1), (7, 1), (8, 5)], ids=["x", "state", "value", "config"])
def test_damaged_record_loses_only_its_own_content(
    searched: Experiment, capsys: pytest.CaptureFixture[str], operation: int, nth: int
) -> None:
    """All other records keep their trials; the file as it was is kept, and the line is named."""
    at = line_of(searched, operation, nth)
    damage(searched, at)
    damaged = searched.study_file.read_bytes()
    found = numbers(searched)
    said = capsys.readouterr().err

    assert found == [0, None if operation == 8 else 1, 2, 3]
    assert f"'{searched.study_file}' is damaged: line {at + 1} cannot be read and is left out\n" in said
    assert searched.study_file.read_bytes() == damaged, "who reads alters nothing"

    add_trial(open_study(searched), 4)

    kept = searched.study_file.with_name("study.journal.damaged")
    assert kept.read_bytes() == damaged
    assert f"the damaged file is '{kept}'" in capsys.readouterr().err
    assert numbers(searched) == [*found, 4]
    assert capsys.readouterr().err == ""


@pytest.mark.slow
@pytest.mark.parametrize("nth", range(TRIALS))
@pytest.mark.parametrize("line", [b"\0\0damaged\n", b'{"op_code":4,"worker_id":"\n'])
def test_lost_creation_record_does_not_shift_trials(searched: Experiment, nth: int, line: bytes) -> None:
    """Optuna counts creations: without one, every later record would belong to the next trial."""
    damage(searched, line_of(searched, 4, nth), line)
    study = open_study(searched)

    assert numbers(searched) == [0, 1, 2, 3]
    assert [trial.value for trial in study.trials] == [0.0, 0.1, 0.2, 0.3]
    add_trial(study, 4)
    assert numbers(searched) == [0, 1, 2, 3, 4]


def test_lost_creation_record_of_an_unfinished_trial_fails_it(tmp_path: Path) -> None:
    """It waited, and what it was to try is not known any more; the one behind it is still the one it was."""
    experiment = Experiment(storage=tmp_path, name="first")
    experiment.create(load_spec(data_path="set"))
    study = open_study(experiment)
    for number in range(2):
        study.enqueue_trial({"x": float(number)})
    damage(experiment, line_of(experiment, 4, 0), b'{"op_code":4,"study\n')
    first, second = open_study(experiment).trials

    assert first.state == optuna.trial.TrialState.FAIL
    assert first.user_attrs["reason"] == LOST_REASON
    assert second.system_attrs["fixed_params"] == {"x": 1.0}


def test_records_of_uncertain_trials_are_skipped(searched: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    """Two records are lost, and one trial: no one knows between which records it was created."""
    second = line_of(searched, 4, 1)
    lines = lines_of(searched)
    lines[second - 1] = lines[second] = b"damaged\n"
    searched.study_file.write_bytes(b"".join(lines))
    found = numbers(searched)

    assert found == [0]
    after = len(lines) - second - 1
    assert f"and so are the {after} records after, whose trials are uncertain" in capsys.readouterr().err


def test_lost_first_records_lose_no_trial(searched: Experiment) -> None:
    """The first record creates the study; without it Optuna would silently ignore all others."""
    damage(searched, 0)

    assert numbers(searched) == [0, 1, 2, 3]


@contextmanager
def limited_file_size(size: int) -> Iterator[None]:
    """Within it, no file grows beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_midway_leaves_no_part(searched: Experiment) -> None:
    """The kernel takes the bytes that fit, and refuses the others."""
    whole = searched.study_file.read_bytes()
    study = open_study(searched)
    with limited_file_size(len(whole) + 50), pytest.raises(OSError, match="File too large") as caught:
        study.set_user_attr("long", "x" * 1000)

    assert caught.value.errno == errno.EFBIG
    assert searched.study_file.read_bytes() == whole
    study.set_user_attr("long", "y")
    assert open_study(searched).user_attrs["long"] == "y"


def test_a_full_disk_is_named(searched: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the journal's path; nothing is left of the record, whose bytes were written already."""
    whole = searched.study_file.read_bytes()
    journal = Journal(searched.study_file, print)
    storage = JournalStorage(journal)

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("search.study.journal.SYNC_SECONDS", -1)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=f"is full .* so '{searched.study_file}' cannot be written"):
        storage.set_study_user_attr(0, "said", "x")
    assert searched.study_file.read_bytes() == whole


def test_reading_writes_nothing(searched: Experiment) -> None:
    """A search that is looked at may lie on a disk that is full or read-only."""
    before = searched.study_file.read_bytes()
    open_study(searched)

    assert searched.study_file.read_bytes() == before


@pytest.mark.parametrize("how", ["copied", "renamed"])
def test_a_directory_with_another_name_opens(searched: Experiment, how: str) -> None:
    """The study in it has the old name; what is added there is not added to the original."""
    other = Experiment(storage=searched.storage, name="second")
    if how == "copied":
        shutil.copytree(searched.root, other.root)
    else:
        searched.root.rename(other.root)
    assert numbers(other) == [0, 1, 2, 3]
    add_trial(open_study(other), 4)

    assert numbers(other) == [0, 1, 2, 3, 4]
    assert how == "renamed" or numbers(searched) == [0, 1, 2, 3]


def test_empty_study_beside_the_real_one_is_ignored(searched: Experiment) -> None:
    """Earlier versions made one in a directory that had been renamed, so that it looked empty."""
    other = Experiment(storage=searched.storage, name="second")
    searched.root.rename(other.root)
    optuna.create_study(study_name="second", storage=JournalStorage(Journal(other.study_file, print)))

    assert numbers(other) == [0, 1, 2, 3]


def test_journal_with_two_searches_is_refused(searched: Experiment) -> None:
    """Both have trials; the one with the directory's name is meant, and without one a sentence names them."""
    storage = JournalStorage(Journal(searched.study_file, print))
    add_trial(optuna.create_study(study_name="second", storage=storage, direction="maximize"), 7)
    assert numbers(searched) == [0, 1, 2, 3]
    searched.root.rename(searched.storage / "second")
    assert numbers(Experiment(storage=searched.storage, name="second")) == [7]
    (searched.storage / "second").rename(searched.storage / "third")

    with pytest.raises(
        InputError, match=r"has the trials of several searches, 'first', 'second'; rename the directory"
    ):
        open_study(Experiment(storage=searched.storage, name="third"))


@pytest.mark.slow
def test_commands_on_a_copy_name_the_copy(twinhead: Command, experiment: Experiment) -> None:
    """What is printed for typing must not continue the original."""
    shutil.copytree(experiment.root, experiment.storage / "second")
    listed = twinhead("trials", "second", "--storage", experiment.storage)
    learned = twinhead("importance", "second", "--storage", experiment.storage)
    given = twinhead("best", "second", "--trial", "0", "--out", "out", "--storage", experiment.storage)

    assert listed.code == 0
    assert "unfinished       1    0.5" in listed.out
    assert f"twinhead search --resume second --storage {experiment.storage}" in learned.err
    assert (given.code, given.out) == (0, "trial 0 of 'second', epoch 1: out\n")
    assert "first" not in listed.out + learned.err + given.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "version"),
    [(change, "this") for change in ("renamed", "moved", "copied", "copied elsewhere")]
    + [("renamed", "earlier"), ("copied", "earlier")],
)
def test_a_study_in_a_database_has_one_directory(tmp_path: Path, change: str, version: str) -> None:
    """It goes along with a directory that is renamed or moved; a copy does not join it, and says why."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    experiment = Experiment(storage=tmp_path / "storage", name="first")
    experiment.create(load_spec(overrides=[("search.study", url)], data_path="set"))
    if version == "earlier":
        study = optuna.create_study(study_name="first", storage=url, direction="maximize")
        study.set_user_attr(OWNER, experiment.study_id)
        add_trial(study, 0)
    else:
        add_trial(open_study(experiment), 0)
    other = Experiment(
        storage=tmp_path / ("storage" if change in {"renamed", "copied"} else "elsewhere"),
        name="second" if change in {"renamed", "copied"} else "first",
    )
    other.storage.mkdir(exist_ok=True)
    if change in {"renamed", "moved"}:
        experiment.root.rename(other.root)
        assert numbers(other) == [0]
        assert numbers(other) == [0]
        return
    shutil.copytree(experiment.root, other.root)
    with pytest.raises(InputError, match=rf"'{other.name}' in '.*' is a copy of '{experiment.root}', whose trials are"):
        open_study(other)
    assert numbers(experiment) == [0]
