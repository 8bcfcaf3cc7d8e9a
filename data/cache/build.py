"""Builds an entry of the cache: Arrow files of one record batch each, allocated whole and then filled by all cores.

With one record batch, the pictures of a column lie one behind the other, so that a batch is gathered by a single call.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from functools import partial
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Self, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.cache.budget import NoRoomError, building_place, room
from data.cache.mapped import BACKGROUNDS, SAMPLES, Column, MappedEntry, decoded_bytes
from data.dataset.dataset import Dataset
from data.dataset.intake import DecodedBackgrounds
from data.images import Resize, decode_sample, resize_to
from data.parallel import ahead
from data.schema import EncodedSample, Pixels

_PROGRESS = "progress"
_TOLD_SECONDS = 0.2
"""How often a builder writes down how far it is, for those who wait."""
_HEADS = 2**14
"""More bytes than the files of an entry take beside their columns."""
_SKIPPED = 2**16
"""What Arrow writes at once is a column from so many bytes on, and left to be filled."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def build(
    dataset: Dataset,
    rows: NDArray[np.int64],
    size: int,
    resize: Resize,
    entry: Path,
    reach: Callable[[int], None],
) -> None:
    """Decode `rows` to a new entry, which is there when it is whole; the caller holds its lock.

    Args:
        dataset: an opened data set.
        rows: ascending.
        size: side in pixels.
        resize: how pictures come to that size.
        entry: where it is to be.
        reach: told how many samples are ready.

    Raises:
        InputError: if a picture cannot be decoded.
        NoRoomError: if the entry does not fit.
        ValueError: if the rows are not ascending.
    """
    if not len(rows) or np.any(np.diff(rows) <= 0):
        raise ValueError("The rows of a cache entry must be ascending: a data set is read in storage order.")
    of_sample = dataset.ids.bg_id
    backgrounds = len({of_sample[row] for row in rows})
    building = building_place(entry)
    shutil.rmtree(building, ignore_errors=True)  # left by a builder that died: we hold its lock now
    try:
        with room(entry.parent, decoded_bytes(len(rows), backgrounds, size) + 8 * len(rows) + _HEADS):
            _allocate(building, len(rows), backgrounds, size)
        with _NewEntry(building, size) as new:
            _fill(new, dataset, rows, resize, reach)
        (building / _PROGRESS).unlink()
        building.rename(entry)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def progress(entry: Path) -> int:
    """Samples of an entry under construction that are ready; 0 if none is."""
    try:
        return int((building_place(entry) / _PROGRESS).read_bytes() or 0)
    except FileNotFoundError:
        return 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _fill(
    new: _NewEntry, dataset: Dataset, rows: NDArray[np.int64], resize: Resize, reach: Callable[[int], None]
) -> None:
    decoding = cast("Generator[None]", ahead(_decoding(new, dataset, rows, resize), cores()))
    written = 0.0
    # Closed before the files are: its threads write to them.
    with closing(decoding) as done:
        for count, _ in enumerate(done, start=1):
            if time.monotonic() - written > _TOLD_SECONDS:
                new.tell(count)
                written = time.monotonic()
            reach(count)
    new.finish()


def _decoding(
    new: _NewEntry, dataset: Dataset, rows: NDArray[np.int64], resize: Resize
) -> Iterator[Callable[[], None]]:
    """For each of `rows`, a call that decodes and writes it."""
    decoded = DecodedBackgrounds()
    places: dict[str, int] = {}
    for row, encoded in enumerate(dataset.read_encoded(rows)):
        bg = decoded.get(encoded.bg_id, encoded.bg, f"background {encoded.bg_id} in {dataset.path}")
        is_new = encoded.bg_id not in places
        new.bg_rows[row] = place = places.setdefault(encoded.bg_id, len(places))
        yield partial(_decode, new, row, encoded, bg, place if is_new else None, resize, str(dataset.path))


