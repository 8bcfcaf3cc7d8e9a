"""Choose the size and position of every foreground in every background.

A placement is decided by the source images and (seed, background, foreground, direction, number) alone. Those of a
foreground are drawn together, since generators, resized cutouts and positions cost more one by one.

Shapes: S is the side of the composed images in pixels, h and w are height and width of a resized foreground. There are
M backgrounds, D directions (1 or 2) and P numbers, and K of their samples.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.compose.composition import MAX_SIZE
from data.compose.draws import MAX_INDICES
from data.compose.grounds import GROUND_TOP
from data.composed.columns import Placements
from data.composed.rendering import FARTHEST, cutout_size, resized_alpha
from data.dataset.statistics import FOREGROUND_ABOVE
from data.depth.levels import MAX_LEVEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from data.compose.composition import Composition
    from data.compose.grounds import Scenes
    from data.schema import Pixels

MAX_CANDIDATES = MAX_INDICES
"""Positions that are drawn for a sample; the first unobstructed one is used."""
MAX_PROTRUSION = 2
"""Levels of depth by which something behind the foreground may be nearer than the ground at its feet."""
FEET_HEIGHT = 0.05
"""The lowest part of a foreground that counts as its feet, as a share of its height."""
SOME_RANGES = 48
"""Ranges of a foreground with which most positions are refused, before all of its pixels are looked at."""
MAX_ROWS = 1024
MAX_OFFSETS = 2**20
"""Samples whose positions are tried at once, and offsets of theirs, which take up to 17 bytes each.

