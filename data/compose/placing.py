"""Choose the size and position of every foreground in every background.

A placement is decided by the source images and (seed, background, foreground, direction, number) alone. Those of a
foreground are drawn together, since generators, resized cutouts and positions cost more one by one.

Shapes: S is the side of the composed images in pixels, h and w are height and width of a resized foreground. There are
M backgrounds, D directions (1 or 2) and P numbers, and K of their samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.compose.depth import MAX_LEVEL
from data.compose.draws import MAX_INDICES
from data.compose.grounds import GROUND_TOP
from data.composed.columns import Placements
from data.composed.rendering import FARTHEST, cutout_size, scaled_cutout
from data.dataset.statistics import FOREGROUND_ABOVE

if TYPE_CHECKING:
    from collections.abc import Callable

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
SOME_PIXELS = 48
"""Pixels of a foreground with which most positions are refused, before all of its pixels are looked at."""
MAX_ROWS = 256
"""Samples whose positions are tried at once: what they need fits into the cache of a core."""


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
    search = _Search(scenes, scene, _Outlines(rgba, longest, direction, scenes.size))
    pending = np.arange(len(longest))
    for call in range(MAX_CANDIDATES):
        chosen = draws.indices(call, search.choices[pending], pending)
        for index in np.flatnonzero(chosen < 0).tolist():
            row = int(pending[index])
            rng = scenes.generator(composition.seed, fg_id, int(scene[row]), int(direction[row]), int(number[row]))
            rng.random()
            chosen[index] = [rng.integers(search.choices[row]) for _ in range(call + 1)][-1]
        pending = search.try_positions(pending, chosen)
    columns = (search.heights, search.widths, search.top, search.left, search.level)
    return Placed(*(np.reshape(column, shape) for column in columns))


class _Outlines:
    """The opaque pixels of a foreground at each of its sizes and directions in K samples; there are O distinct ones.

    Offsets are those of pixels from the upper left one, in a flattened image with rows of S pixels.
    """

    def __init__(self, rgba: Pixels, longest: NDArray[np.int64], direction: NDArray[np.int64], size: int) -> None:
        distinct, of_sample = np.unique(2 * longest + direction, return_inverse=True)
        self.of_sample = np.asarray(of_sample, np.int64)
        """(K,): the outline of each sample."""
        count = len(distinct)
        self.covered: list[Pixels] = []
        """(h, w) of each outline: 1 where it is opaque."""
        self.is_opaque = np.ones(count, np.bool_)
        self.lowest, self.middle = np.zeros(count, np.int64), np.zeros(count, np.int64)
        """Row and column of its feet."""
        self.some_pixels = np.zeros((count, SOME_PIXELS), np.int64)
        """Offsets of opaque pixels, spread evenly."""
        feet = []
        for index, key in enumerate(distinct.tolist()):
            height, width = cutout_size(rgba.shape[0], rgba.shape[1], key // 2)
            alpha = scaled_cutout(rgba, height, width, mirrored=key % 2 == 1).alpha
            covered = alpha > FOREGROUND_ABOVE
            if not covered.any():  # a thin foreground may lose its opaque pixels when it is reduced
                self.is_opaque[index], covered = False, alpha >= alpha.max()
            self.covered.append(covered.astype(np.uint8))
            rows, columns = np.nonzero(covered)
            lowest = self.lowest[index] = rows[-1]
            offsets = rows * size + columns
            self.some_pixels[index] = offsets[np.arange(SOME_PIXELS) * len(offsets) // SOME_PIXELS]
            is_foot = rows > lowest - max(1, round(FEET_HEIGHT * height))
            feet.append(offsets[is_foot])
            self.middle[index] = (int(columns[is_foot].min()) + int(columns[is_foot].max())) // 2
        self.heights, self.widths = np.array([covered.shape for covered in self.covered], np.int64).T
        self.foot_pixels = np.array([len(offsets) for offsets in feet], np.int64)
        """Number of pixels of its feet."""
        self.feet = np.zeros((count, self.foot_pixels.max()), np.int64)
        """Their offsets; what follows them in a row has no meaning."""
        for row, offsets in zip(self.feet, feet, strict=True):
            row[: len(offsets)] = offsets


class _Search:
    """The best position so far of each of K samples."""

    def __init__(self, scenes: Scenes, scene: NDArray[np.int64], outlines: _Outlines) -> None:
        self._scenes, self._scene, self._outlines = scenes, scene, outlines
        self._depth = scenes.depth.reshape(-1)
        count, size, of_sample = len(scene), scenes.size, outlines.of_sample
        self.heights, self.widths = outlines.heights[of_sample], outlines.widths[of_sample]
        self._lowest, self._middle = outlines.lowest[of_sample], outlines.middle[of_sample]
        self._rows, self._columns = size - self.heights + 1, size - self.widths + 1
        """Numbers of rows and columns where the upper left pixel can be."""
        on_ground = self._ground(np.arange(count), self._lowest, self._lowest + self._rows)
        # The first row of the lower half.
        self._half = np.minimum(np.maximum(0, round(GROUND_TOP * size) - self._lowest), self._rows - 1)
        self._stands = on_ground > 0
        self.choices = np.where(self._stands, on_ground, (self._rows - self._half) * self._columns)
        """Number of allowed positions of each sample; at least 1."""
        self.top, self.left = np.zeros(count, np.int64), np.zeros(count, np.int64)
        self.level = np.full(count, FARTHEST, np.uint8)
        self._protrusion = np.full(count, MAX_LEVEL + 1)

    def try_positions(self, rows: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Try the position number `chosen` of each of `rows`; return the rows for which a better one is to be found."""
        tops, lefts = self._positions(rows, chosen)
        # Samples with as many pixels of feet together: their offsets fill a rectangle.
        order = np.argsort(self._outlines.foot_pixels[self._outlines.of_sample[rows]], kind="stable")
        for first in range(0, len(rows), MAX_ROWS):
            some = order[first : first + MAX_ROWS]
            self._try_some(rows[some], tops[some], lefts[some])
        return rows[self._protrusion[rows] > MAX_PROTRUSION]

    def _try_some(self, rows: NDArray[np.int64], tops: NDArray[np.int64], lefts: NDArray[np.int64]) -> None:
        outlines, outline = self._outlines, self._outlines.of_sample[rows]
        corners = ((self._scene[rows] * self._scenes.size + tops) * self._scenes.size + lefts)[:, None]
        # Most positions that are no better show it in a few of their pixels.
        seen = self._depth[corners + outlines.some_pixels[outline]].min(axis=1)
        standing = self._standing(corners, outline)
        hopeful = np.flatnonzero(standing - seen < self._protrusion[rows])
        rows, tops, lefts, outline = rows[hopeful], tops[hopeful], lefts[hopeful], outline[hopeful]
        nearest = self._nearest(rows, tops, lefts)
        protrusion = standing[hopeful] - nearest
        better = protrusion < self._protrusion[rows]
        rows = rows[better]
        self._protrusion[rows] = protrusion[better]
        self.top[rows], self.left[rows] = tops[better], lefts[better]
        self.level[rows] = np.where(outlines.is_opaque[outline[better]], nearest[better], FARTHEST)

    def _standing(self, corners: NDArray[np.int64], outline: NDArray[np.int64]) -> NDArray[np.int64]:
        """The median of the depth under the feet (the upper one of two) at each of `corners` (K, 1)."""
        counts = self._outlines.foot_pixels[outline]
        width = int(counts.max(initial=0))
        # Beyond the last pixel of the data set only what has no meaning.
        offsets = np.minimum(corners + self._outlines.feet[outline, :width], len(self._depth) - 1)
        under_feet = np.where(np.arange(width) < counts[:, None], self._depth[offsets], np.uint8(MAX_LEVEL))
        under_feet.sort(axis=1)
        return under_feet[np.arange(len(outline)), counts // 2].astype(np.int64)

    def _nearest(self, rows: NDArray[np.int64], tops: NDArray[np.int64], lefts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The smallest depth that is covered at each position."""
        covered, depth = self._outlines.covered, self._scenes.depth
        positions = (self._scene[rows], tops, lefts, self.heights[rows], self.widths[rows])
        places = zip(self._outlines.of_sample[rows].tolist(), *(values.tolist() for values in positions), strict=True)
        return np.array(
            [
                cv2.minMaxLoc(depth[scene, top : top + height, left : left + width], covered[outline])[0]
                for outline, scene, top, left, height, width in places
            ],
            np.int64,
        )

    def _positions(
        self, rows: NDArray[np.int64], chosen: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the position number `chosen` of each of `rows`, counted along the rows of the image."""
        top, left = np.divmod(chosen, self._columns[rows])
        top += self._half[rows]
        on_ground = np.flatnonzero(self._stands[rows])
        standing, wanted = rows[on_ground], chosen[on_ground]
        lowest, middle = self._lowest[standing], self._middle[standing]
        # The first row up to which there are more than `wanted` pixels of ground, and then the column in it.
        line = _first_above(wanted, self._rows[standing], lambda end: self._ground(standing, lowest, lowest + end))
        wanted = wanted - self._ground(standing, lowest, lowest + line)
        first, last = lowest + line, lowest + line + 1
        column = _first_above(
            wanted,
            self._columns[standing],
            lambda end: self._scenes.ground_pixels(self._scene[standing], first, last, middle, middle + end),
        )
        top[on_ground], left[on_ground] = line, column
        return top, left

    def _ground(self, rows: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
        """Number of positions of `rows` on the ground, with the feet in image rows `first` to `last` - 1."""
        middle = self._middle[rows]
        return self._scenes.ground_pixels(self._scene[rows], first, last, middle, middle + self._columns[rows])


def _first_above(
    wanted: NDArray[np.int64], ends: NDArray[np.int64], count: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> NDArray[np.int64]:
    """The smallest i in 0..`ends` - 1 with `count(i + 1)` above `wanted`, by bisection; `count` never decreases."""
    low, high = np.zeros_like(ends), ends - 1
    while (low < high).any():
        middle = (low + high) // 2
        is_above = count(middle + 1) > wanted
        low, high = np.where(is_above, low, middle + 1), np.where(is_above, middle, high)
    return low
