"""Decoded images in entries of the cache: built by all cores, memory-mapped by every process that reads them.

Shapes: N samples and M backgrounds of an entry, B samples of a batch, H and W height and width in pixels.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from data.cache.budget import INDEX
from data.cache.decoded import DecodedImages, DecodedSplit, image_names
from data.cache.entry import Entry, NewEntry, new_entry
from data.dataset.dataset import Dataset
from data.dataset.intake import DecodedBackgrounds
from data.fitting.fit import Fitting
from data.fitting.sizes import Sides, sides_of
from data.images import decode_sample
from data.parallel import ahead
from data.schema import VALID, EncodedSample, Pixels

if TYPE_CHECKING:
    from collections.abc import Generator

_EXTENT = 4 * 2**20
"""Bytes that are read from the disk at once."""
_IN_MEMORY = 0.5
"""Up to this share of the machine's memory, a split is expected to stay in the page cache."""


def decoded_arrays(dataset: Dataset, fitting: Fitting) -> tuple[str, ...]:
    """The arrays of an entry.

    bg (M, H, W, 3), fg_bg (N, H, W, 3), mask and depth (N, H, W) uint8; with validity masks or borders also valid
    (N, H, W) uint8; index (N,) int64, the row in bg.
    """
    return (*image_names(dataset.info.has_validity or fitting.pads), INDEX)


def decoded_bytes(samples: int, backgrounds: int, size: int | Sequence[int], *, has_validity: bool = False) -> int:
    """Bytes that a split takes on disk when decoded, without the index and the headers."""
    return prod(sides_of(size)) * ((6 if has_validity else 5) * samples + 3 * backgrounds)


def build_decoded(
    dataset: Dataset,
    rows: NDArray[np.int64],
    fitting: Fitting,
    entry: Path,
    on_ready: Callable[[int], None],
) -> None:
    """Decode `rows` to a new entry. The caller holds its lock.

    Args:
        dataset: an opened data set.
        rows: (N,), ascending.
        fitting: the way to the size of a network.
        entry: its path.
        on_ready: progress callback, called with the number of samples that are ready.

    Raises:
        InputError: if an image cannot be decoded.
        NoRoomError: if the entry does not fit.
        ValueError: if the rows are not ascending.
    """
    if not len(rows) or np.any(np.diff(rows) <= 0):
        raise ValueError("The rows of a cache entry must be ascending: a data set is read in storage order.")
    bg_ids = dataset.ids.bg_id
    bg_rows: dict[str, int] = {}
    bg_of = np.array([bg_rows.setdefault(bg_ids[row], len(bg_rows)) for row in rows], np.int64)
    photo, plane, count = (*fitting.sides, 3), fitting.sides, len(rows)
    layout = {
        "bg": ("u1", (len(bg_rows), *photo)),
        "fg_bg": ("u1", (count, *photo)),
        "mask": ("u1", (count, *plane)),
        "depth": ("u1", (count, *plane)),
        "valid": ("u1", (count, *plane)),
        INDEX: ("i8", (count,)),
    }
    layout = {name: layout[name] for name in decoded_arrays(dataset, fitting)}
    with new_entry(entry, layout, on_ready) as new:
        new.write(INDEX, bg_of.data)
        calls = _decoding(new, dataset, rows, bg_rows, fitting)
        # Closed before the files are: its threads write to them.
        with closing(cast("Generator[None]", ahead(calls, len(os.sched_getaffinity(0))))) as done:
            for ready, _ in enumerate(done, start=1):
                new.ready(ready)


def _decoding(
    new: NewEntry,
    dataset: Dataset,
    rows: NDArray[np.int64],
    bg_rows: Mapping[str, int],
    fitting: Fitting,
) -> Iterator[Callable[[], None]]:
    """For each of `rows`, a call that decodes, resizes and writes it, and its background if that is the first."""

    def write(name: str, row: int, pixels: Pixels) -> None:
        image = np.ascontiguousarray(pixels)
        new.write(name, image.data, row * image.nbytes)

    def decode(row: int, encoded: EncodedSample, bg: Pixels, bg_row: int | None) -> None:
        sample = decode_sample(encoded, bg=bg, where=str(dataset.path))
        if bg_row is not None:
            write("bg", bg_row, fitting.image(bg))
        write("fg_bg", row, fitting.image(sample.fg_bg))
        write("mask", row, fitting.image(sample.mask))
        depth, valid = fitting.depth(sample.depth, sample.valid)
        write("depth", row, depth)
        if valid is None and dataset.info.has_validity:
            valid = np.full(fitting.sides, VALID, np.uint8)
        if valid is not None:
            write("valid", row, valid)

    decoded = DecodedBackgrounds()
    missing = dict(bg_rows)
    for row, encoded in enumerate(dataset.read_encoded(rows)):
        bg = decoded.get(encoded.bg_id, encoded.bg, f"background {encoded.bg_id} in {dataset.path}")
        yield partial(decode, row, encoded, bg, missing.pop(encoded.bg_id, None))


