"""Pictures decoded once per node, data set and image size, memory-mapped by every trial that reads them.

An entry is a directory of two Arrow files, keyed by what it holds: whoever needs it first builds it under a lock while
the others wait, beside its final place and renamed when whole. A builder that dies leaves nothing that is used, and
the next one removes it. What does not fit into the cache's budget is decoded whenever it is asked for.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from data.byte_size import byte_size
from data.cache.budget import CACHE_GB, NoRoomError, entry_lock, sweep, told_bytes
from data.cache.build import build, progress
from data.cache.mapped import DecodedPictures, DecodedSplit, MappedEntry, MappedSplit, decoded_bytes
from data.cache.on_the_fly import OnTheFlySplit
from data.dataset.dataset import Dataset
from data.images import Resize

__all__ = ["DecodedPictures", "DecodedSplit", "cache_root", "decoded", "decoded_bytes"]

CACHE = "TWINHEAD_CACHE"
_POLL_SECONDS = 0.2
"""How often one who waits looks how far the builder is."""


def decoded(
    dataset: Dataset,
    parts: Sequence[NDArray[np.int64]],
    size: int,
    *,
    resize: Resize = "area",
    root: Path | None = None,
    on_samples: Callable[[int], None] | None = None,
) -> DecodedSplit:
    """The samples of `parts`, decoded and resized to (`size`, `size`).

    They are mapped from the cache as far as $TWINHEAD_CACHE_GB, or a share of the disk, allows. For that, entries that
    no process has mapped may go, the least recently used first. If a part does not fit even so, a warning says it, and
    all parts are decoded on the fly: the pictures are the same.

    Args:
        dataset: an opened data set.
        parts: arrays of ascending rows, each an entry of its own; they are read as one, in this order.
        size: side in pixels.
        resize: how pictures come to that size, as in `data.images.resize`.
        root: the cache's directory; `cache_root()` when left out.
        on_samples: told how many samples became ready, as they do, whoever decodes them.

    Raises:
        InputError: if a picture cannot be decoded, or $TWINHEAD_CACHE_GB is no number.
    """
    root = root or cache_root()
    root.mkdir(parents=True, exist_ok=True)
    told_bytes()  # says what is wrong with it before anything else happens
    sweep(root)
    told = [_Told(on_samples) for _ in parts]
    try:
        entries = [
            _entry(root, dataset, rows, size, resize, part.reach) for rows, part in zip(parts, told, strict=True)
        ]
    except NoRoomError as error:
        samples = sum(len(rows) for rows in parts)
        warnings.warn(_no_room(error, samples, size, root), stacklevel=2)
        for rows, part in zip(parts, told, strict=True):
            part.reach(len(rows))
        return OnTheFlySplit(dataset, np.concatenate(parts), size, resize)
    return MappedSplit(entries, size)


def cache_root() -> Path:
    """The node's cache directory: $TWINHEAD_CACHE, or twinhead/ in $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get(CACHE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinhead"


def _entry(
    root: Path,
    dataset: Dataset,
    rows: NDArray[np.int64],
    size: int,
    resize: Resize,
    reach: Callable[[int], None],
) -> MappedEntry:
    """The entry of `rows`, built if it is not there."""
    entry = root / f"{dataset.info.fingerprint[:16]}-{_form(size, resize)}-{_key(rows)}"
    with _locked(entry, reach):
        if entry.is_dir():
            os.utime(entry)
        else:
            build(dataset, rows, size, resize, entry, reach)
        # Mapped while we hold its lock: until then, it may go.
        mapped = MappedEntry(entry, size)
    reach(len(rows))
    return mapped


def _form(size: int, resize: Resize) -> str:
    """'area' goes unnamed, as when it was the only way: entries of that time stay in use."""
    return f"{size}px" if resize == "area" else f"{size}px-{resize}"


def _key(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]


@contextmanager
def _locked(entry: Path, reach: Callable[[int], None]) -> Iterator[None]:
    """Wait for the lock of an entry; `reach` is told how far the one who has it is."""
    lock = entry_lock(entry)
    while True:
        try:
            lock.acquire(timeout=_POLL_SECONDS)
        except Timeout:
            reach(progress(entry))
        else:
            break
    try:
        yield
    finally:
        lock.release()


class _Told:
    """Tells of each sample once, although a builder that dies is followed by one that begins anew."""

    def __init__(self, on_samples: Callable[[int], None] | None) -> None:
        self._on_samples = on_samples
        self._count = 0

    def reach(self, count: int) -> None:
        """So many samples are ready."""
        if count > self._count:
            if self._on_samples:
                self._on_samples(count - self._count)
            self._count = count


def _no_room(error: NoRoomError, samples: int, size: int, root: Path) -> str:
    return (
        f"{samples} samples at {size} px are decoded anew for every batch, which takes longer: decoded, they need "
        f"{byte_size(error.needed)}, and the cache at '{root}' has {byte_size(max(error.left, 0))} for them; make room "
        f"there, set {CACHE} to a larger disk or {CACHE_GB} to more, or lower data.image_size."
    )
