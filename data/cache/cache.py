"""The node's cache: images decoded once per data set and image size, memory-mapped by every trial that reads them.

The first process that needs an entry builds it under a lock, while the others wait. The entry is renamed to its final
path when it is complete: what a killed process leaves is never used, and removed by the next one. What does not fit
into the cache's budget is decoded on the fly.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from data.cache.budget import CACHE_GB, NoRoomError, entry_lock, entry_name, limit_bytes, sweep
from data.cache.composed import ComposedSplit
from data.cache.decoded import DecodedSplit
from data.cache.encoded import ENCODED_ARRAYS, CachedImages, EncodedImages, StoredImages, build_encoded
from data.cache.entry import Entry, progress
from data.cache.mapped import MappedSplit, build_decoded, decoded_arrays, decoded_bytes
from data.cache.on_the_fly import OnTheFlySplit
from data.cache.sources import (
    RESIZED_ARRAYS,
    SOURCE_ARRAYS,
    CachedSources,
    Sources,
    StoredSources,
    build_resized,
    build_sources,
    source_bytes,
)
from data.composed.recipe import Recipe
from data.dataset.dataset import Dataset
from data.disk import disk_error
from data.errors import InputError
from data.fitting.fit import Fit, Fitting
from data.fitting.sizes import Sides, sides_of, size_text
from data.images import Resize
from data.quantities import byte_size

CACHE = "TWINHEAD_CACHE"
_POLL_SECONDS = 0.2
"""How often a process that waits reads the progress of the process that builds."""

_OnReady = Callable[[int], None]
"""A progress callback, called with the number of samples that are ready."""


def decoded(
    dataset: Dataset,
    parts: Sequence[NDArray[np.int64]],
    size: int | Sequence[int],
    *,
    resize: Resize = "area",
    fit: Fit = "stretch",
    root: Path | None = None,
    on_samples: Callable[[int], None] | None = None,
) -> DecodedSplit:
    """The samples of `parts`, decoded and fitted to `size`.

    They are mapped from the cache if $TWINHEAD_CACHE_GB, or a share of the disk, allows it; entries that no process
    uses are evicted for them, the least recently used first. If a part does not fit, a warning says so and all parts
    are decoded on the fly, to the same pixels: from the encoded images of the whole data set, which are smaller and
    are cached instead, or from the data set itself if those do not fit either.

    Samples of a recipe are composed when they are read; their sources are cached.

    Args:
        dataset: an opened data set.
        parts: arrays of ascending rows, each an entry of its own; they are read as one, in this order.
        size: side of a square in pixels, or height and width.
        resize: as in `data.images.resize`.
        fit: how images of another aspect ratio become those of `size`; as in `data.fitting.fit.Fitting`.
        root: the cache's directory; default: `cache_root()`.
        on_samples: progress callback, called with the number of samples that became ready since the last call.

    Raises:
        InputError: if an image cannot be decoded, the cache cannot be written, or $TWINHEAD_CACHE_GB is not a number.
    """
    root, fitting = open_cache(root), Fitting(sides_of(size), resize, fit)
    limit_bytes()  # fails before anything is read
    sweep(root)
    if dataset.recipe is not None:
        return _composed(root, dataset, dataset.recipe, np.concatenate(parts), fitting, _Progress(on_samples))
    counters = [_Progress(on_samples) for _ in parts]
    try:
        return MappedSplit(
            [
                _decoded_entry(root, dataset, rows, fitting, counter.update)
                for rows, counter in zip(parts, counters, strict=True)
            ],
            fitting.sides,
        )
    except NoRoomError as error:
        # Not the error: its traceback would keep all entries in use.
        warning = _no_room(error, sum(map(len, parts)), fitting.sides, root)
    total = dataset.info.counts.samples

    def on_ready(copied: int) -> None:
        for rows, counter in zip(parts, counters, strict=True):
            counter.update(len(rows) * copied // total)

    images: EncodedImages
    try:
        images = CachedImages(_encoded_entry(root, dataset, on_ready))
    except NoRoomError as error:
        images = StoredImages(dataset)
        warning += f" The encoded images ({byte_size(error.needed)}) do not fit either and are read from the data set."
        on_ready(total)
    warnings.warn(warning, stacklevel=2)
    return OnTheFlySplit(dataset, images, np.concatenate(parts), fitting)


def cache_bytes(dataset: Dataset, size: int | Sequence[int], *, has_border: bool = False) -> int:
    """Bytes that all samples of a data set take in the cache, without the headers.

    Args:
        dataset: an opened data set.
        size: side of a square in pixels, or height and width.
        has_border: whether images are padded, so that they have validity masks.
    """
    if dataset.recipe is not None:
        return source_bytes(dataset.recipe, sides_of(size))
    counts, has_validity = dataset.info.counts, dataset.info.has_validity or has_border
    return decoded_bytes(counts.samples, counts.backgrounds, size, has_validity=has_validity)


def cache_root() -> Path:
    """The node's cache directory: $TWINHEAD_CACHE, or twinhead/ in $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get(CACHE):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinhead"


