"""Verify the images and placements of a row group: decode each one, and check the readable part of damaged columns."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from data.composed.columns import PLACEMENT_COLUMNS, Placements
from data.dataset.storage import UnavailableError
from data.errors import InputError
from data.image_metadata import PNG
from data.images import DECODERS
from data.schema import BACKGROUND_COLUMNS, SAMPLE_COLUMNS, VALID_COLUMN

if TYPE_CHECKING:
    import pyarrow as pa

    from data.dataset.parts import RowGroup

ImageName = Literal["bg", "fg_bg", "mask", "depth", "valid", "cutout"]
SAMPLE_IMAGES: tuple[ImageName, ...] = ("fg_bg", "mask", "depth")
"""The images that every sample has; some also have a validity mask."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault in a data set."""

    part: str
    """File name in the directory of the data set."""
    reason: str
    sample_id: str | None = None
    bg_id: str | None = None
    """Only for a background, or for the depth or cutout of a recipe, whose id it then is."""
    picture: ImageName | None = None

    def __str__(self) -> str:
        row = f", sample {self.sample_id}" if self.sample_id else f", background {self.bg_id}" if self.bg_id else ""
        return f"{self.part}{row}{f', {self.picture}' if self.picture else ''}: {self.reason}"


Shapes = dict[str, tuple[int, int] | None]
"""Height and width of each background; None if it cannot be decoded."""


@dataclass
class GroupResult:
    """Result for a row group."""

    images: int = 0
    """Number of images that were decoded."""
    faults: list[Fault] = field(default_factory=list)
    shapes: Shapes = field(default_factory=dict)


def check_backgrounds(group: RowGroup) -> GroupResult:
    """Decode the backgrounds of a row group.

    Raises:
        UnavailableError: if it is remote and cannot be reached.
    """
    result = GroupResult()
    columns = _Columns(group, BACKGROUND_COLUMNS.names, result)
    for row in range(group.rows):
        bg_id = columns.text("bg_id", row)
        result.shapes[bg_id] = columns.decode("bg", row, bg_id=bg_id)
    columns.finish()
    return result


def check_samples(group: RowGroup, backgrounds: Shapes, *, is_complete: bool) -> GroupResult:
    """Decode the sample images of a row group, and compare their sizes with those of `backgrounds`.

    Args:
        group: row group of samples.
        backgrounds: shapes of the backgrounds in the data set.
        is_complete: whether `backgrounds` has all of them, so that a missing one is a fault of the sample.

    Raises:
        UnavailableError: if it is remote and cannot be reached.
    """
    result = GroupResult()
    columns = _Columns(group, [*SAMPLE_COLUMNS.names, VALID_COLUMN.name], result)
    for row in range(group.rows):
        sample_id, bg_id = columns.text("sample_id", row), columns.text("bg_id", row)
        if is_complete and bg_id not in backgrounds and columns.is_intact("bg_id"):
            columns.add("bg", f"there is no background '{bg_id}'", sample_id=sample_id)
        expected = backgrounds.get(bg_id)
        for name in (*SAMPLE_IMAGES, "valid"):
            shape = columns.decode(name, row, sample_id=sample_id)
            if shape and expected and shape != expected:
                size, other = (f"{width}x{height}" for height, width in (shape, expected))
                columns.add(name, f"it is {size}, but its background {bg_id} is {other}", sample_id=sample_id)
    columns.finish()
    return result


def check_recipe_images(group: RowGroup, schema: pa.Schema, size: int) -> GroupResult:
    """Decode the source images of a row group of a recipe: backgrounds, depths or cutouts.

    Args:
        group: the row group.
        schema: its columns, an id and an image.
        size: side of backgrounds and depths in pixels.

    Raises:
        UnavailableError: if it is remote and cannot be reached.
    """
    result = GroupResult()
    columns = _Columns(group, schema.names, result)
    id_name, image = schema.names
    for row in range(group.rows):
        name = columns.text(id_name, row)
        shape = columns.decode(image, row, bg_id=name)
        if shape and image != "cutout" and shape != (size, size):
            columns.add(image, f"it is {shape[1]}x{shape[0]}, but must be {size}x{size}", bg_id=name)
    columns.finish()
    return result


