"""The Parquet parts of a data set: rows of ids and encoded images, written and read by row group.

Images are compressed already, so their columns are not; each page carries a checksum that reading verifies.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import pyarrow as pa
import pyarrow.parquet as pq

from data.dataset.manifest import Part
from data.dataset.partial import final_path
from data.dataset.storage import Location, refused
from data.disk import disk_error
from data.errors import InputError
from data.parallel import ahead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from data.dataset.manifest import PartKind

HASHED_AT_ONCE = 4 * 2**20
FOOTERS_AT_ONCE = 8

Row = dict[str, str | bytes]


class PartsWriter:
    """Writes rows to KIND-00000.parquet, KIND-00001.parquet, …, and holds one row group in memory at most.

    A part ends when it holds `part_bytes` of ids and images, a row group at `group_bytes`. A `mark` stands in the
    parts' names: KIND-00000-MARK.parquet.
    """

    def __init__(
        self,
        directory: Location,
        kind: PartKind,
        schema: pa.Schema,
        *,
        part_bytes: int,
        group_bytes: int,
        mark: str = "",
    ) -> None:
        self._directory = directory
        self._kind: PartKind = kind
        self._ending = f"-{mark}.parquet" if mark else ".parquet"
        self._schema = schema
        self._part_bytes = part_bytes
        self._group_bytes = min(group_bytes, part_bytes)
        self._hash = hashlib.sha256()
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
        with writing_to(self._directory):
            if self._writer is None:
                self._file = _HashedFile((self._directory / self._name).open_output())
                self._writer = _open_writer(self._file, self._schema)
            self._writer.write_table(pa.Table.from_pylist(self._buffer, self._schema))
        self._rows += len(self._buffer)
        self._buffer, self._buffered = [], 0

    def _finish_part(self) -> None:
        if self._buffer:
            self._flush()
        writer, file = self._writer, self._file
        if writer is None or file is None:
            raise AssertionError("A part that is finished has rows.")
        with writing_to(self._directory):
            writer.close()
            file.close()
            path = (self._directory / self._name).local
            if path is not None:
                with path.open("rb") as written:
                    os.fsync(written.fileno())
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
    """A run of rows that is read at once."""

    path: Location
    """The part that it is in."""
    number: int
    """Its number in the part."""
    first: int
    """Row number of its first row, over all parts of the kind."""
    rows: int
    footer: pq.FileMetaData = field(repr=False, compare=False)
    """The part's, so that it is read once."""

    def read(self, columns: Sequence[str], *, checked: bool = True) -> pa.Table:
        """Return the named columns.

        Args:
            columns: some of the schema's.
            checked: compare the pages with their checksums.

        Raises:
            InputError: if the part is damaged or gone.
        """
        with _read(self.path), _open_reader(self.path, self.footer, checked=checked) as file:
            table = file.read_row_group(self.number, columns=list(columns), use_threads=False)
            if checked:
                table.validate(full=True)
            return table


def row_groups(directory: Location, parts: Sequence[Part], schema: pa.Schema) -> Iterator[RowGroup]:
    """Row groups of `parts` in storage order; only the parts' footers are read, several at once.

    Raises:
        InputError: if a part is damaged, or is not what `dataset.json` says.
    """
    first = 0
    footers = ahead((_reading_footer(directory / part.path) for part in parts), FOOTERS_AT_ONCE)
    for part, footer in zip(parts, footers, strict=True):
        path = directory / part.path
        counts = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        with _read(path):
            stored = footer.schema.to_arrow_schema()
        if not stored.equals(schema) or sum(counts) != part.rows:
            raise InputError(
                f"The part '{path}' has {sum(counts)} rows of {', '.join(stored.names)}, but must have "
                f"{part.rows} rows of {', '.join(schema.names)}; write the data set again."
            )
        for number, rows in enumerate(counts):
            yield RowGroup(path=path, number=number, first=first, rows=rows, footer=footer)
            first += rows


@contextlib.contextmanager
def writing_to(directory: Location) -> Iterator[None]:
    """Turn what the filesystem refuses into a sentence that names the place.

    Raises:
        DiskError: if it is full or has another fault of its own.
        InputError: if it refuses for another reason.
    """
    try:
        yield
    except OSError as error:
        local = directory.local
        place = directory if local is None else Location.parse(final_path(local).parent)
        fault = None if directory.scheme else disk_error(error, place.path)
        raise (
            fault
            or refused(place, error)
            or InputError(
                f"The data set cannot be written to '{place}' ({error}); free space there, or give another place."
            )
        ) from error


def sha256(path: Location) -> str:
    """SHA-256 of a file, in hexadecimal.

    Raises:
        InputError: if it cannot be read.
    """
    digest = hashlib.sha256()
    with _read(path), path.open_input() as file:
        while block := file.read(HASHED_AT_ONCE):
            digest.update(block)
    return digest.hexdigest()


class _HashedFile:
    """A file that is written to, its size and its checksum: what was sent elsewhere need not be fetched again."""

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
        """What is on its way arrives when the file is closed."""

    def close(self) -> None:
        self._file.close()

    def sha256(self) -> str:
        return self._hash.hexdigest()


def _open_writer(file: _HashedFile, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(
        file,
        schema,
        compression={name: "zstd" if name in texts else "none" for name in schema.names},
        # The checksums do not cover dictionaries.
        use_dictionary=False,
        write_statistics=texts,
        write_page_checksum=True,
    )


@contextlib.contextmanager
def _open_reader(path: Location, footer: pq.FileMetaData | None, *, checked: bool = True) -> Iterator[pq.ParquetFile]:
    # Elsewhere, a row group is fetched in one piece.
    with (
        path.open_input() as file,
        pq.ParquetFile(
            file, metadata=footer, pre_buffer=bool(path.scheme), page_checksum_verification=checked
        ) as reader,
    ):
        yield reader


def _reading_footer(path: Location) -> Callable[[], pq.FileMetaData]:
    def read() -> pq.FileMetaData:
        with _read(path), _open_reader(path, None) as file:
            return file.metadata

    return read


@contextlib.contextmanager
def _read(path: Location) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise refused(path, error) or InputError(
            f"The part '{path}' cannot be read ({reason}); write the data set again."
        ) from error
