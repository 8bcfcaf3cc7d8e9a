"""Faults of a file system give one sentence: its mount point, its free space, and what to do."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.atomic import replace_file, replacing
from data.disk import disk_error
from data.errors import DiskError, UnfinishedError


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_file_system_is_named(small: Path) -> None:
    """Its mount point says which disk is meant, however deep the file lies; it is no input of the user's."""
    with pytest.raises(DiskError) as caught:
        replace_file(small / "deep" / "file", bytes(2 * 2**20))

    said = str(caught.value)
    assert isinstance(caught.value, UnfinishedError)
    assert said.startswith(f"The file system of '{small}' is full (")
    assert f"free), so '{small / 'deep' / 'file'}' cannot be written; make room there" in said
    assert [path.name for path in small.rglob("*")] == ["deep"]


def test_a_read_only_file_system_is_named(small: Path) -> None:
    """As a disk with errors becomes while a search runs."""
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    sentence = rf"of '{small}' is read-only .*, so '{small / 'file'}' cannot be written; have it mounted for writing"
    with pytest.raises(DiskError, match=sentence):
        replace_file(small / "file", "text")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_fault_is_found_behind_other_errors(tmp_path: Path, number: int) -> None:
    """Ray, Arrow and Optuna raise errors of their own; some pass on the text alone."""
    failed = RuntimeError("the trial failed")
    failed.__cause__ = OSError(number, os.strerror(number), str(tmp_path / "file"))
    found = disk_error(failed)
    in_text = disk_error(RuntimeError(f"I/O error: {os.strerror(number)} (os error {number})"), tmp_path / "file")

    assert found is not None
    assert in_text is not None
    assert f"'{tmp_path / 'file'}' cannot be" in str(found)
    assert str(found) == str(in_text)


def test_other_errors_are_not_disk_errors() -> None:
    """They are handled as before."""
    assert disk_error(None) is None
    assert disk_error(FileNotFoundError(errno.ENOENT, "No such file", "x"), "x") is None
    assert disk_error(ValueError("no")) is None


def test_full_file_system_among_several_is_named(small: Path, tmp_path: Path) -> None:
    """An error that names no file may be of the storage, of the cache, or of the temporary directory."""
    (small / "fill").write_bytes(bytes(2**20))
    found = disk_error(OSError(errno.ENOSPC, "No space left on device"), tmp_path, small)

    assert found is not None
    assert f"'{small}' is full (0 bytes free)" in str(found)


def test_error_while_copying_names_the_destination(small: Path, tmp_path: Path) -> None:
    """The error names both; the one that is read lies on a disk with room."""
    source = tmp_path / "source"
    source.write_bytes(bytes(2 * 2**20))
    with pytest.raises(DiskError, match=rf"of '{small}' is full"), replacing(small / "copy") as beside:
        shutil.copy2(source, beside)


def test_message_survives_pickling() -> None:
    """It is raised in a trial, and shown by the command."""
    error = DiskError("It is full", "make room").followed_by("go on")
    assert str(pickle.loads(pickle.dumps(error))) == "It is full; make room, then go on."  # noqa: S301
