"""The budget of the node's cache: how much it may take, which entries are in use, and which are evicted.

Entries are directories in the cache's root. Those under construction are hidden, and have their full size from the
start. Only the process that holds `accounts.lock` may add one: processes that build at the same time share one budget.
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

from data.errors import InputError, without_comma

CACHE_GB = "TWINHEAD_CACHE_GB"
INDEX = "index"
"""The array that every entry has. Each process that reads the entry holds a shared lock on its file."""

_VERSION = "v2"
_MARKS = (f"{INDEX}.npy", "samples.arrow")
"""The locked file of an entry, and that of the entries of version 1: they are never read, but counted and evicted."""
_DEFAULT_SHARE = 0.8
"""Of the disk's free space and what the cache already takes: trials write files, too."""
_BUILDING = ".building"


class NoRoomError(Exception):
    """An entry of `needed` bytes does not fit into the `left` bytes that the entries in use leave."""

    def __init__(self, needed: int, left: float) -> None:
        super().__init__(f"{needed} bytes are needed, {left:.0f} are left.")
        self.needed = needed
        self.left = left


def entry_name(fingerprint: str, *key: str) -> str:
    """The directory name of an entry: of the data set with `fingerprint`, of this version, and with `key`."""
    return "-".join((fingerprint[:16], _VERSION, *key))


def budget_bytes(root: Path) -> float:
    """Bytes that the cache at `root` may take: $TWINHEAD_CACHE_GB gigabytes, or a share of the disk.

    Raises:
        InputError: if $TWINHEAD_CACHE_GB is not a number.
    """
    limit = limit_bytes()
    return _DEFAULT_SHARE * (shutil.disk_usage(root).free + _held(root)) if limit is None else limit


def limit_bytes() -> float | None:
    """Bytes that $TWINHEAD_CACHE_GB allows; None if it is not set.

    Raises:
        InputError: if it is not a number.
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
    """An upper bound of the bytes by which the cache grows for a data set that needs `needed` bytes in it.

    Raises:
        InputError: if $TWINHEAD_CACHE_GB is not a number.
    """
    prefixes = tuple(entry_name(fingerprint, kind) for kind in ("decoded", "composed"))
    there = sum(_bytes(entry) for entry in _entries(root) if entry.name.startswith(prefixes))
    return max(0.0, min(needed - there, budget_bytes(root) - _held(root)))


@contextmanager
def room(root: Path, needed: int) -> Iterator[None]:
    """Make room for `needed` bytes. The block must allocate them; no other process can do so meanwhile.

    Entries that are not in use are evicted, the least recently used first; none is if that would not be enough.

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
    """Remove what killed processes left under construction."""
    for building in root.glob(f".*{_BUILDING}"):
        entry = root / building.name.removeprefix(".").removesuffix(_BUILDING)
        with ExitStack() as locks:
            if _take(entry_lock(entry), locks):
                shutil.rmtree(building, ignore_errors=True)


def building_path(entry: Path) -> Path:
    """Where an entry is under construction: in the same directory."""
    return entry.with_name(f".{entry.name}{_BUILDING}")


def entry_lock(entry: Path) -> FileLock:
    """Held while an entry is built, opened or removed."""
    return FileLock(f"{entry}.lock")


def _held(root: Path) -> int:
    """Bytes of all entries, complete or under construction."""
    return sum(_bytes(directory) for directory in [*_entries(root), *root.glob(f".*{_BUILDING}")])


def _entries(root: Path) -> list[Path]:
    """The complete entries; other files may lie in the cache's directory and are ignored."""
    return [path.parent for mark in _MARKS for path in root.glob(f"[!.]*/{mark}")]


def _bytes(directory: Path) -> int:
    total = 0
    for file in directory.glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # its process failed at this moment
            continue
    return total


def _evict(root: Path, excess: float) -> float:
    """Evict entries until `excess` bytes are free, or none; return how many bytes are still missing."""
    with ExitStack() as locks:
        chosen = []
        for entry in sorted(_entries(root), key=lambda entry: entry.stat().st_mtime_ns):
            if excess <= 0:
                break
            if _take(entry_lock(entry), locks) and not _is_in_use(entry):
                chosen.append(entry)
                excess -= _bytes(entry)
        if excess > 0:
            return excess
        for entry in chosen:
            # Renamed first: if this process is killed meanwhile, `sweep` removes the rest.
            remains = entry.rename(building_path(entry))
            shutil.rmtree(remains, ignore_errors=True)
    return 0.0


def _take(lock: FileLock, locks: ExitStack) -> bool:
    """Whether the lock was free; it is held until `locks` closes."""
    try:
        locks.enter_context(lock.acquire(timeout=0))
    except Timeout:
        return False
    return True


def _is_in_use(entry: Path) -> bool:
    """Whether a living process reads the entry: the kernel releases the locks of dead ones.

    On a file system without such locks, every entry counts as in use.
    """
    for mark in _MARKS:
        try:
            with (entry / mark).open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            continue
        except OSError:
            return True
    return False
