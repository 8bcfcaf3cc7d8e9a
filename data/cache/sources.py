"""The source images of a recipe, decoded and resized once per node, and memory-mapped by every trial.

Shapes: M backgrounds, C distinct sizes of cutouts. S is the side of the composed images in pixels, H and W are height
and width of a split's; h and w are height and width of a cutout.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from data.cache.budget import INDEX
from data.cache.entry import Entry, NewEntry, new_entry
from data.composed.columns import Placements
from data.composed.recipe import Recipe
from data.composed.rendering import Cutout, scaled_cutout
from data.fitting.fit import Fitting
from data.fitting.sizes import Sides
from data.lru import LruCache
from data.parallel import ahead
from data.schema import Pixels

Number = TypeVar("Number", int, NDArray[np.int64])

_BYTES = "bytes"
SOURCE_ARRAYS = ("bg", "depth", _BYTES, INDEX)
"""bg (M, S, S, 3) and depth (M, S, S) uint8; bytes: the colours (h, w, 3) and alpha (h, w) of each cutout at each size,
one after the other; index (C, 2) int64: key and start of each in `bytes`, ascending."""
RESIZED_ARRAYS = ("bg", "depth", INDEX)
"""bg (M, H, W, 3) and depth (M, H, W) uint8; index (M,) int64, the row."""

_MAX_RESIZED_BYTES = 128 * 2**20
"""Resized backgrounds that stay in memory where the cache has no room for them."""


class Resized(NamedTuple):
    """A background and its depth at the size of a split."""

    bg: Pixels
    """(H, W, 3)"""
    depth: Pixels
    """(H, W)"""

    @property
    def nbytes(self) -> int:
        """Bytes of both."""
        return self.bg.nbytes + self.depth.nbytes


class CachedSources:
    """Sources in entries of the cache; `resized` is None if the split has the size of the composed images.

    Equal if they are of the same entries, whose names say what they hold.
    """

    def __init__(self, sources: Entry, resized: Entry | None) -> None:
        self._entries = sources, resized  # in use as long as this object is
        plain = {name: array.view(np.ndarray) for name, array in sources.arrays.items()}
        self._bg: Pixels = plain["bg"]
        self._depth: Pixels = plain["depth"]
        self._bytes: Pixels = plain[_BYTES]
        self._index: NDArray[np.int64] = plain[INDEX]
        self._starts = dict(self._index.tolist())
        at_size = plain if resized is None else resized.arrays
        self._resized_bg, self._resized_depth = (at_size[name].view(np.ndarray) for name in ("bg", "depth"))
        self._directories = [entry.directory for entry in self._entries if entry is not None]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CachedSources) and other._directories == self._directories

    def __hash__(self) -> int:
        return hash(tuple(self._directories))

    def background(self, row: int) -> Pixels:
        """A background (S, S, 3)."""
        bg: Pixels = self._bg[row]
        return bg

    def depth(self, row: int) -> Pixels:
        """Its depth (S, S)."""
        depth: Pixels = self._depth[row]
        return depth

    def resized(self, row: int) -> Resized:
        """Both at the size of the split."""
        return Resized(self._resized_bg[row], self._resized_depth[row])

    def cutout(self, foreground: int, height: int, width: int) -> Cutout:
        """A cutout at a size that a sample has."""
        start, area = self._starts[_key(foreground, height, width)], height * width
        rgb, alpha = self._bytes[start : start + 3 * area], self._bytes[start + 3 * area : start + 4 * area]
        return Cutout(rgb.reshape(height, width, 3), alpha.reshape(height, width))

    def starts(
        self, foregrounds: NDArray[np.integer], heights: NDArray[np.integer], widths: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """Where the colours of cutouts (B,) start in the bytes; their alpha follows."""
        keys = _key(foregrounds.astype(np.int64), heights.astype(np.int64), widths.astype(np.int64))
        return np.asarray(self._index[np.searchsorted(self._index[:, 0], keys), 1], np.int64)

    def arrays(self) -> tuple[Pixels, Pixels, Pixels, Pixels, Pixels]:
        """Backgrounds, depths and the bytes of the cutouts; backgrounds and depths at the size of the split."""
        return self._bg, self._depth, self._bytes, self._resized_bg, self._resized_depth

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays())


class StoredSources:
    """Sources that are decoded from the data set and resized when they are needed, where the cache has no room."""

    def __init__(self, recipe: Recipe, fitting: Fitting) -> None:
        self._recipe, self._fitting = recipe, fitting
        self._resized = LruCache[int, Resized](_MAX_RESIZED_BYTES)

    def background(self, row: int) -> Pixels:
        """A background (S, S, 3).

        Raises:
            InputError: here and below, if a part of the data set is damaged or gone.
        """
        return self._recipe.background(row)

    def depth(self, row: int) -> Pixels:
        """Its depth (S, S)."""
        return self._recipe.depth(row)

    def resized(self, row: int) -> Resized:
        """Both at the size of the split."""
        return self._resized.get(row, partial(self._resize, row))

    def cutout(self, foreground: int, height: int, width: int) -> Cutout:
        """A cutout at any size."""
        return scaled_cutout(self._recipe.cutout(foreground), height, width)

    def _resize(self, row: int) -> Resized:
        return _fitted(self._fitting, self._recipe.background(row), self._recipe.depth(row))


Sources = CachedSources | StoredSources
"""The source images of a recipe; safe to use from several threads."""


class _Shapes:
    """The distinct sizes of the cutouts in all samples."""

    def __init__(self, placements: Placements) -> None:
        keys = _key(
            placements.foreground.astype(np.int64),
            placements.height.astype(np.int64),
            placements.width.astype(np.int64),
        )
        self.keys = np.unique(keys)
        """(C,), ascending: by foreground, height and width."""
        self.foregrounds, self.heights, self.widths = self.keys >> 32, self.keys >> 16 & 0xFFFF, self.keys & 0xFFFF
        self._ends = np.cumsum(4 * self.heights * self.widths)

    @property
    def bytes(self) -> int:
        """Bytes of all cutouts."""
        return int(self._ends[-1])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """(C,): where each begins."""
        return self._ends - 4 * self.heights * self.widths


def source_bytes(recipe: Recipe, sides: Sides) -> int:
    """Bytes that the sources of a recipe take in the cache for a split of height and width `sides`, without headers."""
    backgrounds = int(recipe.placements.background.max()) + 1
    shapes = _Shapes(recipe.placements)
    areas = {(recipe.size, recipe.size), sides}
    return sum(4 * prod(area) for area in areas) * backgrounds + shapes.bytes + 16 * len(shapes.keys)


def build_sources(recipe: Recipe, backgrounds: int, entry: Path, on_ready: Callable[[int], None]) -> None:
    """Decode the sources of a recipe to a new entry, the cutouts at each of their sizes. The caller holds its lock.

    Args:
        recipe: of M backgrounds.
        backgrounds: M.
        entry: its path.
        on_ready: progress callback, called with the number of sources that are ready: M + C.

    Raises:
        InputError: if a part of the data set is damaged, or an image cannot be decoded.
        NoRoomError: if the entry does not fit.
    """
    shapes, side = _Shapes(recipe.placements), recipe.size
    layout = {
        "bg": ("u1", (backgrounds, side, side, 3)),
        "depth": ("u1", (backgrounds, side, side)),
        _BYTES: ("u1", (shapes.bytes,)),
        INDEX: ("i8", (len(shapes.keys), 2)),
    }
    with new_entry(entry, layout, on_ready) as new:
        new.write(INDEX, np.stack([shapes.keys, shapes.starts], axis=1).data)
        for row in range(backgrounds):
            _write_background(new, row, Resized(recipe.background(row), recipe.depth(row)))
            new.ready(row + 1)
        firsts = np.flatnonzero(np.diff(shapes.foregrounds, prepend=-1)).tolist()
        groups = [range(first, last) for first, last in zip(firsts, [*firsts[1:], len(shapes.keys)], strict=True)]
        calls = (partial(_write_cutouts, new, recipe, shapes, group) for group in groups)
        done = ahead(calls, len(os.sched_getaffinity(0)))
        for group, _ in zip(groups, done, strict=True):
            new.ready(backgrounds + group.stop)


def build_resized(sources: Entry, fitting: Fitting, entry: Path, on_ready: Callable[[int], None]) -> None:
    """Fit backgrounds and depths to the size of a split, in a new entry. The caller holds its lock.

    Args:
        sources: the entry of `build_sources`.
        fitting: the way from S to H and W.
        entry: its path.
        on_ready: progress callback, called with the number of backgrounds that are ready.

    Raises:
        NoRoomError: if the entry does not fit.
    """
    bg, depth = sources.arrays["bg"], sources.arrays["depth"]
    count = len(bg)
    height, width = fitting.sides
    layout = {"bg": ("u1", (count, height, width, 3)), "depth": ("u1", (count, height, width)), INDEX: ("i8", (count,))}
    with new_entry(entry, layout, on_ready) as new:
        new.write(INDEX, np.arange(count).data)
        for row in range(count):
            _write_background(new, row, _fitted(fitting, np.asarray(bg[row]), np.asarray(depth[row])))
            new.ready(row + 1)


def _fitted(fitting: Fitting, bg: Pixels, depth: Pixels) -> Resized:
    """A background and its depth at the size of a split."""
    return Resized(fitting.image(bg), fitting.depth(depth, None)[0])


def _write_background(new: NewEntry, row: int, images: Resized) -> None:
    for name, pixels in images._asdict().items():
        new.write(name, np.ascontiguousarray(pixels).data, row * pixels.nbytes)


def _write_cutouts(new: NewEntry, recipe: Recipe, shapes: _Shapes, group: range) -> None:
    """Write a foreground at all of its sizes."""
    rgba = recipe.cutout(int(shapes.foregrounds[group.start]))
    for index in group:
        cutout = scaled_cutout(rgba, int(shapes.heights[index]), int(shapes.widths[index]))
        start = int(shapes.starts[index])
        new.write(_BYTES, cutout.rgb.data, start)
        new.write(_BYTES, cutout.alpha.data, start + cutout.rgb.nbytes)


def _key(foreground: Number, height: Number, width: Number) -> Number:
    """A cutout at a size, as one number."""
    return foreground << 32 | height << 16 | width
