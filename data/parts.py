"""The Parquet parts of a data set: rows of ids and encoded pictures, written and read by row group.

Pictures are compressed already, so their columns are not; each page carries a checksum that reading verifies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from data.errors import InputError
from data.manifest import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from data.manifest import PartKind

Row = dict[str, str | bytes]


class PartsWriter:
    """Writes rows to KIND-00000.parquet, KIND-00001.parquet, …, and holds one row group in memory at most.

    A part ends when it holds `part_bytes` of ids and pictures, a row group at `group_bytes`.
    """

    def __init__(
        self, directory: Path, kind: PartKind, schema: pa.Schema, *, part_bytes: int, group_bytes: int
    ) -> None:
        self._directory = directory
        self._kind: PartKind = kind
        self._schema = schema
        self._part_bytes = part_bytes
        self._group_bytes = min(group_bytes, part_bytes)
        self._hash = hashlib.sha256()
        self._parts: list[Part] = []
        self._writer: pq.ParquetWriter | None = None
        self._buffer: list[Row] = []
        self._buffered = 0
        self._bytes = 0
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def add(self, row: Row) -> None:
        """Append a row with a value for every column of the schema.

        Raises:
            InputError: if the disk does not take it.
        """
        size = 0
        for name in self._schema.names:
            value = row[name]
            encoded = value.encode() if isinstance(value, str) else value
            self._hash.update(len(encoded).to_bytes(8, "big"))
            self._hash.update(encoded)
            size += len(encoded)
        self._buffer.append(row)
        self._buffered += size
        self._bytes += size
        if self._bytes >= self._part_bytes:
            self._finish_part()
        elif self._buffered >= self._group_bytes:
            self._flush()

    def finish(self) -> tuple[Part, ...]:
        """Write what is left, and return all parts in storage order.

        Raises:
            InputError: if the disk does not take it.
        """
        if self._bytes:
            self._finish_part()
        return tuple(self._parts)

    def digest(self) -> bytes:
        """SHA-256 of the rows: of each column's value its length in 8 bytes, high first, and its bytes."""
        return self._hash.digest()

    def _flush(self) -> None:
        with writing_to(self._directory.parent):
            if self._writer is None:
                self._writer = _open_writer(self._directory / self._name, self._schema)
            self._writer.write_table(pa.Table.from_pylist(self._buffer, self._schema))
        self._rows += len(self._buffer)
        self._buffer, self._buffered = [], 0

    def _finish_part(self) -> None:
        if self._buffer:
            self._flush()
        path = self._directory / self._name
        with writing_to(self._directory.parent):
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
            with path.open("rb") as file:
                os.fsync(file.fileno())
            size, checksum = path.stat().st_size, sha256(path)
        self._parts.append(Part(path=path.name, kind=self._kind, rows=self._rows, bytes=size, sha256=checksum))
        self._bytes = self._rows = 0

    @property
    def _name(self) -> str:
        return f"{self._kind}-{len(self._parts):05d}.parquet"


@dataclass(frozen=True)
class RowGroup:
    """A run of rows that is read at once."""

    path: Path
    """The part that it is in."""
    number: int
    """Its number in the part."""
    first: int
    """Row number of its first row, over all parts of the kind."""
    rows: int

    def read(self, columns: Sequence[str]) -> pa.Table:
        """Return the named columns.

        Raises:
            InputError: if the part is damaged or gone.
        """
        with _read(self.path), _open_reader(self.path) as file:
            table = file.read_row_group(self.number, columns=list(columns), use_threads=False)
            table.validate(full=True)
            return table


def row_groups(directory: Path, parts: Sequence[Part], schema: pa.Schema) -> Iterator[RowGroup]:
    """Row groups of `parts` in storage order; only the parts' footers are read.

    Raises:
        InputError: if a part is damaged, or is not what `dataset.json` says.
    """
    first = 0
    for part in parts:
        path = directory / part.path
        with _read(path), _open_reader(path) as file:
            metadata, stored = file.metadata, file.schema_arrow
            counts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        if not stored.equals(schema) or sum(counts) != part.rows:
            raise InputError(
                f"The part '{path}' has {sum(counts)} rows of {', '.join(stored.names)}, but must have "
                f"{part.rows} rows of {', '.join(schema.names)}; write the data set again."
            )
        for number, rows in enumerate(counts):
            yield RowGroup(path=path, number=number, first=first, rows=rows)
            first += rows


@contextlib.contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Turn what the disk refuses into an InputError that names the place."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The data set cannot be written to '{place}' ({error}); free space there, or give another place."
        ) from error


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        compression={name: "zstd" if name in texts else "none" for name in schema.names},
        # The checksums do not cover dictionaries.
        use_dictionary=False,
        write_statistics=texts,
        write_page_checksum=True,
    )


def _open_reader(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextlib.contextmanager
def _read(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"The part '{path}' cannot be read ({reason}); write the data set again.") from error
