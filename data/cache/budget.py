"""Room in the node's cache: what it may take, what it holds, who uses what, and what goes when there is too little.

Entries are directories of `root`; those under construction are hidden, and have their full size from the beginning.
Whoever has `accounts.lock` alone may add one, so that processes that build at once keep the budget together.
"""

from __future__ import annotations

import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data.cache.mapped import SAMPLES
from data.errors import InputError, without_comma

CACHE_GB = "TWINHEAD_CACHE_GB"
_SHARE = 0.8
"""Of the disk's free space and what the cache holds already, if nothing else is said: trials write files, too."""

_BUILDING = ".building"


class NoRoomError(Exception):
    """What is needed, in bytes, is more than is left beside what others use."""

    def __init__(self, needed: int, left: float) -> None:
        super().__init__(f"{needed} bytes are needed, {left:.0f} are left.")
        self.needed = needed
        self.left = left


def budget_bytes(root: Path) -> float:
    """Bytes that the cache at `root` may take: $TWINHEAD_CACHE_GB gigabytes, or a share of the disk.

    Raises:
        InputError: if the variable is no number.
    """
    told = told_bytes()
    return _SHARE * (shutil.disk_usage(root).free + _held(root)) if told is None else told


def told_bytes() -> float | None:
    """Bytes that $TWINHEAD_CACHE_GB allows; None if it is not set.

    Raises:
        InputError: if it is no number.
    """
    text = os.environ.get(CACHE_GB)
    if text is None:
        return None
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 <= gigabytes < math.inf:
        raise InputError(
            f"The value of '{CACHE_GB}' is '{text}', but must be a number of gigabytes, at least 0; "
            f"{f'write {meant}' if (meant := without_comma(text)) else 'correct it'} in the environment, or leave it "
            "out."
        )
    return gigabytes * 1e9


def growth_bytes(root: Path, fingerprint: str, needed: int) -> float:
    """Bytes, at most, by which the cache will grow for a data set of which `needed` bytes are wanted in all.

    Raises:
        InputError: if $TWINHEAD_CACHE_GB is no number.
    """
    there = sum(_bytes(entry) for entry in _entries(root) if entry.name.startswith(f"{fingerprint[:16]}-"))
    return max(0.0, min(needed - there, budget_bytes(root) - _held(root)))


@contextmanager
def room(root: Path, needed: int) -> Iterator[None]:
    """See to it that `needed` bytes fit; they are to be taken before this ends, since nobody else can meanwhile.

    Entries that nobody uses go, the one first whose last use is longest ago; none goes if that would not be enough.

    Raises:
        NoRoomError: if they do not fit.
    """
    with FileLock(root / "accounts.lock"):
        sweep(root)
        held = _held(root)
        allowed = min(budget_bytes(root), held + shutil.disk_usage(root).free)
        missing = _evict(root, held + needed - allowed)
        if missing > 0:
            raise NoRoomError(needed, max(0.0, needed - missing))
        yield


def sweep(root: Path) -> None:
    """Remove what killed builders left."""
    for building in root.glob(f".*{_BUILDING}"):
        entry = root / building.name.removeprefix(".").removesuffix(_BUILDING)
        with ExitStack() as locks:
            if _take(entry_lock(entry), locks):
                shutil.rmtree(building, ignore_errors=True)


def building_place(entry: Path) -> Path:
    """Where an entry is built, beside its place."""
    return entry.with_name(f".{entry.name}{_BUILDING}")


def entry_lock(entry: Path) -> FileLock:
    """Held by whoever builds or removes an entry, or is about to map it."""
    return FileLock(f"{entry}.lock")


def _held(root: Path) -> int:
    """Bytes of all entries, finished or not."""
    return sum(_bytes(directory) for directory in [*_entries(root), *root.glob(f".*{_BUILDING}")])


def _entries(root: Path) -> list[Path]:
    """Other files may lie in the cache's directory; they are none of our business."""
    return [samples.parent for samples in root.glob(f"[!.]*/{SAMPLES}")]


def _bytes(directory: Path) -> int:
    total = 0
    for file in directory.glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # its builder failed at this moment
            continue
    return total


def _evict(root: Path, excess: float) -> float:
    """Free so many bytes, or nothing, and return how many could not be found."""
    with ExitStack() as locks:
        chosen = []
        for entry in sorted(_entries(root), key=lambda entry: entry.stat().st_mtime_ns):
            if excess <= 0:
                break
            if _take(entry_lock(entry), locks) and not _is_mapped(entry):
                chosen.append(entry)
                excess -= _bytes(entry)
        if excess > 0:
            return excess
        for entry in chosen:
            # Under this name, it is swept if we are killed here.
            remains = entry.rename(building_place(entry))
            shutil.rmtree(remains, ignore_errors=True)
    return 0.0


def _take(lock: FileLock, locks: ExitStack) -> bool:
    """Whether the lock was free; it is held until `locks` closes."""
    try:
        locks.enter_context(lock.acquire(timeout=0))
    except Timeout:
        return False
    return True


def _is_mapped(entry: Path) -> bool:
    """Whether a living process has the entry mapped: the kernel ends the locks of dead ones.

    A file system that has no such locks says of every entry that it is in use.
    """
    with (entry / SAMPLES).open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