class MappedSplit(DecodedSplit):
    """One or more entries of the cache, read as one: train + validation is not decoded again."""

    def __init__(self, entries: Sequence[Entry], size: Sides) -> None:
        super().__init__(size, has_validity="valid" in entries[0].arrays)
        self._entries = entries  # in use as long as the split is
        first_bg = np.cumsum([0, *(len(entry.arrays["bg"]) for entry in entries)])
        self._bg_of = np.concatenate(
            [entry.arrays[INDEX] + first for entry, first in zip(entries, first_bg, strict=False)]
        )
        self._has_missing = True
        """Whether there may be pages that were not requested yet."""
        total = sum(array.nbytes for entry in entries for array in entry.arrays.values())
        fits = total <= _IN_MEMORY * os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        self._columns = [
            _Column([_Images(entry.arrays[name], fits) for entry in entries]) for name in image_names(self.has_validity)
        ]

    def __len__(self) -> int:
        return len(self._bg_of)

    def gather(self, rows: NDArray[np.int64]) -> DecodedImages:
        """Copy the images of `rows` (B,), in that order."""
        rows = np.asarray(rows, np.int64)
        self.prefetch(rows)  # all at once: the copies would wait for one page after the other
        images = self._empty(len(rows))
        for column, wanted, out in zip(self._columns, self._column_rows(rows), images.arrays(), strict=True):
            column.take(wanted, out)
        return images

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Let the kernel read the pages of `rows` (B,)."""
        if self._has_missing:
            wanted = self._column_rows(rows)
            missing = [column.prefetch(rows) for column, rows in zip(self._columns, wanted, strict=True)]
            self._has_missing = any(missing)

    def _column_rows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """The rows of each column."""
        rows = self._checked(rows)
        return self._bg_of[rows], *[rows] * (len(self._columns) - 1)


class _Column:
    """The images of a column in one or more entries."""

    def __init__(self, parts: Sequence[_Images]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part.images) for part in parts])
        self._starts = self._ends - [len(part.images) for part in parts]

    def take(self, rows: NDArray[np.int64], out: Pixels) -> None:
        """Copy the images of `rows` (B,), which are in range, to `out` (B, …)."""
        if len(self._parts) == 1:
            # Only mode 'clip' writes to `out` without a buffer.
            np.take(self._parts[0].images, rows, axis=0, out=out, mode="clip")
            return
        numbers = np.searchsorted(self._ends, rows, side="right")
        within = rows - self._starts[numbers]
        for index, (number, row) in enumerate(zip(numbers.tolist(), within.tolist(), strict=True)):
            out[index] = self._parts[number].images[row]

    def prefetch(self, rows: NDArray[np.int64]) -> bool:
        """Let the kernel read the pages of `rows` (B,); return whether there may be pages that were not requested."""
        missing = [
            part.prefetch(np.unique(rows[(start <= rows) & (rows < end)]) - start)
            for part, start, end in zip(self._parts, self._starts, self._ends, strict=True)
        ]
        return any(missing)


class _Images:
    """A mapped array of images, and which of its pages were requested.

    Of a split that fits into memory, whole extents are read, each once: that is as fast as reading the file from start
    to end. Of a larger one, only the images that are needed are read.
    """

    def __init__(self, array: np.memmap[tuple[int, ...], np.dtype[np.uint8]], fits_in_memory: bool) -> None:
        self.images: Pixels = array.view(np.ndarray)
        """(N, …)"""
        self._map = cast("mmap.mmap", array.base)
        self._offset = array.offset
        self._missing = np.ones(-(-len(self._map) // _EXTENT), np.bool_) if fits_in_memory else None
        if not fits_in_memory:
            self._map.madvise(mmap.MADV_RANDOM)

    def prefetch(self, rows: NDArray[np.int64]) -> bool:
        """Let the kernel read the pages of the ascending `rows`; return whether others may be missing."""
        length = self.images[0].nbytes
        firsts = self._offset + rows * length
        lasts = firsts + length - 1
        if self._missing is None:
            starts = firsts // mmap.PAGESIZE * mmap.PAGESIZE
            for start, last in zip(starts.tolist(), lasts.tolist(), strict=True):
                self._map.madvise(mmap.MADV_WILLNEED, start, last + 1 - start)
            return True
        touched = np.unique(np.concatenate([firsts // _EXTENT, lasts // _EXTENT]))
        touched = touched[self._missing[touched]]
        self._missing[touched] = False
        for start in (touched * _EXTENT).tolist():
            self._map.madvise(mmap.MADV_WILLNEED, start, min(_EXTENT, len(self._map) - start))
        return bool(self._missing.any())
