"""Write and read the Parquet parts of a data set by row group: rows of ids and encoded images.

Columns of images are not compressed, because the images are. Each page has a checksum that is verified when it is read.
"""

from __future__ import annotations

import contextlib
import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from data.atomic import sync_file
from data.dataset.manifest import Part
from data.dataset.storage import Location, unavailable
from data.disk import disk_error
from data.errors import InputError
from data.parallel import ahead

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from data.dataset.manifest import PartKind

HASH_BLOCK_BYTES = 4 * 2**20
CONCURRENT_FOOTERS = 8

Row = dict[str, str | bytes | None]

_OPTIONAL_MARK = b"\xff" * 8
"""Hashed before a value of an optional column: no other value is as long as these bytes would say."""


class PartsWriter:
    """Writes rows to KIND-00000.parquet, KIND-00001.parquet, …, with at most one row group in memory.

    A part ends at `part_bytes` of ids and images, a row group at `group_bytes`. With a `mark`, the names are
    KIND-00000-MARK.parquet. `destination` is where the data set will appear, for error messages. Parts have the
    `optional` column from the first row on that has a value for it; before, they are as without it.
    """

    def __init__(
        self,
        directory: Location,
        kind: PartKind,
        schema: pa.Schema,
        *,
        destination: Location,
        part_bytes: int,
        group_bytes: int,
        mark: str = "",
        optional: pa.Field | None = None,
    ) -> None:
        self._directory = directory
        self._destination = destination
        self._kind: PartKind = kind
        self._ending = f"-{mark}.parquet" if mark else ".parquet"
        self._schema = schema
        self._optional = optional
        self._has_optional = False
        self._part_bytes = part_bytes
        self._group_bytes = min(group_bytes, part_bytes)
        self._hash = hashlib.sha256()
        self._column_hashes: dict[str, hashlib._Hash] = {}
        self._parts: list[Part] = []
        self._file: _HashedFile | None = None
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
        for opened in (self._writer, self._file):
            if opened is not None:
                with contextlib.suppress(OSError, pa.ArrowException):
                    opened.close()

    def add(self, row: Row) -> None:
        """Append a row with a value for every column of the schema; that of the optional column may be None.

        Raises:
            InputError: if it cannot be written.
        """
        if self._optional is not None and not self._has_optional and row[self._optional.name] is not None:
            self._add_optional_column(self._optional)
        size = 0
        for name in self._schema.names:
            value = row[name]
            if value is None:
                continue
            if self._has_optional and name == self._schema.names[-1]:
                self._hash.update(_OPTIONAL_MARK)
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

    def add_table(self, table: pa.Table) -> None:
        """Append rows of numbers as a row group of their own; a writer takes either rows or tables.

        Raises:
            InputError: if they cannot be written.
        """
        for name in self._schema.names:
            values = table[name].to_numpy()
            self._column_hashes.setdefault(name, hashlib.sha256()).update(
                values.astype(values.dtype.newbyteorder("<")).tobytes()
            )
        self._write(table)
        self._bytes += table.nbytes
        if self._bytes >= self._part_bytes:
            self._finish_part()

    def finish(self) -> tuple[Part, ...]:
        """Write the remaining rows, and return all parts in storage order.

        Raises:
            InputError: if they cannot be written.
        """
        if self._bytes:
            self._finish_part()
        return tuple(self._parts)

    def digest(self) -> bytes:
        """SHA-256 of all rows: the length (8 bytes, big-endian) and the bytes of each value.

        Before the value of an optional column, there are 8 bytes 0xff. Of tables: SHA-256 of the SHA-256 of each
        column, whose numbers are little-endian and booleans a byte.
        """
        if self._column_hashes:
            return hashlib.sha256(b"".join(column.digest() for column in self._column_hashes.values())).digest()
        return self._hash.digest()

    def _add_optional_column(self, column: pa.Field) -> None:
        if self._bytes:
            self._finish_part()
        self._schema, self._has_optional = self._schema.append(column), True

    def _flush(self) -> None:
        self._write(pa.Table.from_pylist(self._buffer, self._schema))
        self._buffer, self._buffered = [], 0

    def _write(self, table: pa.Table) -> None:
        with writing_to(self._destination):
            if self._writer is None:
                self._file = _HashedFile((self._directory / self._name).open_output())
                self._writer = _open_writer(self._file, self._schema)
            self._writer.write_table(table)
        self._rows += len(table)

    def _finish_part(self) -> None:
        if self._buffer:
            self._flush()
        writer, file = self._writer, self._file
        if writer is None or file is None:
            raise AssertionError("A finished part must have rows.")
        with writing_to(self._destination):
            writer.close()
            file.close()
            path = (self._directory / self._name).local
            if path is not None:
                sync_file(path)
        self._parts.append(
            Part(path=self._name, kind=self._kind, rows=self._rows, bytes=file.bytes, sha256=file.sha256())
        )
        self._writer = self._file = None
        self._bytes = self._rows = 0

    @property
    def _name(self) -> str:
        return f"{self._kind}-{len(self._parts):05d}{self._ending}"


