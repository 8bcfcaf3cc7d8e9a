"""Write a directory atomically: fill a temporary directory beside the destination, then rename it.

    with partial_directory(destination) as path:
        ...                       # fill `path`
        path.rename(destination)

`path` is `.NAME.partial-TOKEN/NAME`. The writer holds a lock (flock) on a file beside it. The kernel releases the lock
when the process ends for any reason, so the next writer into the same parent directory can recognise and remove
abandoned directories. It puts the old directory back where one was killed between the renames of `replace_directory`.

On a network file system, flock works between hosts (NFS since Linux 2.6.12), fails, or works on one host only (NFS
mount options nolock and local_lock). Because of the last case, the lock file names the host, and only that host removes
the directory. If flock fails, nothing is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from data.atomic import is_device, sync_file

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_NAME = "lock"
MAGIC = "twinhead"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Identical in all containers of a machine until the next boot."""
_NAME = re.compile(r"\..+\.partial-[0-9a-f]{8}")


@contextlib.contextmanager
def partial_directory(destination: Path) -> Iterator[Path]:
    """Yield an empty directory that the caller fills and renames to `destination`; otherwise it is removed at the end.

    Abandoned directories of killed writers in the same parent are removed first.

    Args:
        destination: missing parents are created.

    Raises:
        OSError: if the directory cannot be created.
    """
    remove_abandoned(destination.parent)
    work, lock = _claim(destination)
    try:
        path = work / destination.name
        path.mkdir()
        yield path
    finally:
        _remove(work)
        os.close(lock)


def replace_directory(path: Path, destination: Path) -> None:
    """Rename the `path` of a partial directory to `destination`.

    A directory that is there is removed with the partial directory. The files are on the disk before the name changes,
    so that a power loss leaves the old or the new content.

    Raises:
        OSError: if the file system refuses; the end of `partial_directory` puts the old directory back.
    """
    for file in path.rglob("*"):
        if file.is_file():
            sync_file(file)
    if destination.exists():
        destination.rename(_old(path.parent))
    path.rename(destination)


def remove_abandoned(parent: Path) -> None:
    """Remove the partial directories in `parent` whose writers were killed."""
    for work in parent.glob(".*.partial-*"):
        if _NAME.fullmatch(work.name) and work.is_dir() and not work.is_symlink():
            with contextlib.suppress(OSError):
                _remove_if_abandoned(work)


def nearest_parent(path: Path) -> Path:
    """The nearest existing parent of a path."""
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))


def unwritable(path: Path) -> OSError | None:
    """Check whether `path` can be created or replaced, by a file beside it, or its target, that is removed at once.

    Returns:
        None if it can, or is a device or pipe; else an error with the nearest existing parent as its file name.
    """
    if is_device(path):
        return None
    parent = nearest_parent(Path(os.path.realpath(path)))
    try:
        with tempfile.TemporaryFile(dir=parent):
            return None
    except OSError as error:
        return OSError(error.errno, error.strerror, str(parent))


def _claim(destination: Path) -> tuple[Path, int]:
    """Create and lock a working directory.

    Returns:
        Its path, and the file descriptor that holds the lock.
    """
    while True:
        work = destination.with_name(f".{destination.name}.partial-{secrets.token_hex(4)}")
        work.mkdir(parents=True)
        lock = None
        try:
            lock = os.open(work / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            if _is_locked(lock, work / LOCK_NAME):
                os.write(lock, _owner().encode())
                return work, lock
        except FileNotFoundError:  # another process removed the empty directory as abandoned
            continue
        except OSError:  # such as a full disk
            _remove(work)
            raise
        os.close(lock)


def _is_locked(lock: int, path: Path) -> bool:
    """Lock the file at `path`; False if another process is removing it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing is removed there
        return True
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _remove_if_abandoned(work: Path) -> None:
    try:
        lock = os.open(work / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        work.rmdir()  # fails if it is not empty: then it is not a partial directory
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = os.read(lock, 1000).decode(errors="replace")
        if not owner:  # the writer was killed before it wrote anything else
            (work / LOCK_NAME).unlink()
            work.rmdir()
        elif _is_from_here(owner):
            _remove(work)
    finally:
        os.close(lock)


def _destination(work: Path) -> Path:
    return work.with_name(work.name[1:].rpartition(".partial-")[0])


def _old(work: Path) -> Path:
    """Where `replace_directory` moves what is at the destination; never the name of the destination."""
    return work / f"{_destination(work).name}.old"


def _remove(work: Path) -> None:
    """Put the old directory back if nothing replaced it, and remove the rest.

    The lock file is removed last, so that the next process can continue an interrupted removal.
    """
    if _old(work).exists() and not os.path.lexists(_destination(work)):
        _old(work).rename(_destination(work))
    for path in work.glob("*"):
        if path.name != LOCK_NAME:
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        (work / LOCK_NAME).unlink(missing_ok=True)
        work.rmdir()


def _owner() -> str:
    """Content of the lock file: three lines that identify the host."""
    return f"{MAGIC}\n{socket.gethostname()}\n{_boot_id()}\n"


def _is_from_here(owner: str) -> bool:
    """Whether the lock file was written on this host, also before its last boot."""
    lines = owner.splitlines()
    if len(lines) != 3 or lines[0] != MAGIC:
        return False
    return lines[1] == socket.gethostname() or (lines[2] != "" and lines[2] == _boot_id())


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