def open_cache(root: Path | None = None) -> Path:
    """Return the directory of the cache, after creating it if it is missing and writing a test file.

    Args:
        root: the directory; default: `cache_root()`.

    Raises:
        InputError: if it cannot be written.
        DiskError: if its file system is full or has another fault.
    """
    where = root or cache_root()
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        reason = "it is not a directory" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise disk_error(error, where) or InputError(
            f"The cache '{where}' cannot be written ({reason}); set ${CACHE} to a directory that can."
        ) from None
    return where


def _composed(
    root: Path,
    dataset: Dataset,
    recipe: Recipe,
    rows: NDArray[np.int64],
    fitting: Fitting,
    progress: _Progress,
) -> ComposedSplit:
    """Samples of a recipe; its sources are read from the data set if they do not fit into the cache."""
    sources: Sources
    try:
        sources = _cached_sources(root, dataset, recipe, fitting)
    except NoRoomError as error:
        warning = (
            f"The sources of '{dataset.path}' are decoded and resized anew for every batch, which takes longer: they "
            f"need {byte_size(error.needed)}, and the cache at '{root}' has {byte_size(max(error.left, 0))} for them; "
            f"make room there, or set {CACHE} to a larger disk or {CACHE_GB} to more."
        )
        warnings.warn(warning, stacklevel=3)
        sources = StoredSources(recipe, fitting)
    split = ComposedSplit(recipe, rows, sources, fitting)
    progress.update(len(rows))
    return split


def _cached_sources(root: Path, dataset: Dataset, recipe: Recipe, fitting: Fitting) -> CachedSources:
    fingerprint, backgrounds = dataset.info.fingerprint, dataset.info.counts.backgrounds
    path = root / entry_name(fingerprint, "composed", "sources")
    build = partial(build_sources, recipe, backgrounds)
    sources = _entry(path, SOURCE_ARRAYS, build, 0, _ignore)
    if fitting.sides == (recipe.size, recipe.size):
        return CachedSources(sources, None)
    path = root / entry_name(fingerprint, "composed", *fitting.key)
    fitted = _entry(path, RESIZED_ARRAYS, partial(build_resized, sources, fitting), 0, _ignore)
    return CachedSources(sources, fitted)


def _ignore(count: int) -> None:
    """Show no progress: sources take seconds."""


def _decoded_entry(
    root: Path, dataset: Dataset, rows: NDArray[np.int64], fitting: Fitting, on_ready: _OnReady
) -> Entry:
    key = hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]
    path = root / entry_name(dataset.info.fingerprint, "decoded", *fitting.key, key)
    build = partial(build_decoded, dataset, rows, fitting)
    return _entry(path, decoded_arrays(dataset, fitting), build, len(rows), on_ready)


def _encoded_entry(root: Path, dataset: Dataset, on_ready: _OnReady) -> Entry:
    path = root / entry_name(dataset.info.fingerprint, "encoded")
    return _entry(path, ENCODED_ARRAYS, partial(build_encoded, dataset), dataset.info.counts.samples, on_ready)


def _entry(
    path: Path, names: Sequence[str], build: Callable[[Path, _OnReady], None], samples: int, on_ready: _OnReady
) -> Entry:
    """Open an entry; it is built if it is missing or damaged."""
    # Opened under its lock: an entry that is not in use may be evicted.
    with _locked(path, on_ready):
        try:
            entry = Entry(path, names)
        except (FileNotFoundError, ValueError):
            build(path, on_ready)
            entry = Entry(path, names)
        now = time.time_ns()  # finer than the kernel's own time of a file: entries may be used within one of its ticks
        os.utime(path, ns=(now, now))
    on_ready(samples)
    return entry


@contextmanager
def _locked(entry: Path, on_ready: _OnReady) -> Iterator[None]:
    """Wait for the lock of an entry; meanwhile, report the progress of the process that holds it."""
    lock = entry_lock(entry)
    while True:
        try:
            lock.acquire(timeout=_POLL_SECONDS)
        except Timeout:
            on_ready(progress(entry))
        else:
            break
    try:
        yield
    finally:
        lock.release()


class _Progress:
    """Reports each sample once, although another process starts again when the one that builds dies."""

    def __init__(self, on_samples: Callable[[int], None] | None) -> None:
        self._on_samples = on_samples
        self._count = 0

    def update(self, count: int) -> None:
        """Report that `count` samples are ready."""
        if count > self._count:
            if self._on_samples:
                self._on_samples(count - self._count)
            self._count = count


def _no_room(error: NoRoomError, samples: int, size: Sides, root: Path) -> str:
    return (
        f"{samples} samples at {size_text(size)} px are decoded anew for every batch, which takes longer: decoded, "
        f"they need {byte_size(error.needed)}, and the cache at '{root}' has {byte_size(max(error.left, 0))} for "
        f"them; make room there, set {CACHE} to a larger disk or {CACHE_GB} to more, or lower data.image_size."
    )
