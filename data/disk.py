"""Faults of a file system: full, over quota, read-only or broken. The one place that knows their error numbers.

They are nobody's input and no bug: they end a command with one sentence and exit code 1, and what was written before
stays.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from data.errors import DiskError

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
"""The file system, or the user's share of it, has no room left."""

_FAULTS = {
    errno.ENOSPC: ("is full", "written", "make room there"),
    errno.EDQUOT: ("has no quota left", "written", "remove files there, or have the quota raised"),
    errno.EROFS: ("is read-only", "written", "have it mounted for writing"),
    errno.EIO: ("reports input/output errors", "read or written", "check the disk and the connection to it"),
}
_TEXTS = {os.strerror(number): number for number in _FAULTS}
"""Arrow, safetensors and other processes pass on the text alone."""


def disk_error(error: BaseException | None, *places: Path | str) -> DiskError | None:
    """The fault of a file system behind `error`, its causes and what it was raised from; None if there is none.

    Args:
        error: any exception.
        places: files or directories that were being written, the likeliest first; they count where the error itself
            names no file. Of several, the one on the file system with the fault is named.
    """
    causes = list(_chain(error))
    # Not by isinstance: Ray makes of the error of a task a subclass that is printed as a traceback.
    if described := next((cause for cause in causes if type(cause) is DiskError), None):
        return described
    for cause in causes:
        number = _number(cause)
        if number is not None:
            return _described(number, _named(cause) or _likeliest(number, places))
    return None


def free_bytes(place: Path | str) -> int:
    """Bytes that are free on the file system of `place`, which need not exist yet."""
    return shutil.disk_usage(_existing(Path(place))).free


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it was raised from, and what Ray found in another process."""
    waiting, seen = [error], set()
    while waiting:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        context = None if found.__suppress_context__ else found.__context__
        waiting += [getattr(found, "cause", None), found.__cause__, context]


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in _FAULTS else None
    said = str(error)
    return next((number for text, number in _TEXTS.items() if text in said), None)


def _named(error: BaseException) -> Path | None:
    """The file in the error itself; of a copy, the one that was written."""
    if not isinstance(error, OSError):
        return None
    name = error.filename2 if error.filename2 is not None else error.filename
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None


def _likeliest(number: int, places: tuple[Path | str, ...]) -> Path:
    candidates = [Path(place) for place in places] or [Path.cwd()]
    if number in FULL:
        return min(candidates, key=free_bytes)
    if number == errno.EROFS:
        return next((place for place in candidates if _is_read_only(place)), candidates[0])
    return candidates[0]


def _is_read_only(place: Path) -> bool:
    return bool(os.statvfs(_existing(place)).f_flag & os.ST_RDONLY)


def _described(number: int, file: Path) -> DiskError:
    fault, tried, advice = _FAULTS[number]
    free = free_bytes(file)
    shown = f"{free / 1e9:,.1f} GB" if free >= 1e8 else f"{free / 1e6:.1f} MB" if free >= 1e5 else f"{free:,} bytes"
    problem = f"The file system of '{_mount_point(file)}' {fault} ({shown} free), so '{file}' cannot be {tried}"
    return DiskError(problem, advice)


def _mount_point(file: Path) -> Path:
    place = _existing(file)
    while not place.is_mount():
        place = place.parent
    return place


def _existing(place: Path) -> Path:
    """The nearest directory that exists."""
    place = Path(os.path.realpath(place))
    while not place.exists():
        place = place.parent
    return place