@dataclass(frozen=True)
class RowGroup:
    """A row group of a part, the unit of reading."""

    path: Location
    """The part."""
    number: int
    """Number of the row group in the part."""
    first: int
    """Row number of its first row, over all parts of the kind."""
    rows: int
    footer: pq.FileMetaData = field(repr=False, compare=False)
    """Footer of the part, so that it is read only once."""

    def read(self, columns: Sequence[str], *, checked: bool = True) -> pa.Table:
        """Read columns of the schema; verify the page checksums if `checked`.

        Raises:
            InputError: if the part is damaged or missing.
        """
        stored = self.footer.schema.names
        with _reading(self.path), _open_reader(self.path, self.footer, checked=checked) as file:
            there = [name for name in columns if name in stored]
            table = file.read_row_group(self.number, columns=there, use_threads=False)
            if checked:
                table.validate(full=True)
        for name in columns:
            if name not in stored:  # an optional column without a value in this part
                table = table.append_column(name, pa.nulls(self.rows, pa.binary()))
        return table


def group_of(groups: Sequence[RowGroup], row: int) -> RowGroup:
    """The row group, of those of a kind in storage order, that has a row counted over all of them."""
    return groups[bisect_right(groups, row, key=lambda group: group.first) - 1]


def row_groups(
    directory: Location, parts: Sequence[Part], schema: pa.Schema, optional: pa.Field | None = None
) -> Iterator[RowGroup]:
    """List the row groups of `parts` in storage order; reads only the footers, several concurrently.

    Each part may have the `optional` column.

    Raises:
        InputError: if a part is damaged, or differs from `dataset.json`.
    """
    first = 0
    schemas = [schema] if optional is None else [schema, schema.append(optional)]
    footers = ahead((partial(_read_footer, directory / part.path) for part in parts), CONCURRENT_FOOTERS)
    for part, footer in zip(parts, footers, strict=True):
        path = directory / part.path
        counts = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        with _reading(path):
            stored = footer.schema.to_arrow_schema()
        if not any(map(stored.equals, schemas)) or sum(counts) != part.rows:
            raise InputError(
                f"The part '{path}' has {sum(counts)} rows of {', '.join(stored.names)}, but must have "
                f"{part.rows} rows of {', '.join(schema.names)}; write the data set again."
            )
        for number, rows in enumerate(counts):
            yield RowGroup(path=path, number=number, first=first, rows=rows, footer=footer)
            first += rows


@contextlib.contextmanager
def writing_to(destination: Location) -> Iterator[None]:
    """Convert file system errors of a block that writes a data set to `destination`.

    Raises:
        DiskError: if the file system is full or has another fault.
        InputError: for any other reason.
    """
    try:
        yield
    except OSError as error:
        parent = destination if destination.scheme else destination.parent
        fault = unavailable(parent, error) if destination.scheme else disk_error(error, parent.path)
        raise fault or InputError(
            f"The data set cannot be written to '{parent}' ({error.strerror or error}); make it writable, or give "
            "another destination."
        ) from error


def sha256(path: Location) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        InputError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with _reading(path), path.open_input() as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class _HashedFile:
    """An output file that computes its size and checksum while it is written, without reading it again."""

    def __init__(self, file: pa.NativeFile) -> None:
        self.bytes = 0
        self._file = file
        self._hash = hashlib.sha256()

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def tell(self) -> int:
        return self.bytes

    def write(self, content: bytes) -> int:
        self._hash.update(content)
        self._file.write(content)
        self.bytes += len(content)
        return len(content)

    def flush(self) -> None:
        """Do nothing: the content is flushed on close."""

    def close(self) -> None:
        self._file.close()

    def sha256(self) -> str:
        return self._hash.hexdigest()


def _open_writer(file: _HashedFile, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    images = [field.name for field in schema if pa.types.is_binary(field.type)]
    return pq.ParquetWriter(
        file,
        schema,
        compression={name: "none" if name in images else "zstd" for name in schema.names},
        use_dictionary=False,  # page checksums do not cover dictionaries
        write_statistics=texts,
        write_page_checksum=True,
    )


@contextlib.contextmanager
def _open_reader(path: Location, footer: pq.FileMetaData | None, *, checked: bool = True) -> Iterator[pq.ParquetFile]:
    pre_buffer = bool(path.scheme)  # fetch a remote row group in one request
    with (
        path.open_input() as file,
        pq.ParquetFile(file, metadata=footer, pre_buffer=pre_buffer, page_checksum_verification=checked) as reader,
    ):
        yield reader


def _read_footer(path: Location) -> pq.FileMetaData:
    with _reading(path), _open_reader(path, None) as file:
        return file.metadata


@contextlib.contextmanager
def _reading(path: Location) -> Iterator[None]:
    """Convert errors of a block that reads a part to InputError."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise unavailable(path, error) or InputError(
            f"The part '{path}' cannot be read ({reason}); write the data set again."
        ) from error
