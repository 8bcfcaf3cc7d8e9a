"""Write a recipe: the source images, and a row for each sample.

Shapes: S is the side of the composed images in pixels, H and W are height and width of a cutout.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data.composed.columns import CUTOUT_COLUMNS, DEPTH_COLUMNS, PLACEMENT_COLUMNS
from data.composed.rendering import compose
from data.dataset.manifest import Counts, DatasetInfo, Size
from data.dataset.parts import PartsWriter
from data.dataset.publish import pending_dataset
from data.dataset.statistics import StatisticsGatherer
from data.dataset.storage import Location
from data.images import encode_depth, encode_png
from data.schema import BACKGROUND_COLUMNS, RECIPE_SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from data.composed.columns import Placements
    from data.dataset.publish import PendingDataset
    from data.dataset.storage import AnyPath
    from data.schema import Pixels

STATISTICS_SAMPLES = 1000
"""Samples that are composed for the statistics; all of a smaller data set."""
PART_BYTES, GROUP_BYTES = 256 * 2**20, 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class RecipeBackground:
    """A background at the size of the composed images."""

    bg_id: str
    encoded: bytes
    """The file from which `bg` is decoded."""
    bg: Pixels
    """(S, S, 3) RGB."""
    depth: Pixels
    """(S, S), far is bright."""


@dataclass(frozen=True, kw_only=True)
class RecipeCutout:
    """A foreground."""

    fg_id: str
    rgba: Pixels
    """(H, W, 4) with colours multiplied by alpha, at least as large as in any sample."""


def write_recipe(
    blocks: Iterable[tuple[Sequence[RecipeBackground], Placements]],
    cutouts: Sequence[RecipeCutout],
    destination: AnyPath,
    *,
    samples: int,
    source: Mapping[str, object],
) -> DatasetInfo:
    """Write a data set whose samples are composed when they are read. It appears when it is complete.

    Its fingerprint is the SHA-256 of the digests of its placements, backgrounds, depths and cutouts, in this order; see
    `PartsWriter.digest`.

    Args:
        blocks: backgrounds in order, each block with all placements in them; rows of backgrounds are counted over all
            blocks.
        cutouts: all foregrounds.
        destination: a directory that does not exist, or an address without a data set.
        samples: number of all placements.
        source: origin of the samples, as JSON values, for `dataset.json`.

    Raises:
        InputError: if the destination exists or cannot be written.
    """
    with pending_dataset(Location.parse(destination)) as pending:
        info = _write_parts(blocks, cutouts, pending, samples, dict(source))
        pending.publish(info.to_json())
    return info


def _write_parts(
    blocks: Iterable[tuple[Sequence[RecipeBackground], Placements]],
    cutouts: Sequence[RecipeCutout],
    pending: PendingDataset,
    samples: int,
    source: dict[str, object],
) -> DatasetInfo:
    writer = partial(
        PartsWriter,
        pending.directory,
        destination=pending.destination,
        part_bytes=PART_BYTES,
        group_bytes=GROUP_BYTES,
        mark=pending.mark,
    )
    measured = min(samples, STATISTICS_SAMPLES)
    statistics = _Statistics(_drawn_rows(samples, measured), cutouts)
    backgrounds, size = 0, 0
    with (
        writer("placements", PLACEMENT_COLUMNS) as placement_parts,
        writer("backgrounds", BACKGROUND_COLUMNS) as background_parts,
        writer("depths", DEPTH_COLUMNS) as depth_parts,
        writer("cutouts", CUTOUT_COLUMNS) as cutout_parts,
    ):
        for cutout in cutouts:
            cutout_parts.add({"fg_id": cutout.fg_id, "cutout": encode_png(cutout.rgba)})
        for block, placements in blocks:
            for background in block:
                background_parts.add({"bg_id": background.bg_id, "bg": background.encoded})
                depth_parts.add({"bg_id": background.bg_id, "depth": encode_depth(background.depth)})
                size = len(background.depth)
            placement_parts.add_table(placements.to_table())
            statistics.add(block, placements, first_background=backgrounds)
            backgrounds += len(block)
        writers = (placement_parts, background_parts, depth_parts, cutout_parts)
        parts = tuple(part for each in writers for part in each.finish())
        fingerprint = hashlib.sha256(b"".join(each.digest() for each in writers)).hexdigest()
    return DatasetInfo(
        schema_version=RECIPE_SCHEMA_VERSION,
        counts=Counts(samples=samples, backgrounds=backgrounds, foregrounds=len(cutouts)),
        sizes=(Size(height=size, width=size, samples=samples),),
        statistics=statistics.gatherer.result(),
        depth_polarity="far-bright",
        parts=parts,
        fingerprint=fingerprint,
        source=source,
        statistics_samples=measured if measured < samples else None,
    )


def _drawn_rows(samples: int, count: int) -> NDArray[np.int64]:
    """`count` ascending rows of the samples, drawn at random: evenly spaced ones could all have one foreground."""
    return np.sort(np.random.default_rng(0).choice(samples, count, replace=False))


class _Statistics:
    """Composes some samples for the statistics; the backgrounds are all counted."""

    def __init__(self, rows: NDArray[np.int64], cutouts: Sequence[RecipeCutout]) -> None:
        self.gatherer = StatisticsGatherer()
        self._rows = rows
        self._cutouts = cutouts
        self._first_row = 0

    def add(self, block: Sequence[RecipeBackground], placements: Placements, *, first_background: int) -> None:
        """Count a block, which follows the blocks before."""
        for background in block:
            self.gatherer.add_background(background.bg)
        for row in self._rows_in(len(placements)):
            placement = placements.row(row)
            background = block[placement.background - first_background]
            images = compose(background.bg, background.depth, self._cutouts[placement.foreground].rgba, placement)
            self.gatherer.add_sample(*images)
        self._first_row += len(placements)

    def _rows_in(self, count: int) -> Iterator[int]:
        start, stop = np.searchsorted(self._rows, [self._first_row, self._first_row + count])
        yield from (self._rows[start:stop] - self._first_row).tolist()
