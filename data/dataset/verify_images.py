"""What is broken in a row group: each picture is decoded, and of a damaged column what can be read is looked at."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from data.dataset.storage import RefusedError
from data.errors import InputError
from data.images import decode_photo, decode_plane
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

    from data.dataset.parts import RowGroup

Picture = Literal["bg", "fg_bg", "mask", "depth"]
OF_SAMPLE: tuple[Picture, ...] = ("fg_bg", "mask", "depth")

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that is broken."""

    part: str
    """File name, in the data set's directory."""
    reason: str
    sample_id: str | None = None
    bg_id: str | None = None
    """Where it is a background."""
    picture: Picture | None = None

    def __str__(self) -> str:
        of = f", sample {self.sample_id}" if self.sample_id else f", background {self.bg_id}" if self.bg_id else ""
        return f"{self.part}{of}{f', {self.picture}' if self.picture else ''}: {self.reason}"


Shapes = dict[str, tuple[int, int] | None]
"""Height and width of each background; None where it is broken."""


@dataclass
class Found:
    """In a row group."""

    pictures: int = 0
    faults: list[Fault] = field(default_factory=list)
    shapes: Shapes = field(default_factory=dict)


def check_backgrounds(group: RowGroup) -> Found:
    """Decode the row group's backgrounds.

    Raises:
        RefusedError: if it is elsewhere and cannot be reached.
    """
    found = Found()
    columns = _Columns(group, BACKGROUND_COLUMNS.names, found)
    for row in range(group.rows):
        bg_id = columns.text("bg_id", row)
        found.shapes[bg_id] = columns.decode("bg", row, bg_id=bg_id)
    columns.finish()
    return found


def check_samples(group: RowGroup, backgrounds: Shapes, *, are_all: bool) -> Found:
    """Decode the row group's pictures, and compare their sizes with those of `backgrounds`.

    Args:
        group: of samples.
        backgrounds: those that were found.
        are_all: none was lost, so that a sample without its background is a fault of the sample.

    Raises:
        RefusedError: if it is elsewhere and cannot be reached.
    """
    found = Found()
    columns = _Columns(group, SAMPLE_COLUMNS.names, found)
    for row in range(group.rows):
        sample_id, bg_id = columns.text("sample_id", row), columns.text("bg_id", row)
        if are_all and bg_id not in backgrounds and columns.are_intact("bg_id"):
            columns.add("bg", f"there is no background '{bg_id}'", sample_id=sample_id)
        wanted = backgrounds.get(bg_id)
        for picture in OF_SAMPLE:
            shape = columns.decode(picture, row, sample_id=sample_id)
            if shape and wanted and shape != wanted:
                size, other = (f"{width}x{height}" for height, width in (shape, wanted))
                columns.add(picture, f"it is {size}, but its background {bg_id} is {other}", sample_id=sample_id)
    columns.finish()
    return found


class _Columns:
    """A row group's columns: where one is damaged, what can still be read of it."""

    def __init__(self, group: RowGroup, names: list[str], found: Found) -> None:
        self._group = group
        self._found = found
        self._damaged: dict[str, str] = {}
        self._named: set[str] = set()
        self._tables: dict[str, pa.Table | None] = {}
        try:
            self._tables = dict.fromkeys(names, group.read(names))
        except RefusedError:
            raise
        except InputError:
            self._tables = {name: self._read(name) for name in names}

    def _read(self, name: str) -> pa.Table | None:
        try:
            return self._group.read([name])
        except RefusedError:
            raise
        except InputError as error:
            self._damaged[name] = str(error)
        with contextlib.suppress(InputError):
            return self._group.read([name], checked=False)
        return None

    def are_intact(self, name: str) -> bool:
        return name not in self._damaged

    def text(self, name: str, row: int) -> str:
        """An id, or, where it is lost, the number of the row."""
        table = self._tables[name]
        if table is not None:
            with contextlib.suppress(UnicodeDecodeError):
                return str(table[name][row].as_py())
        return f"in row {self._group.first + row}"

    def decode(
        self, picture: Picture, row: int, *, sample_id: str | None = None, bg_id: str | None = None
    ) -> tuple[int, int] | None:
        """Height and width; None where the picture is broken, or lost with its column."""
        table = self._tables[picture]
        if table is None:
            return None
        encoded = table[picture][row].as_py()
        decode = decode_photo if picture in ("bg", "fg_bg") else decode_plane
        try:
            _check_png(encoded, picture)
            height, width = decode(encoded, picture).shape[:2]
        except InputError as error:
            self.add(picture, str(error), sample_id=sample_id, bg_id=bg_id)
            return None
        self._found.pictures += 1
        return height, width

    def add(self, picture: Picture, reason: str, *, sample_id: str | None = None, bg_id: str | None = None) -> None:
        self._named.add(picture)
        part = self._group.path.name
        self._found.faults.append(Fault(part=part, reason=reason, sample_id=sample_id, bg_id=bg_id, picture=picture))

    def finish(self) -> None:
        """Name the damage that no picture showed: an altered JPEG decodes to something else."""
        ids = "sample_id" if "sample_id" in self._tables else "bg_id"
        first, last = self.text(ids, 0), self.text(ids, self._group.rows - 1)
        for name in self._damaged.keys() - self._named:
            still = "" if self._tables[name] is None else ", though what is there can be decoded"
            reason = f"the column '{name}' of {ids} {first} to {last} was altered{still}: {self._damaged[name]}"
            self._found.faults.append(Fault(part=self._group.path.name, reason=reason))


def _check_png(encoded: bytes, where: str) -> None:
    """Compare a PNG's chunks with their checksums, which says more than a decoder that gives up.

    Raises:
        InputError: if one differs, or the file is cut off; other kinds of files are not looked at.
    """
    if not encoded.startswith(PNG):
        return
    start, kind = len(PNG), b""
    while kind != b"IEND":
        end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")
        if end > len(encoded):
            raise InputError(f"The picture '{where}' is a PNG file that is cut off; replace it by a whole one.")
        kind = encoded[start + 4 : start + 8]
        if zlib.crc32(encoded[start + 4 : end - 4]) != int.from_bytes(encoded[end - 4 : end], "big"):
            raise InputError(f"The picture '{where}' was altered from its byte {start} on; replace it by a whole one.")
        start = end