def _decode(
    new: _NewEntry, row: int, encoded: EncodedSample, bg: Pixels, bg_place: int | None, resize: Resize, where: str
) -> None:
    """Write a sample, and its background if that is to be written at `bg_place`."""
    sample = decode_sample(encoded, bg=bg, where=where)
    if bg_place is not None:
        new.put("bg", bg_place, resize_to(bg, new.size, new.size, how=resize))
    for name in ("fg_bg", "mask", "depth"):
        new.put(name, row, resize_to(getattr(sample, name), new.size, new.size, how=resize))


class _NewEntry:
    """The allocated files of an entry under construction; several threads may write to them at once."""

    def __init__(self, directory: Path, size: int) -> None:
        self.size = size
        mapped = MappedEntry(directory, size)
        self._columns: Mapping[str, Column] = {
            "bg": mapped.bg,
            "fg_bg": mapped.fg_bg,
            "mask": mapped.mask,
            "depth": mapped.depth,
        }
        self.bg_rows = mapped.bg_of
        """(N,), for each sample the row of its background; to be filled."""
        self._bg_rows_at = mapped.bg_of_at
        with ExitStack() as files:
            self._backgrounds = files.enter_context((directory / BACKGROUNDS).open("r+b", buffering=0))
            self._samples = files.enter_context((directory / SAMPLES).open("r+b", buffering=0))
            self._progress = files.enter_context((directory / _PROGRESS).open("wb", buffering=0))
            self._files = files.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def put(self, name: str, row: int, pixels: Pixels) -> None:
        """Write a picture of the column `name`."""
        file = self._backgrounds if name == "bg" else self._samples
        chunk = self._columns[name].chunks[0]
        _write(file, np.ascontiguousarray(pixels), chunk.offset + row * pixels.nbytes)

    def tell(self, count: int) -> None:
        """Write down that so many samples are ready."""
        os.pwrite(self._progress.fileno(), b"%d" % count, 0)

    def finish(self) -> None:
        """Write what is left, and see it on the disk: a node that loses power must not keep an entry of zeros."""
        _write(self._samples, self.bg_rows, self._bg_rows_at)
        for file in (self._backgrounds, self._samples):
            os.fsync(file.fileno())


def _write(file: FileIO, array: NDArray[np.uint8] | NDArray[np.int64], offset: int) -> None:
    """To the file, not to a map of it: there, a full disk would end the process."""
    left = memoryview(array.reshape(-1).view(np.uint8).data)
    while left:
        written = os.pwrite(file.fileno(), left, offset)
        left, offset = left[written:], offset + written


def _allocate(directory: Path, samples: int, backgrounds: int, size: int) -> None:
    """Make the files of an entry in full size, with zeros for pictures.

    Raises:
        NoRoomError: if the disk does not have them.
    """
    photo, plane = pa.binary(size * size * 3), pa.binary(size * size)
    files = {
        BACKGROUNDS: ([("bg", photo)], backgrounds),
        SAMPLES: ([("fg_bg", photo), ("mask", plane), ("depth", plane), ("bg_row", pa.int64())], samples),
    }
    directory.mkdir()
    for name, (columns, rows) in files.items():
        needed = sum(column.bit_width // 8 for _, column in columns) * rows
        try:
            with (directory / name).open("x+b") as file:
                _lay_out(file, pa.schema(columns), rows, needed)
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoomError(needed, shutil.disk_usage(directory).free) from error
            raise


def _lay_out(file: BinaryIO, schema: pa.Schema, rows: int, column_bytes: int) -> None:
    """Write an Arrow file of one record batch, but leave holes for its columns, which are `column_bytes` together."""
    file.truncate(column_bytes)
    zeros = pa.py_buffer(mmap.mmap(file.fileno(), column_bytes, prot=mmap.PROT_READ))
    arrays = [
        pa.Array.from_buffers(field.type, rows, [None, zeros[: field.type.bit_width // 8 * rows]]) for field in schema
    ]
    with pa.ipc.new_file(_Skipping(file), schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    os.posix_fallocate(file.fileno(), 0, file.tell())


class _Skipping:
    """A file to which everything is written but what is large."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, content: bytes) -> int:
        size = len(content)
        if size < _SKIPPED:
            return self._file.write(content)
        self._file.seek(size, os.SEEK_CUR)
        return size

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Its owner closes the file."""
