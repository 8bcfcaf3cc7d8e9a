"""The columns of the parts of a recipe, and the rows of its samples as arrays.

Shapes: N is the number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from data.dataset.manifest import PartKind

DEPTH_COLUMNS = pa.schema(
    [pa.field("bg_id", pa.string(), nullable=False), pa.field("depth", pa.binary(), nullable=False)]
)
"""One row per background, in the order of the backgrounds: its depth (S, S) as PNG, far is bright."""

CUTOUT_COLUMNS = pa.schema(
    [pa.field("fg_id", pa.string(), nullable=False), pa.field("cutout", pa.binary(), nullable=False)]
)
"""One row per foreground: RGBA (H, W, 4) as PNG, with colours multiplied by alpha, cropped to its visible pixels, and
at least as large as in any sample."""


class Placement(NamedTuple):
    """A row: how a sample is composed. Sizes and positions are in pixels of the composed image."""

    background: int
    """Row of the background and of its depth."""
    foreground: int
    """Row of the cutout."""
    mirrored: bool
    """Whether the cutout is mirrored left to right."""
    number: int
    """Of the placement of this foreground in this background and direction, from 0."""
    height: int
    """Of the cutout in the sample."""
    width: int
    top: int
    """Row of the cutout's upper left pixel."""
    left: int
    level: int
    """Depth of the cutout, 0..255; 255 if none of its pixels is opaque."""

    def sample_id(self, bg_id: str, fg_id: str) -> str:
        """The id of the sample."""
        return f"{bg_id}_{fg_id}_{int(self.mirrored)}_{self.number:02d}"


@dataclass(frozen=True)
class Placements:
    """The rows of all samples, in storage order; each column is (N,)."""

    background: NDArray[np.uint32]
    foreground: NDArray[np.uint32]
    mirrored: NDArray[np.bool_]
    number: NDArray[np.uint16]
    height: NDArray[np.uint16]
    width: NDArray[np.uint16]
    top: NDArray[np.uint16]
    left: NDArray[np.uint16]
    level: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.background)

    def row(self, index: int) -> Placement:
        """The row `index` as Python numbers."""
        return Placement(*(getattr(self, name)[index].item() for name in PLACEMENT_COLUMNS.names))

    def __iter__(self) -> Iterator[Placement]:
        """All rows as Python numbers."""
        columns = (getattr(self, name).tolist() for name in PLACEMENT_COLUMNS.names)
        return map(Placement._make, zip(*columns, strict=True))

    def take(self, rows: NDArray[np.int64] | slice) -> Placements:
        """Some of the rows."""
        return Placements(**{name: getattr(self, name)[rows] for name in PLACEMENT_COLUMNS.names})

    def wrong_rows(self, backgrounds: int, foregrounds: int, size: int) -> NDArray[np.int64]:
        """Rows whose background or cutout does not exist, or whose cutout is empty or not within the image.

        Args:
            backgrounds: number of backgrounds.
            foregrounds: number of cutouts.
            size: side of the images in pixels.
        """
        is_inside = (self.top.astype(np.int64) + self.height <= size) & (
            self.left.astype(np.int64) + self.width <= size
        )
        is_right = is_inside & (self.background < backgrounds) & (self.foreground < foregrounds)
        return np.flatnonzero(~(is_right & (self.height > 0) & (self.width > 0)))

    def to_table(self) -> pa.Table:
        """As the columns of the part."""
        columns = [_array(getattr(self, column.name), column.type) for column in PLACEMENT_COLUMNS]
        return pa.Table.from_arrays(columns, schema=PLACEMENT_COLUMNS)

    @classmethod
    def from_table(cls, table: pa.Table) -> Self:
        """The columns of the part."""
        return cls(**{name: table[name].to_numpy() for name in PLACEMENT_COLUMNS.names})


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Convert (N,) without `pa.array`, which imports pandas if that is installed: half a second."""
    bits = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(bits)])


PLACEMENT_COLUMNS = pa.schema(
    [
        pa.field("background", pa.uint32(), nullable=False),
        pa.field("foreground", pa.uint32(), nullable=False),
        pa.field("mirrored", pa.bool_(), nullable=False),
        *(pa.field(name, pa.uint16(), nullable=False) for name in ("number", "height", "width", "top", "left")),
        pa.field("level", pa.uint8(), nullable=False),
    ]
)
"""One row per sample; the fields of `Placement`."""

RECIPE_SCHEMAS: dict[PartKind, pa.Schema] = {
    "placements": PLACEMENT_COLUMNS,
    "depths": DEPTH_COLUMNS,
    "cutouts": CUTOUT_COLUMNS,
}
"""The columns of each kind of part that only a recipe has."""
