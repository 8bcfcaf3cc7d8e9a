"""Files and directories appear complete or not at all, and a failed write leaves nothing."""

from __future__ import annotations

import errno
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data.atomic import ABANDONED_SECONDS, replace_file, replacing
from data.dataset.partial import unwritable
from data.errors import DiskError


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_replacing_a_file_is_atomic(tmp_path: Path) -> None:
    """Whoever opens it meanwhile reads the old content; parents are made."""
    path = tmp_path / "deep" / "file.json"
    replace_file(path, "old")
    with replacing(path) as beside:
        beside.write_text("ne")
        assert path.read_text() == "old"
        beside.write_text("new")

    assert path.read_text() == "new"
    assert names(path.parent) == ["file.json"]


def test_a_file_keeps_its_permissions(tmp_path: Path) -> None:
    """One with a password stays its owner's alone, also while it is written."""
    path = tmp_path / "secret"
    replace_file(path, "old", mode=0o600)
    replace_file(path, b"new")

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"


def test_the_umask_does_not_narrow_the_permissions_of_a_replaced_file(tmp_path: Path) -> None:
    """A file that a group shares stays writable for it, whoever replaces it."""
    path = tmp_path / "shared"
    path.write_text("old")
    path.chmod(0o664)
    before = os.umask(0o022)
    try:
        replace_file(path, "new")
        replace_file(tmp_path / "created", "new")
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o664
    assert stat.S_IMODE((tmp_path / "created").stat().st_mode) == 0o644


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("no"), SystemExit()])
def test_failed_write_keeps_the_old_content(tmp_path: Path, error: BaseException) -> None:
    """Half of a new one helps nobody; a full disk is named as such."""
    path = tmp_path / "file"
    with replacing(path) as partial:
        partial.write_text("old")
    expected = DiskError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected), replacing(path) as partial:
        partial.write_text("new")
        raise error

    assert names(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_the_file_of_a_killed_writer_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """Full disk: an export has hundreds of megabytes. The file of a living writer, and of another name, is kept."""
    path = tmp_path / "file[1]"
    kept = [".file[1].partial-0000000b", ".file1.partial-0000000a", ".file[1].partial-download"]
    for name in (".file[1].partial-0000000a", *kept):
        (tmp_path / name).write_text("half")
        if name != kept[0]:
            os.utime(tmp_path / name, (0, time.time() - ABANDONED_SECONDS - 60))
    replace_file(path, "new")

    assert names(tmp_path) == sorted([path.name, *kept])
    assert path.read_text() == "new"


def test_two_writers_in_one_process_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    """Threads: the first one to end took the file of the other one, which failed."""
    path = tmp_path / "file"
    with ThreadPoolExecutor(1) as other, replacing(path) as partial:
        partial.write_text("first")
        other.submit(replace_file, path, "second").result()

    assert path.read_text() == "first"
    assert names(tmp_path) == ["file"]


def test_a_link_is_followed(tmp_path: Path) -> None:
    """The file that a link names has the new content, also where it did not exist."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/file")
    for text in ("created", "replaced"):
        replace_file(tmp_path / "link", text)

        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == text
    assert names(tmp_path / "there") == ["file"]


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """`--csv /dev/stdout`, and `--csv >(gzip > trials.csv.gz)` in bash: replacing the name would lose the output."""
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY)
    try:
        for path in (fifo, Path(f"/dev/fd/{writing}")):
            replace_file(path, "content", mode=0o600)
            assert os.read(reader, 100) == b"content"
            assert unwritable(path) is None
    finally:
        os.close(writing)
        os.close(reader)

    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert names(tmp_path) == ["pipe"]
