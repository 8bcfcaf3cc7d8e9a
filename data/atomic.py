"""Files and directories that appear whole or not at all: written beside their place, then renamed.

replace_file(path, text)                    a text, or bytes
with replacing(path) as beside: ...         a file or a directory that the block makes at `beside`
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from data.disk import disk_error


def partial_path(path: Path) -> Path:
    """Where this process writes what is to appear at `path`: hidden, beside it, on the same file system."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True, fresh: bool = False) -> Iterator[Path]:
    """Yield a path beside `path`; the file or directory that the block makes there then takes the place of `path`.

    Where the block or the file system fails, nothing is left beside, and `path` is as it was.

    Args:
        path: a file or a directory, there or not; its parents are made.
        durable: whether the bytes are on the disk before the name changes, so that a loss of power leaves the old or
            the new content; it takes some milliseconds a file.
        fresh: whether a directory that is not empty may not be replaced; then the rename fails.

    Raises:
        DiskError: if the file system is full or has another fault of its own.
        OSError: if it refuses for another reason, such as missing rights.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # of a dead process with the same number
        yield partial
        if durable:
            _sync(partial)
        if partial.is_dir() and path.is_dir() and not fresh:
            _exchange(partial, path)
        else:
            partial.replace(path)
    except OSError as error:
        if error.filename == os.fspath(partial):
            error.filename = os.fspath(path)  # nobody knows the other name
        raise disk_error(error, path) or error  # noqa: B904 - the same error, or the sentence for it
    finally:
        _remove(partial)


def replace_file(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a whole file, text as UTF-8; whoever reads `path` sees the old content or the new one.

    Args:
        path: the file; its parents are made.
        content: what it is to hold.
        mode: its permissions; those of the file it replaces, or the usual ones, when left out.

    Raises:
        DiskError: if the file system is full or has another fault of its own.
        OSError: if it refuses for another reason.
    """
    with replacing(path) as partial:
        if mode is None and path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        partial.touch(mode=0o666 if mode is None else mode)  # before the content: it may hold a password
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _exchange(partial: Path, path: Path) -> None:
    """No directory can be renamed to one that is not empty: the old one is moved aside, and removed at the end."""
    old = path.with_name(f"{partial.name}.old")
    _remove(old)
    path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        old.rename(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
