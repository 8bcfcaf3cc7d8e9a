"""Read a recipe: its rows, its source images, and the samples composed from them.

Shapes: S is the side of the composed images in pixels, H and W are height and width of a cutout.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data.composed.columns import CUTOUT_COLUMNS, DEPTH_COLUMNS, PLACEMENT_COLUMNS, Placements
from data.composed.rendering import compose, encode_composed
from data.dataset.ids import IdColumn
from data.dataset.manifest import SampleIds
from data.dataset.parts import RowGroup, group_of, row_groups
from data.errors import InputError
from data.images import DECODERS
from data.lru import LruCache
from data.parallel import ahead
from data.schema import BACKGROUND_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from data.dataset.manifest import DatasetInfo, PartKind
    from data.dataset.storage import Location
    from data.schema import EncodedSample, Pixels

MAX_DECODED_BYTES = 64 * 2**20
"""Decoded images of each kind that stay in memory."""
MAX_STORED_BYTES = 64 * 2**20
"""Row groups of each kind that stay in memory."""
CONCURRENT_READS = 4


class Recipe:
    """The rows and source images of a data set that is composed when it is read. Safe to use from several threads."""

    def __init__(self, path: Location, info: DatasetInfo) -> None:
        self._path = path
        self._info = info

    def __getstate__(self) -> dict[str, object]:
        """Without what was read: another process reads it itself."""
        return {"_path": self._path, "_info": self._info}

    @property
    def size(self) -> int:
        """S."""
        return self._info.sizes[0].height

    @cached_property
    def placements(self) -> Placements:
        """The rows of all samples.

        Raises:
            InputError: if a part is damaged, or a row does not fit the sources.
        """
        groups = row_groups(self._path, self._info.parts_of("placements"), PLACEMENT_COLUMNS)
        tables = ahead((partial(group.read, PLACEMENT_COLUMNS.names) for group in groups), CONCURRENT_READS)
        placements = Placements.from_table(pa.concat_tables(tables))
        wrong = placements.wrong_rows(self._info.counts.backgrounds, self._info.counts.foregrounds, self.size)
        if len(wrong):
            raise InputError(
                f"Row {wrong[0]} of the placements in '{self._path}' does not fit the backgrounds, the cutouts or "
                f"images of {self.size} px; write the data set again."
            )
        return placements

    @cached_property
    def ids(self) -> SampleIds:
        """The ids of all samples, in storage order."""
        placements = self.placements
        bg_ids, fg_ids = (
            pa.array(images.ids).take(pa.array(rows))
            for images, rows in ((self._photos, placements.background), (self._cutouts, placements.foreground))
        )
        directions = pa.array(["0", "1"]).take(pa.array(placements.mirrored.astype(np.uint8)))
        numbers = pa.array([f"{number:02d}" for number in range(int(placements.number.max(initial=0)) + 1)])
        sample_ids = pc.binary_join_element_wise(
            bg_ids, fg_ids, directions, numbers.take(pa.array(placements.number)), "_"
        )
        return SampleIds(sample_id=IdColumn(sample_ids), bg_id=IdColumn(bg_ids), fg_id=IdColumn(fg_ids))

    def background(self, row: int) -> Pixels:
        """A background (S, S, 3), read-only.

        Raises:
            InputError: here and below, if a part is damaged or gone, or the image cannot be decoded.
        """
        return self._photos.decoded(row)

    def depth(self, row: int) -> Pixels:
        """The depth (S, S) of a background, read-only."""
        return self._depths.decoded(row)

    def cutout(self, row: int) -> Pixels:
        """A cutout (H, W, 4) with colours multiplied by alpha, read-only."""
        return self._cutouts.decoded(row)

    def encoded(self, rows: NDArray[np.int64]) -> Iterator[EncodedSample]:
        """Compose and encode the samples of `rows`, in that order; the same bytes as in a data set of images."""
        for row in rows.tolist():
            placement = self.placements.row(row)
            background, foreground = placement.background, placement.foreground
            bg, depth, cutout = self.background(background), self.depth(background), self.cutout(foreground)
            yield encode_composed(
                (self._photos.ids[background], self._cutouts.ids[foreground]),
                self._photos.encoded(background),
                compose(bg, depth, cutout, placement),
                placement,
            )

    @cached_property
    def _photos(self) -> _Images:
        return _Images(self._path, self._info, "backgrounds", BACKGROUND_COLUMNS)

    @cached_property
    def _depths(self) -> _Images:
        return _Images(self._path, self._info, "depths", DEPTH_COLUMNS)

    @cached_property
    def _cutouts(self) -> _Images:
        return _Images(self._path, self._info, "cutouts", CUTOUT_COLUMNS)


class _Images:
    """The source images of a kind: an id and an encoded image in each row."""

    def __init__(self, path: Location, info: DatasetInfo, kind: PartKind, schema: pa.Schema) -> None:
        self._path = path
        self._id, self._image = schema.names
        self._groups = list(row_groups(path, info.parts_of(kind), schema))
        self._tables = LruCache[RowGroup, pa.Table](MAX_STORED_BYTES)
        self._decoded = LruCache[int, "Pixels"](MAX_DECODED_BYTES)

    @cached_property
    def ids(self) -> list[str]:
        """The id of each row."""
        tables = ahead((partial(group.read, [self._id]) for group in self._groups), CONCURRENT_READS)
        return [str(name) for table in tables for name in table[self._id].to_pylist()]

    def encoded(self, row: int) -> bytes:
        """The file of an image."""
        group = group_of(self._groups, row)
        table = self._tables.get(group, partial(group.read, [self._image]))
        return bytes(table[self._image][row - group.first].as_py())

    def decoded(self, row: int) -> Pixels:
        """The pixels of an image, read-only."""
        return self._decoded.get(row, partial(self._decode, row))

    def _decode(self, row: int) -> Pixels:
        where = f"{self._image} of {self.ids[row]} in {self._path}"
        pixels = DECODERS[self._image](self.encoded(row), where)
        pixels.setflags(write=False)
        return pixels
