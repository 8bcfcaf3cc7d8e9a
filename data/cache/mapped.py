"""Decoded pictures of a split as batches ask for them: the interface, and entries of the cache behind it.

Shapes: B samples of a batch, S side in pixels.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.schema import Pixels

BACKGROUNDS, SAMPLES = "backgrounds.arrow", "samples.arrow"
"""The files of an entry. `samples.arrow` is locked, shared, by every process that has it mapped."""

_KEPT_BLOCKS = 4
"""Batches whose memory is kept for the next ones."""
_EXTENT = 4 * 2**20
"""Bytes that are read from the disk at once."""
_IN_MEMORY = 0.5
"""Of the machine's memory, up to which a file is taken to stay in the page cache."""


class DecodedPictures(NamedTuple):
    """Pictures of a batch, uint8, in the order asked for."""

    bg: Pixels
    """(B, S, S, 3)"""
    fg_bg: Pixels
    """(B, S, S, 3)"""
    mask: Pixels
    """(B, S, S)"""
    depth: Pixels
    """(B, S, S)"""


def decoded_bytes(samples: int, backgrounds: int, size: int) -> int:
    """Bytes that a split of so many samples and backgrounds takes on disk, up to Arrow's small overhead."""
    return size * size * (5 * samples + 3 * backgrounds)


class DecodedSplit(ABC):
    """The samples of a split at one size; safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._blocks = _Blocks()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def gather(self, rows: NDArray[np.int64]) -> DecodedPictures:
        """Copies of the pictures of `rows` (B,), in that order; their memory is used again when nobody has them.

        Raises:
            InputError: if a picture is decoded only now, and cannot be.
        """

    @abstractmethod
    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Begin to bring `rows` (B,) here, and return at once: they are what will be gathered next."""

    def _empty(self, count: int) -> DecodedPictures:
        """Pictures to be written to."""
        side, area = self.size, count * self.size**2
        block = self._blocks.take(8 * area)
        bg, fg_bg, mask, depth = np.split(block, (3 * area, 6 * area, 7 * area))
        photos, planes = (count, side, side, 3), (count, side, side)
        return DecodedPictures(bg.reshape(photos), fg_bg.reshape(photos), mask.reshape(planes), depth.reshape(planes))


class MappedSplit(DecodedSplit):
    """Entries of the node's cache, read as one, so that train + validation does not decode anything again."""

    def __init__(self, entries: Sequence[MappedEntry], size: int) -> None:
        super().__init__(size)
        self._entries = entries
        first_bg = np.cumsum([0, *(len(entry.bg) for entry in entries)])
        self._bg_of = np.concatenate([entry.bg_of + first for entry, first in zip(entries, first_bg, strict=False)])
        self._columns = [
            Column([column for entry in entries for column in getattr(entry, name).chunks])
            for name in DecodedPictures._fields
        ]

    def __len__(self) -> int:
        return len(self._bg_of)

    def gather(self, rows: NDArray[np.int64]) -> DecodedPictures:
        """Copies of the pictures of `rows` (B,), in that order."""
        rows = np.asarray(rows, np.int64)
        self.prefetch(rows)  # at once, for the copies would wait for one piece after the other
        pictures = self._empty(len(rows))
        for column, wanted, out in zip(self._columns, self._places(rows), pictures, strict=True):
            column.take(wanted, out)
        return pictures

    def prefetch(self, rows: NDArray[np.int64]) -> None:
        """Have the kernel read the pages of `rows` (B,)."""
        if any(column.is_lacking for column in self._columns):
            for column, wanted in zip(self._columns, self._places(np.asarray(rows, np.int64)), strict=True):
                column.will_need(wanted)

    def _places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """For each column, its rows."""
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Rows must be in 0..{len(self) - 1}, not {rows.min()}..{rows.max()}.")
        return self._bg_of[rows], rows, rows, rows


class MappedEntry:
    """The files of an entry of the cache, mapped; as long as this lives, the entry is locked as one that is in use."""

    def __init__(self, directory: Path, size: int) -> None:
        backgrounds, samples = MappedFile(directory / BACKGROUNDS), MappedFile(directory / SAMPLES)
        photo, plane = (size, size, 3), (size, size)
        self.bg = Column(backgrounds.chunks("bg", photo))
        self.fg_bg = Column(samples.chunks("fg_bg", photo))
        self.mask = Column(samples.chunks("mask", plane))
        self.depth = Column(samples.chunks("depth", plane))
        self.bg_of, self.bg_of_at = samples.numbers("bg_row")
        """(N,), for each sample the row of its background, and where in the file they begin."""


class Chunk(NamedTuple):
    """Pictures that lie one behind the other in a mapped file."""

    pixels: Pixels
    """(N, …)"""
    file: MappedFile
    offset: int
    """Bytes in the file before them."""


