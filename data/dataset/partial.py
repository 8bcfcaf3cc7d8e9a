"""A directory that is written beside its destination and then renamed: it appears whole, or not at all.

    with partial_directory(destination) as path:
        ...                       # fill `path`
        path.rename(destination)

`path` is `.NAME.partial-TOKEN/NAME`. Beside it lies a lock file that its writer holds locked (flock). The kernel
releases the lock when the process ends, however it ends, so the next writer into the same parent directory can tell a
directory that was abandoned from one that is in use, and removes it.

Assumptions: on a network file system, flock either works between hosts (NFS since Linux 2.6.12), or fails, or holds on
one host only (the NFS mount options nolock and local_lock). Because of the last, a directory is only removed by the
host that wrote it; the lock file names it. Where flock fails, nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK_NAME = "lock"
MAGIC = "twinhead"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""The same in all containers of a machine until it is booted again."""
_NAME = re.compile(r"\..+\.partial-[0-9a-f]{8}")


@contextlib.contextmanager
def partial_directory(destination: Path) -> Iterator[Path]:
    """Make an empty directory to be filled and renamed to `destination`; what is not renamed is removed at the end.

    Directories that killed writers left in the same parent are removed first.

    Args:
        destination: its missing parents are made.

    Raises:
        OSError: if the directory cannot be made.
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


def remove_abandoned(parent: Path) -> None:
    """Remove the partial directories in `parent` whose writers ended without removing them."""
    for work in parent.glob(".*.partial-*"):
        if _NAME.fullmatch(work.name) and work.is_dir() and not work.is_symlink():
            with contextlib.suppress(OSError):
                _remove_if_abandoned(work)


def final_path(path: Path) -> Path:
    """Where a path in a partial directory will be after the renaming: users do not know the other name."""
    for parent in path.parents:
        if _NAME.fullmatch(parent.name):
            return parent.parent / path.relative_to(parent)
    return path


def nearest_parent(path: Path) -> Path:
    """The first of a path's parents, from below, that exists."""
    return next(parent for parent in path.absolute().parents if os.path.lexists(parent))


def unwritable(path: Path) -> OSError | None:
    """Why nothing can be made at `path`, with the parent that does not take it; None if nothing speaks against it."""
    parent = nearest_parent(path)
    number = errno.ENOTDIR if not parent.is_dir() else 0 if os.access(parent, os.W_OK | os.X_OK) else errno.EACCES
    return OSError(number, os.strerror(number), str(parent)) if number else None


def _claim(destination: Path) -> tuple[Path, int]:
    """Make a working directory, and lock it: its path, and the descriptor that holds the lock."""
    while True:
        work = destination.with_name(f".{destination.name}.partial-{secrets.token_hex(4)}")
        work.mkdir(parents=True)
        lock = None
        try:
            lock = os.open(work / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            if _is_locked(lock, work / LOCK_NAME):
                os.write(lock, _owner().encode())
                return work, lock
        except FileNotFoundError:  # another process took the empty directory for an abandoned one
            continue
        except OSError:  # such as a full disk
            _remove(work)
            raise
        os.close(lock)


def _is_locked(lock: int, path: Path) -> bool:
    """Whether the lock file at `path` is ours now; False if another process is removing it."""
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
        work.rmdir()  # only if it is empty: else it is not ours
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = os.read(lock, 1000).decode(errors="replace")
        if not owner:  # killed before it wrote its name, so before it made anything else
            (work / LOCK_NAME).unlink()
            work.rmdir()
        elif _is_from_here(owner):
            _remove(work)
    finally:
        os.close(lock)


def _remove(work: Path) -> None:
    """The lock file goes last: a removal that is cut off can be continued by the next process."""
    for path in work.glob("*"):
        if path.name != LOCK_NAME:
            shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        (work / LOCK_NAME).unlink(missing_ok=True)
        work.rmdir()


def _owner() -> str:
    """Who writes, as three lines of the lock file."""
    return f"{MAGIC}\n{socket.gethostname()}\n{_boot_id()}\n"


def _is_from_here(owner: str) -> bool:
    """Whether a lock file was written on this host, before or after it was booted last."""
    lines = owner.splitlines()
    if len(lines) != 3 or lines[0] != MAGIC:
        return False
    return lines[1] == socket.gethostname() or (lines[2] != "" and lines[2] == _boot_id())


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
