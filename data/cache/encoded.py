"""Single encoded pictures from anywhere in a data set, without the row groups around them.

Parts are written without compression, so that a picture lies in them as it is: the first time that a row group is
needed it is read whole and checked, and it is noted where each of its pictures lies; from then on, these are read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data.dataset.dataset import Dataset
from data.dataset.manifest import PartKind
from data.dataset.parts import RowGroup, row_groups
from data.errors import InputError
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS

KEPT_BYTES = 256 * 2**20
"""Row groups that were read whole are kept up to so many bytes: of a small data set, all."""
LENGTH_BYTES = 4
"""Before each value of a plain page stands its length, low byte first."""


class EncodedPictures:
    """Pictures of one kind of parts, by row; safe to use from several threads."""

    def __init__(self, dataset: Dataset, kind: PartKind) -> None:
        schema = {"samples": SAMPLE_COLUMNS, "backgrounds": BACKGROUND_COLUMNS}[kind]
        self._columns = [field.name for field in schema if pa.types.is_binary(field.type)]
        parts = [part for part in dataset.info.parts if part.kind == kind]
        self._groups = tuple(row_groups(dataset.path, parts, schema))
        self._firsts = [group.first for group in self._groups]
        self._locks = [Lock() for _ in self._groups]
        self._kept = _Kept()
        self._places: dict[int, NDArray[np.int64]] = {}
        """Of each row group that was read: (N, C, 2), first byte in its part and bytes of each picture."""
        self._files: dict[str, pa.NativeFile] = {}

    def read(self, row: int) -> tuple[bytes, ...]:
        """The encoded pictures of a row: of a sample (fg_bg, mask, depth), of a background (bg,).

        Raises:
            InputError: if the part is damaged or gone.
        """
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        group, within = self._groups[number], row - self._firsts[number]
        with self._locks[number]:
            table = self._kept.get(number)
            if table is None and number not in self._places:
                table = group.read(self._columns)
                self._places[number] = _located(group, table, self._open(group))
                self._kept.put(number, table)
        if table is not None:
            return tuple(table[name][within].as_py() for name in self._columns)
        return self._read_places(group, self._places[number][within])

    def texts(self, column: str) -> list[str]:
        """A column of ids, of all rows.

        Raises:
            InputError: if a part is damaged or gone.
        """
        return [text for group in self._groups for text in group.read([column])[column].to_pylist()]

    def where(self, row: int) -> str:
        """The part of a row, for an error's sentence."""
        return str(self._groups[int(np.searchsorted(self._firsts, row, side="right")) - 1].path)

    def _read_places(self, group: RowGroup, places: NDArray[np.int64]) -> tuple[bytes, ...]:
        file = self._open(group)
        try:
            return tuple(file.read_at(length, first) for first, length in places.tolist())
        except OSError as error:
            raise _unreadable(group, error) from error

    def _open(self, group: RowGroup) -> pa.NativeFile:
        """The part of a row group, which stays open."""
        path = str(group.path)
        if path not in self._files:
            try:
                self._files[path] = group.path.open_input()
            except OSError as error:
                raise _unreadable(group, error) from error
        return self._files[path]


class _Kept:
    """The tables that were used last, up to `KEPT_BYTES`."""

    def __init__(self) -> None:
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, number: int) -> pa.Table | None:
        with self._lock:
            if number in self._tables:
                self._tables.move_to_end(number)
            return self._tables.get(number)

    def put(self, number: int, table: pa.Table) -> None:
        with self._lock:
            self._tables[number] = table
            self._bytes += table.nbytes
            while self._bytes > KEPT_BYTES:
                self._bytes -= self._tables.popitem(last=False)[1].nbytes


def _located(group: RowGroup, table: pa.Table, file: pa.NativeFile) -> NDArray[np.int64]:
    """Where the pictures of a row group lie in its part: (N, C, 2), first byte and bytes."""
    places = [_column_places(group, index, table[name], file) for index, name in _stored(group, table.column_names)]
    return np.stack(places, axis=1)


def _stored(group: RowGroup, names: Sequence[str]) -> list[tuple[int, str]]:
    """For each column, its number in the part."""
    numbers = {name: number for number, name in enumerate(group.footer.schema.names)}
    return [(numbers[name], name) for name in names]


def _column_places(group: RowGroup, index: int, values: pa.ChunkedArray, file: pa.NativeFile) -> NDArray[np.int64]:
    """(N, 2), first byte and bytes. Each value is found behind the one before it, or behind the next page's header.

    What is found is what was read and checked, byte by byte; of equal values, any will do.
    """
    chunk = group.footer.row_group(group.number).column(index)
    try:
        stored = file.read_at(chunk.total_compressed_size, chunk.data_page_offset)
    except OSError as error:
        raise _unreadable(group, error) from error
    found = np.empty((len(values), 2), np.int64)
    end = 0
    for row, value in enumerate(values):
        picture = value.as_py()
        start = stored.find(len(picture).to_bytes(LENGTH_BYTES, "little") + picture, end)
        if start < 0:
            raise _unreadable(group, "its pictures are compressed")
        end = start + LENGTH_BYTES + len(picture)
        found[row] = chunk.data_page_offset + start + LENGTH_BYTES, len(picture)
    return found


def _unreadable(group: RowGroup, reason: object) -> InputError:
    return InputError(f"The part '{group.path}' cannot be read ({reason}); write the data set again.")
