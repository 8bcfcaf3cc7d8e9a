"""Encoded images by row, for splits that are decoded on the fly: from an entry of the cache, or from the data set.

Shapes: N samples of the data set.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from data.cache.budget import INDEX
from data.cache.decoded import DecodedImages, image_names
from data.cache.entry import Entry, new_entry
from data.dataset.dataset import Dataset
from data.dataset.parts import RowGroup, group_of
from data.lru import LruCache

_BYTES = "bytes"
ENCODED_ARRAYS = (_BYTES, INDEX)
"""bytes: the images of all samples, one after the other; index (N, 4, 2): start and end of each image of a sample.

A data set with validity masks has a fifth; start and end of those that are missing are equal."""

_MAX_GROUP_BYTES = 256 * 2**20
"""Row groups that stay in memory where not even the encoded images fit into the cache."""


def build_encoded(dataset: Dataset, entry: Path, on_ready: Callable[[int], None]) -> None:
    """Copy all encoded images of `dataset` to a new entry, each background once. The caller holds its lock.

    Args:
        dataset: an opened data set.
        entry: its path.
        on_ready: progress callback, called with the number of samples that are ready.

    Raises:
        InputError: if a part is damaged or gone.
        NoRoomError: if the entry does not fit.
    """
    groups = (*dataset.sample_groups, *dataset.background_groups)
    # An upper bound: the ids of the samples are counted, too.
    total = sum(group.footer.row_group(group.number).total_byte_size for group in groups)
    names = image_names(dataset.info.has_validity)
    index = np.empty((dataset.info.counts.samples, len(names), 2), np.int64)
    layout = {_BYTES: ("u1", (total,)), INDEX: ("i8", index.shape)}
    backgrounds: dict[str, tuple[int, int]] = {}
    end = 0
    with new_entry(entry, layout, on_ready) as new:
        for row, sample in enumerate(dataset.read_encoded()):
            for column, name in enumerate(names):
                if name == "bg" and sample.bg_id in backgrounds:
                    index[row, column] = backgrounds[sample.bg_id]
                    continue
                image = getattr(sample, name) or b""
                new.write(_BYTES, image, end)
                index[row, column] = end, end + len(image)
                end += len(image)
            backgrounds.setdefault(sample.bg_id, tuple(index[row, 0].tolist()))
            new.ready(row + 1)
        new.write(INDEX, index.data)


class CachedImages:
    """Encoded images in an entry of the cache: a data set elsewhere is fetched once."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry  # in use as long as this object is
        self._offset = entry.arrays[_BYTES].offset
        # Read, not mapped: a page fault would stop all threads of Python.
        self._file = os.open(entry.directory / f"{_BYTES}.npy", os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def read(self, row: int, name: str) -> bytes:
        """Image `name` of `image_names` of the sample in `row`; empty if it has no validity mask."""
        start, end = self._entry.arrays[INDEX][row, DecodedImages._fields.index(name)].tolist()
        return os.pread(self._file, end - start, self._offset + start)


class StoredImages:
    """Encoded images in the row groups of the data set, where not even those fit into the cache.

    Row groups are read whole. Those used last stay in memory, so that a data set of up to `_MAX_GROUP_BYTES` is read
    once; of a larger one, a row group is read for almost every sample.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._samples, self._backgrounds = dataset.sample_groups, dataset.background_groups
        self._names = image_names(dataset.info.has_validity)
        self._bg_of = dataset.ids.bg_id
        self._bg_rows = {
            bg_id: group.first + row
            for group in self._backgrounds
            for row, bg_id in enumerate(group.read(["bg_id"])["bg_id"].to_pylist())
        }
        self._tables = LruCache[RowGroup, pa.Table](_MAX_GROUP_BYTES)
        self._checked: set[RowGroup] = set()

    def read(self, row: int, name: str) -> bytes:
        """Image `name` of `image_names` of the sample in `row`; empty if it has no validity mask.

        Raises:
            InputError: if a part of the data set is damaged or gone.
        """
        groups: Sequence[RowGroup] = self._samples
        columns: Sequence[str] = self._names[1:]
        if name == "bg":
            groups, columns, row = self._backgrounds, self._names[:1], self._bg_rows[self._bg_of[row]]
        group = group_of(groups, row)
        table = self._tables.get(group, partial(self._read_group, group, columns))
        return bytes(table[name][row - group.first].as_py() or b"")

    def _read_group(self, group: RowGroup, columns: Sequence[str]) -> pa.Table:
        """Checksums are compared when a row group is read for the first time: they take longer than to read it."""
        table = group.read(columns, checked=group not in self._checked)
        self._checked.add(group)
        return table


EncodedImages = CachedImages | StoredImages
"""The encoded images of a data set; safe to use from several threads."""