With fewer samples, calls take longer than what they compute.
"""

_LEVELS = np.array([max(count, 1).bit_length() - 1 for count in range(MAX_SIZE + 1)])
"""The exponent of the largest power of two that is not above each number of pixels."""


@dataclass(frozen=True)
class Placed:
    """The placements of a foreground in M backgrounds: arrays of shape (M, D, P)."""

    height: NDArray[np.int64]
    """Of the resized foreground in pixels."""
    width: NDArray[np.int64]
    top: NDArray[np.int64]
    """Row of its upper left pixel."""
    left: NDArray[np.int64]
    level: NDArray[np.uint8]
    """Its depth; FARTHEST if no pixel is opaque."""

    def placements(self, first_background: int, foreground: int) -> Placements:
        """As rows, by background, direction and number.

        Args:
            first_background: row of the first of the M backgrounds.
            foreground: row of the foreground.
        """
        background, direction, number = (axis.ravel() for axis in np.indices(self.height.shape))
        return Placements(
            background=(first_background + background).astype(np.uint32),
            foreground=np.full(background.shape, foreground, np.uint32),
            mirrored=direction == 1,
            number=number.astype(np.uint16),
            **{name: getattr(self, name).ravel().astype(np.uint16) for name in ("height", "width", "top", "left")},
            level=self.level.ravel(),
        )


def place(composition: Composition, scenes: Scenes, fg_id: str, rgba: Pixels) -> Placed:
    """Place a foreground in every background, direction and number.

    Its longer side is S times a uniform number from `scale`. It lies completely in the image, with its feet on the
    ground, or anywhere in the lower half if it fits on no ground. Several positions are drawn; one where nothing nearer
    is behind the foreground is preferred. Its level is that of the nearest pixel that its opaque pixels, with an alpha
    above 127, cover, so that it is never behind what it hides. If nothing protrudes, that is the ground under its feet,
    since all other ground it covers is farther.

    Args:
        composition: the options.
        scenes: M backgrounds.
        fg_id: of the foreground.
        rgba: (H, W, 4), the result of `read_cutout`.
    """
    low, high = composition.scale
    shape = (len(scenes.depth), composition.directions, composition.placements)
    draws = scenes.draws(composition.seed, fg_id, *shape[1:])
    longest = np.maximum(1, np.rint((low + (high - low) * draws.fractions) * scenes.size)).astype(np.int64)
    scene, direction, number = (axis.ravel() for axis in np.indices(shape))
    search = _Search(scenes, scene, _Outlines(rgba, longest, direction, scenes))
    pending = np.arange(len(longest))
    for call in range(MAX_CANDIDATES):
        chosen = draws.indices(call, search.choices[pending], pending)
        for index in np.flatnonzero(chosen < 0).tolist():
            row = int(pending[index])
            rng = scenes.generator(composition.seed, fg_id, int(scene[row]), int(direction[row]), int(number[row]))
            rng.random()
            chosen[index] = [rng.integers(search.choices[row]) for _ in range(call + 1)][-1]
        pending = search.try_positions(call, pending, chosen)
    search.choose_best(pending)
    columns = (search.heights, search.widths, search.top, search.left, search.level)
    return Placed(*(np.reshape(column, shape) for column in columns))


class _Outlines:
    """The opaque pixels of a foreground at each of its sizes and directions in K samples; there are O distinct ones.

    Offsets are those of pixels from the upper left one, in a flattened image with rows of S pixels.
    """

    def __init__(self, rgba: Pixels, longest: NDArray[np.int64], direction: NDArray[np.int64], scenes: Scenes) -> None:
        distinct, of_sample = np.unique(2 * longest + direction, return_inverse=True)
        self.of_sample = np.asarray(of_sample, np.int64)
        """(K,): the outline of each sample."""
        unflipped = _Outline(rgba, int(distinct[0]) // 2, scenes)
        outlines = []
        for key in distinct.tolist():
            if key // 2 != unflipped.longest:
                unflipped = _Outline(rgba, key // 2, scenes)
            outlines.append(unflipped.mirrored(scenes.size) if key % 2 else unflipped)
        self.heights, self.widths = np.array([(outline.height, outline.width) for outline in outlines], np.int64).T
        self.is_opaque = np.array([outline.is_opaque for outline in outlines])
        self.lowest = np.array([outline.lowest for outline in outlines], np.int64)
        self.middle = np.array([outline.middle for outline in outlines], np.int64)
        """Row and column of its feet."""
        spread = [outline.ranges[np.arange(SOME_RANGES) * len(outline.ranges) // SOME_RANGES] for outline in outlines]
        end = len(scenes.nearest)
        self.some = _Columns(spread, end)
        """Offsets in `Scenes.nearest` of some ranges of opaque pixels, evenly spread."""
        self.ranges = _Columns([outline.ranges for outline in outlines], end)
        """Those of ranges that consist of all opaque pixels."""
        self.feet = _Columns([outline.feet for outline in outlines], end)
        """Those of the pixels of its feet."""


class _Columns:
    """Offsets of each of O outlines, as columns of the same height: what follows is the offset `end`."""

    def __init__(self, offsets: Sequence[NDArray[np.int64]], end: int) -> None:
        self.counts = np.array([len(column) for column in offsets], np.int64)
        """(O,): number of offsets of each."""
        self._values = np.full((self.counts.max(), len(offsets)), end, np.int64)
        for column, values in zip(self._values.T, offsets, strict=True):
            column[: len(values)] = values

    def levels(self, nearest: Pixels, corners: NDArray[np.int64], outline: NDArray[np.int64]) -> Pixels:
        """What is there in `Scenes.nearest`, at each of the `corners` (K,) of an outline.

        Returns:
            (N, K), with N for the outline that has most; beyond the offsets of an outline, the last element of
            `nearest`.
        """
        height = self.counts[outline].max()
        return np.asarray(nearest.take(self._values[:height].take(outline, axis=1) + corners, mode="clip"), np.uint8)


class _Outline:
    """The opaque pixels of a foreground, unflipped, whose longer side is `longest` pixels."""

    def __init__(self, rgba: Pixels, longest: int, scenes: Scenes) -> None:
        self.longest = longest
        self.height, self.width = cutout_size(rgba.shape[0], rgba.shape[1], longest)
        alpha, size = resized_alpha(rgba, self.height, self.width), scenes.size
        opaque = alpha > FOREGROUND_ABOVE
        self.is_opaque = bool(opaque.any())
        if not self.is_opaque:  # a thin foreground may lose its opaque pixels when it is reduced
            opaque = alpha >= alpha.max()
        # The columns one after the other, with an empty pixel after each: every range of pixels ends in its column.
        columns = np.zeros(self.width * (self.height + 1) + 1, np.bool_)
        columns[1:].reshape(self.width, self.height + 1)[:, :-1] = opaque.T
        ends = (columns[1:] != columns[:-1]).nonzero()[0]
        count = ends[1::2] - ends[::2]
        column, first = np.divmod(ends[::2], self.height + 1)
        level = _LEVELS[count]
        offsets = level * scenes.depth.size + column + first * size
        # Two ranges of a power of two, which overlap.
        self.ranges = np.concatenate([offsets, offsets + (count - (1 << level)) * size])
        self.lowest = int((first + count).max()) - 1
        top = max(0, self.lowest + 1 - max(1, round(FEET_HEIGHT * self.height)))
        rows, foot_columns = opaque[top : self.lowest + 1].nonzero()
        self.feet = (top + rows) * size + foot_columns
        self._ends = int(foot_columns.min()), int(foot_columns.max())
        self.middle = sum(self._ends) // 2

    def mirrored(self, size: int) -> _Outline:
        """The same outline left to right."""
        outline, last = copy(self), self.width - 1
        outline.ranges = self.ranges + last - 2 * (self.ranges % size)
        outline.feet = self.feet + last - 2 * (self.feet % size)
        outline.middle = (2 * last - sum(self._ends)) // 2
        return outline


class _Search:
    """The positions that were tried for each of K samples, up to `MAX_CANDIDATES`, and the best of them."""

    def __init__(self, scenes: Scenes, scene: NDArray[np.int64], outlines: _Outlines) -> None:
        self._scenes, self._scene, self._outlines = scenes, scene, outlines
        count, size, of_sample = len(scene), scenes.size, outlines.of_sample
        self.heights, self.widths = outlines.heights[of_sample], outlines.widths[of_sample]
        self._lowest, self._middle = outlines.lowest[of_sample], outlines.middle[of_sample]
        self._rows, self._columns = size - self.heights + 1, size - self.widths + 1
        """Numbers of rows and columns where the upper left pixel can be."""
        on_ground = self._ground_above(self._lowest + self._rows) - self._ground_above(self._lowest)
        # The first row of the lower half.
        self._half = np.minimum(np.maximum(0, round(GROUND_TOP * size) - self._lowest), self._rows - 1)
        self._stands = on_ground > 0
        self.choices = np.where(self._stands, on_ground, (self._rows - self._half) * self._columns)
        """Number of allowed positions of each sample; at least 1."""
        self.top, self.left = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.level = np.full(count, FARTHEST, np.uint8)
        shape = (MAX_CANDIDATES, count)
        self._tops, self._lefts = np.zeros(shape, np.int16), np.zeros(shape, np.int16)
        self._standing = np.zeros(shape, np.int16)
        """Depth under the feet at each position."""
        self._protrusion = np.zeros(shape, np.int16)
        """Of each position; a lower bound until it is measured."""
        self._is_measured = np.zeros(shape, np.bool_)

    def try_positions(self, call: int, rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Try the position number `chosen` of each of `rows`; return the rows for which a better one is to be found."""
        self._tops[call, rows], self._lefts[call, rows] = self._positions(rows, chosen)
        for some in _chunks(rows, self._outlines.feet.counts[self._outlines.of_sample[rows]]):
            self._estimate(call, some)
        self._measure(call, rows[self._protrusion[call, rows] <= MAX_PROTRUSION])
        is_free = self._is_measured[call, rows] & (self._protrusion[call, rows] <= MAX_PROTRUSION)
        self._use(call, rows[is_free])
        return np.asarray(rows[~is_free], np.int64)

    def choose_best(self, rows: NDArray[np.int64]) -> None:
        """Use the position with the smallest protrusion, and of equal ones the first, for each of `rows`."""
        while len(rows):
            calls = self._protrusion[:, rows].argmin(axis=0)
            is_measured = self._is_measured[calls, rows]
            for call in range(MAX_CANDIDATES):
                self._use(call, rows[is_measured & (calls == call)])
                self._measure(call, rows[~is_measured & (calls == call)])
            rows = rows[~is_measured]

    def _use(self, call: int, rows: NDArray[np.int64]) -> None:
        """Use the position that was tried in `call` for each of `rows`."""
        self.top[rows], self.left[rows] = self._tops[call, rows], self._lefts[call, rows]
        nearest = self._standing[call, rows] - self._protrusion[call, rows]
        self.level[rows] = np.where(self._outlines.is_opaque[self._outlines.of_sample[rows]], nearest, FARTHEST)

    def _estimate(self, call: int, rows: NDArray[np.int64]) -> None:
        """Compute the depth under the feet, and the protrusion of what some ranges and the feet cover."""
        corners, outline, nearest = self._corners(call, rows), self._outlines.of_sample[rows], self._scenes.nearest
        seen = self._outlines.some.levels(nearest, corners, outline).min(axis=0)
        under_feet = self._outlines.feet.levels(nearest, corners, outline)
        standing = _medians(under_feet, self._outlines.feet.counts[outline])
        self._standing[call, rows] = standing
        self._protrusion[call, rows] = standing - np.minimum(seen, under_feet.min(axis=0))

    def _measure(self, call: int, rows: NDArray[np.int64]) -> None:
        """Compute the protrusion of all that is covered."""
        for some in _chunks(rows, self._outlines.ranges.counts[self._outlines.of_sample[rows]]):
            corners, outline = self._corners(call, some), self._outlines.of_sample[some]
            nearest = self._outlines.ranges.levels(self._scenes.nearest, corners, outline).min(axis=0)
            self._protrusion[call, some] = self._standing[call, some] - nearest
        self._is_measured[call, rows] = True

    def _corners(self, call: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index in `Scenes.nearest` of the upper left pixel of each position."""
        size = self._scenes.size
        corners = (self._scene[rows] * size + self._tops[call, rows]) * size + self._lefts[call, rows]
        return np.asarray(corners, np.int64)

    def _positions(
        self, rows: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the position number `chosen` of each of `rows`, counted along the rows of the image."""
        top, left = np.divmod(chosen, self._columns[rows])
        top += self._half[rows]
        on_ground = np.flatnonzero(self._stands[rows])
        standing, wanted = rows[on_ground], chosen[on_ground]
        ground, line_length = self._scenes.ground, self._scenes.size + 1
        lowest, columns = self._lowest[standing], self._columns[standing]
        # The first row up to which there are more than `wanted` pixels of ground, and then the column in it.
        left_end = self._corner(standing, lowest)
        above = ground.take(left_end + columns) - ground.take(left_end)
        line = _first_above(ground, wanted + above, self._rows[standing], left_end + columns, left_end, line_length)
        upper_end = left_end + line * line_length
        lower_end = upper_end + line_length
        wanted = wanted + above - (ground.take(upper_end + columns) - ground.take(upper_end))
        before = ground.take(lower_end) - ground.take(upper_end)
        column = _first_above(ground, wanted + before, columns, lower_end, upper_end, 1)
        top[on_ground], left[on_ground] = line, column
        return top, left

    def _ground_above(self, line: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of positions of each sample on the ground, with the feet above the image row `line`, (K,)."""
        left_end = self._corner(np.arange(len(line)), line)
        ground = self._scenes.ground
        return np.asarray(ground.take(left_end + self._columns) - ground.take(left_end), np.int64)

    def _corner(self, rows: NDArray[np.int64], line: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index in `Scenes.ground` of the row `line`, and of the column of the feet at the leftmost position."""
        return (self._scene[rows] * (self._scenes.size + 1) + line) * (self._scenes.size + 1) + self._middle[rows]


def _chunks(rows: NDArray[np.int64], counts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Divide samples into those of similar counts of offsets, so that few elements of `_Columns` have no meaning."""
    order = rows[np.argsort(counts, kind="stable")]
    step = max(1, min(MAX_ROWS, MAX_OFFSETS // int(counts.max(initial=1))))
    return (order[first : first + step] for first in range(0, len(rows), step))


def _medians(levels: Pixels, counts: NDArray[np.int64]) -> NDArray[np.int16]:
    """The median (the upper one of two) of each column (N, K), (K,); beyond the `counts` of a column, levels are 255.

    By bisection, which takes less than sorting: the smallest level that more than half of the pixels are up to.
    """
    median = np.zeros(len(counts), np.uint8)
    half, count_type = counts // 2, np.uint8 if len(levels) <= MAX_LEVEL else np.uint32
    for bit in (128, 64, 32, 16, 8, 4, 2, 1):
        up_to = (levels <= median + np.uint8(bit - 1)).view(np.uint8).sum(axis=0, dtype=count_type)
        median += np.uint8(bit) * (up_to <= half)
    return median.astype(np.int16)


def _first_above(
    counts: NDArray[np.int32],
    wanted: NDArray[np.int64],
    ends: NDArray[np.int64],
    upper: NDArray[np.int64],
    lower: NDArray[np.int64],
    step: int,
) -> NDArray[np.int64]:
    """The smallest i in 0..`ends` - 1 for which the difference after i + 1 steps is above `wanted`, by bisection.

    The difference is that of `counts` at the indices `upper` and `lower`, which both move by `step`. It never
    decreases.
    """
    low, high = np.zeros_like(ends), ends - 1
    while (low < high).any():
        middle = (low + high) // 2
        move = (middle + 1) * step
        is_above = counts.take(upper + move) - counts.take(lower + move) > wanted
        low, high = np.where(is_above, low, middle + 1), np.where(is_above, middle, high)
    return low
