"""File system faults: full, over quota, read-only or broken.

They are neither input errors nor bugs: a command ends with one sentence and exit code 1, and keeps what it has written.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from data.errors import DiskError, causes
from data.quantities import byte_size

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""Error numbers of a full file system or quota."""

_FAULTS = {
    errno.ENOSPC: ("is full", "written", "make room there"),
    errno.EDQUOT: ("has no quota left", "written", "remove files there, or have the quota raised"),
    errno.EROFS: ("is read-only", "written", "have it mounted for writing"),
    errno.EIO: ("reports input/output errors", "read or written", "check the disk and the connection to it"),
}
_TEXTS = {os.strerror(number): number for number in _FAULTS}
"""Arrow, safetensors and other processes report only the text."""


def disk_error(error: BaseException | None, *paths: Path | str) -> DiskError | None:
    """Find a file system fault in an exception or its causes; None if there is none.

    Args:
        error: any exception.
        paths: files or directories being written, the likeliest first. If the error names no file, the message names
            the one of these that lies on the faulty file system.
    """
    found = list(causes(error))
    # Not isinstance: Ray raises a subclass of a task's error, which prints a traceback.
    if described := next((cause for cause in found if type(cause) is DiskError), None):
        return described
    for cause in found:
        number = _fault_number(cause)
        if number is not None:
            return _describe(number, _file_of(cause) or _likeliest(number, paths))
    return None


def free_bytes(path: Path | str) -> int:
    """Free bytes on the file system of `path`, which need not exist."""
    return shutil.disk_usage(_existing(Path(path))).free


def _fault_number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _FAULTS else None
    message = str(error)
    return next((number for text, number in _TEXTS.items() if text in message), None)


def _file_of(error: BaseException) -> Path | None:
    """The file that the error names; for a copy, the destination."""
    if not isinstance(error, OSError):
        return None
    name = error.filename2 if error.filename2 is not None else error.filename
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None


def _likeliest(number: int, paths: tuple[Path | str, ...]) -> Path:
    candidates = [Path(path) for path in paths] or [Path.cwd()]
    if number in FULL:
        return min(candidates, key=free_bytes)
    if number == errno.EROFS:
        return next((path for path in candidates if _is_read_only(path)), candidates[0])
    return candidates[0]


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(_existing(path)).f_flag & os.ST_RDONLY)


def _describe(number: int, file: Path) -> DiskError:
    fault, attempt, advice = _FAULTS[number]
    free = byte_size(free_bytes(file))
    problem = f"The file system of '{_mount_point(file)}' {fault} ({free} free), so '{file}' cannot be {attempt}"
    return DiskError(problem, advice)


def _mount_point(file: Path) -> Path:
    path = _existing(file)
    while not path.is_mount():
        path = path.parent
    return path


def _existing(path: Path) -> Path:
    """`path`, or its nearest parent that exists."""
    path = Path(os.path.realpath(path))
    while not path.exists():
        path = path.parent
    return path