def check_placements(group: RowGroup, backgrounds: int, foregrounds: int, size: int) -> GroupResult:
    """Check that the rows of a recipe fit its sources.

    Args:
        group: row group of placements.
        backgrounds: number of backgrounds.
        foregrounds: number of cutouts.
        size: side of the images in pixels.

    Raises:
        UnavailableError: if it is remote and cannot be reached.
    """
    result = GroupResult()
    part = group.path.name
    try:
        placements = Placements.from_table(group.read(PLACEMENT_COLUMNS.names))
    except UnavailableError:
        raise
    except InputError as error:
        result.faults.append(Fault(part=part, reason=str(error)))
        return result
    for row in placements.wrong_rows(backgrounds, foregrounds, size).tolist():
        reason = f"row {group.first + row} does not fit the backgrounds, the cutouts or images of {size} px"
        result.faults.append(Fault(part=part, reason=reason))
    return result


class _Columns:
    """Columns of a row group; of a damaged column, the values that can still be read."""

    def __init__(self, group: RowGroup, names: list[str], result: GroupResult) -> None:
        self._group = group
        self._result = result
        self._damaged: dict[str, str] = {}
        self._reported: set[str] = set()
        self._tables: dict[str, pa.Table | None] = {}
        try:
            self._tables = dict.fromkeys(names, group.read(names))
        except UnavailableError:
            raise
        except InputError:
            self._tables = {name: self._read(name) for name in names}

    def _read(self, name: str) -> pa.Table | None:
        try:
            return self._group.read([name])
        except UnavailableError:
            raise
        except InputError as error:
            self._damaged[name] = str(error)
        with contextlib.suppress(InputError):
            return self._group.read([name], checked=False)
        return None

    def is_intact(self, name: str) -> bool:
        return name not in self._damaged

    def text(self, name: str, row: int) -> str:
        """The id in a row, or the row number if the id is lost."""
        table = self._tables[name]
        if table is not None:
            with contextlib.suppress(UnicodeDecodeError):
                return str(table[name][row].as_py())
        return f"in row {self._group.first + row}"

    def decode(
        self, name: ImageName, row: int, *, sample_id: str | None = None, bg_id: str | None = None
    ) -> tuple[int, int] | None:
        """Height and width of an image; None if there is none, or it, or its column, cannot be decoded."""
        table = self._tables[name]
        if table is None or (encoded := table[name][row].as_py()) is None:
            return None
        try:
            _check_png(encoded, name)
            height, width = DECODERS[name](encoded, name).shape[:2]
        except InputError as error:
            self.add(name, str(error), sample_id=sample_id, bg_id=bg_id)
            return None
        self._result.images += 1
        return height, width

    def add(self, name: ImageName, reason: str, *, sample_id: str | None = None, bg_id: str | None = None) -> None:
        self._reported.add(name)
        part = self._group.path.name
        self._result.faults.append(Fault(part=part, reason=reason, sample_id=sample_id, bg_id=bg_id, picture=name))

    def finish(self) -> None:
        """Report damaged columns in which every image can be decoded: an altered JPEG decodes to other pixels."""
        ids = next(iter(self._tables))
        first, last = self.text(ids, 0), self.text(ids, self._group.rows - 1)
        for name in self._damaged.keys() - self._reported:
            still = "" if self._tables[name] is None else ", although it can be decoded"
            reason = f"the column '{name}' of {ids} {first} to {last} was altered{still}: {self._damaged[name]}"
            self._result.faults.append(Fault(part=self._group.path.name, reason=reason))


def _check_png(encoded: bytes, where: str) -> None:
    """Verify the chunk checksums of a PNG file, which detects more than decoding; ignores other formats.

    Raises:
        InputError: if a checksum differs, or the file is cut off.
    """
    if not encoded.startswith(PNG):
        return
    start, kind = len(PNG), b""
    while kind != b"IEND":
        end = start + 12 + int.from_bytes(encoded[start : start + 4], "big")
        if end > len(encoded):
            raise InputError(f"The image '{where}' is a PNG file that is cut off; replace it by a whole one.")
        kind = encoded[start + 4 : start + 8]
        if zlib.crc32(encoded[start + 4 : end - 4]) != int.from_bytes(encoded[end - 4 : end], "big"):
            raise InputError(f"The image '{where}' was altered from byte {start} on; replace it by a whole one.")
        start = end