class Column:
    """Pictures of one shape; an entry has them in one chunk, several entries in several."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        self.chunks = chunks
        lengths = np.array([len(chunk.pixels) for chunk in chunks], np.int64)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def take(self, rows: NDArray[np.int64], out: Pixels) -> None:
        """Copy the pictures of `rows` (B,), which are known to be in range, to `out` (B, …)."""
        if len(self.chunks) == 1:
            # Of the modes, 'clip' alone writes to `out` without a copy between.
            np.take(self.chunks[0].pixels, rows, axis=0, out=out, mode="clip")
            return
        for place, (pixels, row) in enumerate(self._found(rows)):
            out[place] = pixels.pixels[row]

    @property
    def is_lacking(self) -> bool:
        """Whether there may be pages to ask for."""
        return any(chunk.file.is_lacking for chunk in self.chunks)

    def will_need(self, rows: NDArray[np.int64]) -> None:
        """Have the kernel read the pages of `rows` (B,), in the order in which they lie."""
        rows = np.unique(rows)
        for chunk, start, end in zip(self.chunks, self._starts, self._ends, strict=True):
            within = rows[(start <= rows) & (rows < end)] - start
            if len(within):
                picture = chunk.pixels[0].nbytes
                chunk.file.will_need(chunk.offset + within * picture, picture)

    def _found(self, rows: NDArray[np.int64]) -> list[tuple[Chunk, int]]:
        numbers = np.searchsorted(self._ends, rows, side="right")
        within = rows - self._starts[numbers]
        return [(self.chunks[number], row) for number, row in zip(numbers.tolist(), within.tolist(), strict=True)]


class MappedFile:
    """An Arrow file that is mapped, and locked as long as it is.

    Of a file that fits into memory, the part around a picture is read when the first of its pictures is needed, and
    not asked for again: that is as fast as reading it from its beginning to its end. Of a larger one, exactly the
    pictures that are needed are read.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            # The map has a descriptor of its own of what was opened: the lock lasts as long as the map.
            with suppress(OSError):  # where there are no locks, nothing is evicted either
                fcntl.flock(file, fcntl.LOCK_SH)
            self._mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        buffer = pa.py_buffer(self._mapped)
        self._start = buffer.address
        reader = pa.ipc.open_file(pa.BufferReader(buffer))
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._lacking: NDArray[np.bool_] | None = None
        """Extents that were not asked for; None if the file is too large for that."""
        if len(self._mapped) <= _IN_MEMORY * os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE:
            self._lacking = np.ones(-(-len(self._mapped) // _EXTENT), np.bool_)
        else:
            self._mapped.madvise(mmap.MADV_RANDOM)
        self.is_lacking = True
        """Whether there may be pages to ask for."""

    def will_need(self, firsts: NDArray[np.int64], length: int) -> None:
        """Have the kernel read so many bytes at each of the ascending places `firsts`."""
        lasts = firsts + length - 1
        if self._lacking is None:
            starts = firsts // mmap.PAGESIZE * mmap.PAGESIZE
            for start, last in zip(starts.tolist(), lasts.tolist(), strict=True):
                self._mapped.madvise(mmap.MADV_WILLNEED, start, last + 1 - start)
            return
        touched = np.unique(np.concatenate([firsts // _EXTENT, lasts // _EXTENT]))
        touched = touched[self._lacking[touched]]
        self._lacking[touched] = False
        for start in (touched * _EXTENT).tolist():
            self._mapped.madvise(mmap.MADV_WILLNEED, start, min(_EXTENT, len(self._mapped) - start))
        self.is_lacking = bool(self._lacking.any())

    def chunks(self, name: str, shape: tuple[int, ...]) -> list[Chunk]:
        """The pictures of a column, a chunk for each record batch."""
        found = []
        for batch in self._batches:
            offset = batch.column(name).buffers()[1].address - self._start
            count = len(batch)
            flat = np.frombuffer(self._mapped, np.uint8, count * int(np.prod(shape)), offset)
            found.append(Chunk(flat.reshape(count, *shape), self, offset))
        return found

    def numbers(self, name: str) -> tuple[NDArray[np.int64], int]:
        """A column of whole numbers, copied, and the bytes in the file before it."""
        columns = [batch.column(name) for batch in self._batches]
        start = columns[0].buffers()[1].address - self._start
        return np.concatenate([column.to_numpy() for column in columns]), start


class _Blocks:
    """Memory that is given out, and given out again when no array uses it any more.

    Left to the allocator, the memory of a batch goes back to the system after it, and is zeroed page by page for the
    next one, which takes longer than the copying.
    """

    def __init__(self) -> None:
        # Single steps of a deque need no lock, which the last array to die might wait for in the thread that has it.
        self._free: deque[Pixels] = deque(maxlen=_KEPT_BLOCKS)

    def take(self, count: int) -> Pixels:
        """Bytes (count,), undefined."""
        block = self._fitting(count)
        # numpy takes a buffer's owner for the base of every view, so that `lent` lives as long as the last of them.
        lent = np.frombuffer(block.data, np.uint8, count)
        weakref.finalize(lent, _give_back, weakref.ref(self), block).atexit = False
        return lent

    def give_back(self, block: Pixels) -> None:
        """Keep a block for later; of too many, the oldest goes."""
        self._free.append(block)

    def _fitting(self, count: int) -> Pixels:
        for _ in range(len(self._free)):
            try:
                block = self._free.pop()
            except IndexError:  # another thread was faster
                break
            if count <= block.nbytes <= 2 * count:
                return block
            self._free.appendleft(block)
        return np.empty(count, np.uint8)


def _give_back(blocks: weakref.ref[_Blocks], block: Pixels) -> None:
    owner = blocks()
    if owner is not None:
        owner.give_back(block)
