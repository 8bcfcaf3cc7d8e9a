"""Directories that are written beside their destination: leftovers of a failed writer are removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data.dataset.partial import LOCK_NAME, partial_directory, remove_abandoned, replace_directory

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys, time
from pathlib import Path
from data.dataset.partial import partial_directory
with partial_directory(Path(sys.argv[1])) as path:
    (path / "half").write_text("a half")
    print("writing", flush=True)
    time.sleep(600)
"""


@contextmanager
def writing(destination: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes without end; it is killed at the end, as by kill -9."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(destination)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()


def abandoned(destination: Path) -> Path:
    """What a killed process left."""
    with writing(destination):
        pass
    (work,) = destination.parent.glob(f".{destination.name}.partial-*")
    assert (work / destination.name / "half").read_text() == "a half"
    return work


def write(destination: Path) -> None:
    with partial_directory(destination) as path:
        (path / "whole").write_text("whole")
        path.rename(destination)


def test_directory_appears_complete_without_leftovers(tmp_path: Path) -> None:
    """Neither the lock file nor the directory that holds it."""
    write(tmp_path / "deep" / "set")

    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "set", "whole"]


@pytest.mark.parametrize("destination", ["best", "old"])
def test_directory_is_replaced_atomically(tmp_path: Path, destination: str) -> None:
    """Nothing of the old one stays in it, and nothing beside it, whatever its name."""
    place = tmp_path / destination
    for name in ("old", "new"):
        with partial_directory(place) as path:
            (path / name).write_text(name)
            replace_directory(path, place)

    assert [path.name for path in place.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == [destination]


def test_a_directory_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old network is better than none."""
    place = tmp_path / "best"
    (place / "sub").mkdir(parents=True)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.parent.name.startswith(".best.partial-") and path.name == "best":
            raise OSError("refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="refused"), partial_directory(place) as path:
        replace_directory(path, place)

    assert [path.name for path in place.iterdir()] == ["sub"]
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


REPLACING = """
import os, signal, sys
from pathlib import Path
from data.dataset.partial import partial_directory, replace_directory
def killed(path, target, rename=Path.rename):
    rename(path, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = killed
with partial_directory(Path(sys.argv[1])) as path:
    replace_directory(path, Path(sys.argv[1]))
"""


def test_the_old_directory_comes_back_after_a_kill_between_the_renames(tmp_path: Path) -> None:
    """Lost network: the next writer removed the old export, which was the only whole one."""
    (tmp_path / "best" / "whole").mkdir(parents=True)
    subprocess.run([sys.executable, "-c", REPLACING, str(tmp_path / "best")], cwd=ROOT, check=False)
    assert not (tmp_path / "best").exists()

    write(tmp_path / "another")

    assert (tmp_path / "best" / "whole").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "best"]


@pytest.mark.parametrize("name", ["set", "another"])
def test_leftovers_of_a_killed_process_are_removed_by_the_next_writer(tmp_path: Path, name: str) -> None:
    """Whatever is written there next, and whatever number the killed process had."""
    abandoned(tmp_path / "set")

    write(tmp_path / name)

    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_partial_directory_of_a_living_process_is_kept(tmp_path: Path) -> None:
    """Two imports into one directory at a time."""
    with writing(tmp_path / "set"):
        write(tmp_path / "another")

        assert [path.read_text() for path in tmp_path.glob(".set.partial-*/set/half")] == ["a half"]


def test_partial_directory_from_before_the_boot_is_removed(tmp_path: Path) -> None:
    """A power failure ends all processes, too."""
    work = abandoned(tmp_path / "set")
    lock = work / LOCK_NAME
    magic, host, _ = lock.read_text().splitlines()
    lock.write_text(f"{magic}\n{host}\nbefore\n")

    remove_abandoned(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_partial_directory_of_another_host_is_kept(tmp_path: Path) -> None:
    """On a shared folder that keeps each host's locks to itself, its lock looks free."""
    work = abandoned(tmp_path / "set")
    lock = work / LOCK_NAME
    lock.write_text(f"{lock.read_text().splitlines()[0]}\nanother-host\nanother-boot\n")

    remove_abandoned(tmp_path)

    assert (work / "set" / "half").exists()


def test_interrupted_removal_is_completed(tmp_path: Path) -> None:
    """The lock file goes last, and then the directory, which may be left empty."""
    work = abandoned(tmp_path / "set")
    (work / "set" / "half").unlink()
    empty = tmp_path / ".set.partial-00000000"
    empty.mkdir()
    (tmp_path / ".set.partial-00000001").mkdir()
    (tmp_path / ".set.partial-00000001" / LOCK_NAME).touch()

    remove_abandoned(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_directories_of_other_programs_are_kept(tmp_path: Path) -> None:
    """A hidden directory of a similar name is not ours to remove."""
    for name, file in ((".a.partial-download", "a"), (".a.partial-0123abcd", "a"), (".b.partial-0123abcd", LOCK_NAME)):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("of another program")
    kept = sorted(tmp_path.rglob("*"))

    remove_abandoned(tmp_path)

    assert sorted(tmp_path.rglob("*")) == kept


def test_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C, a full disk, a bug."""
    with pytest.raises(KeyboardInterrupt), partial_directory(tmp_path / "set") as path:
        (path / "half").touch()
        raise KeyboardInterrupt

    assert list(tmp_path.iterdir()) == []
