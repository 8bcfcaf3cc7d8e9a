"""Pictures decoded once per node, data set and image size, memory-mapped by every trial that reads them.

An entry is a directory of two Arrow files, keyed by what it holds: whoever needs it first builds it under a lock while
the others wait, beside its final place and renamed when whole. A builder that dies leaves nothing that is used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
from filelock import FileLock
from numpy.typing import NDArray

from data.images import Resize, resize_to
from data.schema import Pixels
from data.shards import Dataset

_ROWS = 64
"""Pictures in a record batch: few enough to build in memory at any size, enough for a short list of batches."""


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


class DecodedSplit:
    """The samples of a split at one size, mapped from the node's cache.

    Several entries can be read as one, so that train + validation does not decode anything again.
    """

    def __init__(self, entries: Sequence[Path], size: int) -> None:
        self.size = size
        self._bg, self._fg_bg, self._mask, self._depth = _Column(), _Column(), _Column(), _Column()
        bg_of: list[NDArray[np.int64]] = []
        for entry in entries:
            first_bg = len(self._bg)
            for batch in _batches(entry / "backgrounds.arrow"):
                self._bg.append(batch.column("bg"), (size, size, 3))
            for batch in _batches(entry / "samples.arrow"):
                self._fg_bg.append(batch.column("fg_bg"), (size, size, 3))
                self._mask.append(batch.column("mask"), (size, size))
                self._depth.append(batch.column("depth"), (size, size))
                bg_of.append(batch.column("bg_row").to_numpy() + first_bg)
        self._bg_of = np.concatenate(bg_of)

    def __len__(self) -> int:
        return len(self._fg_bg)

    def gather(self, rows: NDArray[np.int64]) -> DecodedPictures:
        """Copies of the pictures of `rows` (B,), in that order."""
        return DecodedPictures(
            self._bg.gather(self._bg_of[rows]),
            self._fg_bg.gather(rows),
            self._mask.gather(rows),
            self._depth.gather(rows),
        )


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

    Args:
        dataset: an opened data set.
        parts: arrays of ascending rows, each an entry of its own; they are read as one, in this order.
        size: side in pixels.
        resize: how pictures come to that size, as in `data.images.resize`.
        root: the cache's directory; `cache_root()` when left out.
        on_samples: told how many samples became ready, as they do.

    Raises:
        InputError: if a picture cannot be decoded.
    """
    root = root or cache_root()
    root.mkdir(parents=True, exist_ok=True)
    entries = []
    for rows in parts:
        entry = root / f"{dataset.info.fingerprint[:16]}-{_form(size, resize)}-{_key(rows)}"
        with FileLock(f"{entry}.lock"):
            if entry.is_dir():
                os.utime(entry)
                if on_samples:
                    on_samples(len(rows))
            else:
                _build(dataset, rows, size, resize, entry, on_samples)
        entries.append(entry)
    return DecodedSplit(entries, size)


def cache_root() -> Path:
    """The node's cache directory: $TWINHEAD_CACHE, or twinhead/ in $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("TWINHEAD_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinhead"


def decoded_bytes(samples: int, backgrounds: int, size: int) -> int:
    """Bytes that a split of so many samples and backgrounds takes on disk, up to Arrow's small overhead."""
    return size * size * (5 * samples + 3 * backgrounds)


def _form(size: int, resize: Resize) -> str:
    """'area' goes unnamed, as when it was the only way: entries of that time stay in use."""
    return f"{size}px" if resize == "area" else f"{size}px-{resize}"


def _key(rows: NDArray[np.int64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]


def _build(
    dataset: Dataset,
    rows: NDArray[np.int64],
    size: int,
    resize: Resize,
    entry: Path,
    on_samples: Callable[[int], None] | None,
) -> None:
    if np.any(np.diff(rows) <= 0):
        raise ValueError("The rows of a cache entry must be ascending: a data set is read in storage order.")
    building = entry.with_name(f".{entry.name}.building")
    shutil.rmtree(building, ignore_errors=True)  # left by a builder that died: we hold its lock now
    building.mkdir()
    try:
        _write(dataset, rows, size, resize, building, on_samples)
        building.rename(entry)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(
    dataset: Dataset,
    rows: NDArray[np.int64],
    size: int,
    resize: Resize,
    directory: Path,
    on_samples: Callable[[int], None] | None,
) -> None:
    photo, plane = pa.binary(size * size * 3), pa.binary(size * size)
    backgrounds = pa.schema([("bg", photo)])
    samples = pa.schema([("fg_bg", photo), ("mask", plane), ("depth", plane), ("bg_row", pa.int64())])
    bg_rows: dict[str, int] = {}
    with (
        _Writer(directory / "backgrounds.arrow", backgrounds) as bg_writer,
        _Writer(directory / "samples.arrow", samples) as writer,
    ):
        for sample in dataset.read(rows):
            if sample.bg_id not in bg_rows:
                bg_rows[sample.bg_id] = len(bg_rows)
                bg_writer.add(resize_to(sample.bg, size, size, how=resize).tobytes())
            planes = (
                resize_to(pixels, size, size, how=resize).tobytes()
                for pixels in (sample.fg_bg, sample.mask, sample.depth)
            )
            writer.add(*planes, bg_rows[sample.bg_id])
            if on_samples:
                on_samples(1)


class _Writer:
    """Appends rows to an Arrow file, one record batch at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[tuple[bytes | int, ...]] = []
        self._file = pa.ipc.new_file(str(path), schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def add(self, *row: bytes | int) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            columns: Iterable[tuple[bytes | int, ...]] = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
            self._file.write_batch(pa.record_batch(arrays, schema=self._schema))
            self._rows.clear()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    for index in range(reader.num_record_batches):
        yield reader.get_batch(index)


class _Column:
    """Pictures of one shape over many record batches, each a view of the mapped file."""

    def __init__(self) -> None:
        self._views: list[Pixels] = []
        self._ends = np.zeros(0, np.int64)

    def append(self, array: pa.Array, shape: tuple[int, ...]) -> None:
        pixels = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, *shape)
        self._views.append(pixels[array.offset : array.offset + len(array)])
        self._ends = np.append(self._ends, len(self) + len(array))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def gather(self, rows: NDArray[np.int64]) -> Pixels:
        out = np.empty((len(rows), *self._views[0].shape[1:]), np.uint8)
        views = np.searchsorted(self._ends, rows, side="right")
        for index, (row, view) in enumerate(zip(rows, views, strict=True)):
            pixels = self._views[view]
            out[index] = pixels[row - self._ends[view] + len(pixels)]
        return out
