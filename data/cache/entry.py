"""Entries of the cache: directories of .npy files, allocated at full size, filled in place, renamed when complete."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from math import prod
from pathlib import Path

import numpy as np

from data.cache.budget import INDEX, NoRoomError, building_path, room
from data.disk import FULL, free_bytes

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""The dtype ('u1', 'i8') and the shape of each array of an entry."""

_PROGRESS = "progress"
_PROGRESS_SECONDS = 0.2
"""How often a process that builds an entry writes its progress, for the processes that wait for it."""
_MAX_HEADER = 2**10
"""An upper bound of the bytes of an .npy header."""


class Entry:
    """The arrays of an entry, mapped to read. As long as this object lives, the entry is locked as one in use.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is truncated or has no header.
    """

    def __init__(self, directory: Path, names: Sequence[str]) -> None:
        lock = os.open(directory / f"{INDEX}.npy", os.O_RDONLY)
        weakref.finalize(self, os.close, lock)
        with suppress(OSError):  # a file system without locks: its entries are never evicted
            fcntl.flock(lock, fcntl.LOCK_SH)
        self.directory = directory
        self.arrays = {name: np.lib.format.open_memmap(directory / f"{name}.npy", mode="r") for name in names}


class NewEntry:
    """The files of an entry under construction, allocated at full size; `files` closes them.

    Raises:
        OSError: if the disk is full.
    """

    def __init__(self, directory: Path, layout: Layout, files: ExitStack, on_ready: Callable[[int], None]) -> None:
        self._on_ready = on_ready
        self._written = 0.0
        self._files: dict[str, tuple[int, int]] = {}
        """The descriptor of each array's file, and the offset of its data."""
        for name, (dtype, shape) in layout.items():
            path = directory / f"{name}.npy"
            offset = np.lib.format.open_memmap(path, "w+", dtype, shape).offset
            descriptor = files.enter_context(path.open("r+b")).fileno()
            os.posix_fallocate(descriptor, 0, path.stat().st_size)
            self._files[name] = descriptor, offset
        self._progress = files.enter_context((directory / _PROGRESS).open("wb")).fileno()

    def write(self, name: str, content: memoryview | bytes, offset: int = 0) -> None:
        """Write `content` to an array, `offset` bytes after its start. Several threads may write at the same time."""
        # Not to a map of the file: a full disk would end the process with a signal.
        descriptor, start = self._files[name]
        left = memoryview(content).cast("B")
        start += offset
        while left:
            written = os.pwrite(descriptor, left, start)
            left, start = left[written:], start + written

    def ready(self, count: int) -> None:
        """Report that `count` samples are written."""
        if time.monotonic() - self._written > _PROGRESS_SECONDS:
            with suppress(OSError):  # a full disk has room for the arrays, but maybe not for this
                os.pwrite(self._progress, b"%d" % count, 0)
            self._written = time.monotonic()
        self._on_ready(count)

    def sync(self) -> None:
        """Wait until the disk has the arrays: a node that loses power must not keep an entry of zeros."""
        for descriptor, _ in self._files.values():
            os.fsync(descriptor)


@contextmanager
def new_entry(entry: Path, layout: Layout, on_ready: Callable[[int], None]) -> Iterator[NewEntry]:
    """Create `entry`, which exists once the block is complete. The caller holds its lock.

    Args:
        entry: its path; what a killed process left there, or a damaged entry, is removed.
        layout: its arrays, one of them `INDEX`.
        on_ready: progress callback, called with the number of samples that are ready.

    Raises:
        NoRoomError: if the entry does not fit.
    """
    building = building_path(entry)
    for left in (building, entry):
        shutil.rmtree(left, ignore_errors=True)
    needed = sum(_MAX_HEADER + np.dtype(dtype).itemsize * prod(shape) for dtype, shape in layout.values())
    try:
        with ExitStack() as files:
            with room(entry.parent, needed):
                building.mkdir()
                new = NewEntry(building, layout, files, on_ready)
            yield new
            new.sync()
        (building / _PROGRESS).unlink()
        building.rename(entry)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise NoRoomError(needed, free_bytes(entry)) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def progress(entry: Path) -> int:
    """The number of samples that are ready of an entry under construction; 0 if there is none."""
    try:
        return int((building_path(entry) / _PROGRESS).read_bytes() or 0)
    except FileNotFoundError:
        return 0
