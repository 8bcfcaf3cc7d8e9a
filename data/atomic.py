"""Write files and directories atomically: under a temporary name in the same directory, then rename.

replace_file(path, content)              text or bytes
with replacing(path) as partial: ...     a file or a directory that the block creates at `partial`
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
    """The hidden temporary path of this process for `path`, in the same directory."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}")


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True, fresh: bool = False) -> Iterator[Path]:
    """Yield a temporary path; the file or directory that the block creates there then replaces `path`.

    If the block or the file system fails, the temporary path is removed and `path` is unchanged.

    Args:
        path: a file or a directory, which need not exist; missing parents are created.
        durable: whether to sync the content before the rename, so that a power loss leaves the old or the new content.
            Takes some milliseconds per file.
        fresh: whether to fail if `path` is a non-empty directory, instead of replacing it.

    Raises:
        DiskError: if the file system is full or has another fault.
        OSError: for any other reason, such as missing permissions.
    """
    partial = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # of a dead process with the same id
        yield partial
        if durable:
            _sync(partial)
        if partial.is_dir() and path.is_dir() and not fresh:
            _exchange(partial, path)
        else:
            partial.replace(path)
    except OSError as error:
        if error.filename == os.fspath(partial):
            error.filename = os.fspath(path)  # the user does not know the temporary name
        raise disk_error(error, path) or error  # noqa: B904 - the same error, or its user-facing form
    finally:
        _remove(partial)


def replace_file(path: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file atomically, text as UTF-8; readers see the old or the new content.

    Args:
        path: the file; missing parents are created.
        content: the whole content.
        mode: permissions; by default those of the replaced file, or those of a new file.

    Raises:
        DiskError: if the file system is full or has another fault.
        OSError: for any other reason.
    """
    with replacing(path) as partial:
        if mode is None and path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
        partial.touch(mode=0o666 if mode is None else mode)  # before the content, which may be secret
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())


def _exchange(partial: Path, path: Path) -> None:
    """Replace a directory. The target of a rename must be empty, so the old directory is moved away first."""
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
