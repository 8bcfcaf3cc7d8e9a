"""Where a foreground stands in a background, and the pictures of it there: composed, mask and depth.

Shapes: S the side of a background's pictures, h and w height and width of the foreground as it is drawn; in pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.compose.depth import FARTHEST_LEVEL, middle_square
from data.compose.sources import read_cutout, resize_cutout
from data.dataset.statistics import FOREGROUND_ABOVE
from data.images import decode_photo, encode_jpeg, encode_png, resize
from data.schema import EncodedSample
from data.source_images import source_depth, source_photo

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.compose.composition import Composition
    from data.compose.depth import DepthScale
    from data.compose.sources import Background, SourceFile
    from data.schema import Pixels

GROUND_BELOW = 0.5
"""A foreground stands in the lower half of the picture: this share of its height lies above."""
REACH = 0.03
"""As far above and below a point, as a share of the side, its depth is looked at to tell ground from wall."""
SPOTS = 6
"""Standing points that are drawn for a sample; the first that is clear is taken."""
CLEAR = 2
"""Levels of depth by which something may stand out in front of a clear standing point."""
FEET = 0.05
"""The lowest part of a foreground, as a share of its height, that it stands with."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A background as it is stored, and where one can stand in it."""

    bg_id: str
    encoded: bytes
    bg: Pixels
    """(S, S, 3) RGB, decoded from `encoded`: composed pictures are made of what is stored."""
    depth: Pixels
    """(S, S), far is bright."""
    ground: NDArray[np.bool_]
    """(S, S), possibly nowhere."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a foreground is drawn: its upper left pixel."""

    top: int
    left: int


def open_stage(background: Background, size: int, scale: DepthScale) -> Stage:
    """Read a background: the middle square of its photograph and of its depth, at `size` pixels a side.

    Raises:
        InputError: if a file is not what it was when the sources were checked.
    """
    photo, _ = source_photo(background.photo.read(), str(background.photo.path))
    stored, _ = source_depth(background.depth.read(), str(background.depth.path))
    encoded = encode_jpeg(resize(np.ascontiguousarray(middle_square(photo)), size))
    depth = scale.levels(stored, size)
    return Stage(
        bg_id=background.photo.name,
        encoded=encoded,
        bg=decode_photo(encoded, str(background.photo.path)),
        depth=depth,
        ground=find_ground(depth),
    )


def find_ground(depth: Pixels) -> NDArray[np.bool_]:
    """(S, S): where, in the lower half, depth (S, S) rises upwards, above the point as below it.

    So it does on a floor. On a wall, or the front of a cupboard, it hardly changes; at an edge, on one side only.
    """
    size = len(depth)
    reach = max(1, round(REACH * size))
    # Averaged along the row, where a floor is level: a single level of depth is not lost to rounding.
    even = cv2.blur(depth.astype(np.float32), (2 * reach + 1, 1), borderType=cv2.BORDER_REPLICATE)
    padded = np.pad(even, ((0, reach), (0, 0)), mode="edge")
    rows = np.arange(round(GROUND_BELOW * size), size)
    above, here, below = even[rows - reach], even[rows], padded[rows + reach]
    # The last rows have too little below them to tell.
    falls = (here - below >= 1) | (rows + reach >= size)[:, None]
    ground = np.zeros(depth.shape, np.bool_)
    ground[rows] = (above - here >= 1) & falls
    return ground


def compose_sample(
    composition: Composition, stage: Stage, foreground: SourceFile, *, flip: bool, placement: int
) -> EncodedSample:
    """One sample, which depends on nothing but the pictures and (seed, background, foreground, flip, placement).

    The foreground is mirrored left to right if `flip`. Its longer side is a uniform share of S from the composition's
    `scale`. It lies wholly in the picture and stands on a pixel of the ground, if there is any that it can, or else
    anywhere in the lower half; of some that are drawn, where nothing nearer is behind it. Its mask is its alpha.

    Depth inside, where the mask is above 127, is a plane: a single level, that of the nearest thing it covers. That is
    the ground under its feet, where the view is clear: all other ground it covers is farther. And it is never behind
    what it hides. Where the mask is 127 or less, depth is the background's.

    Raises:
        InputError: if the foreground is not what it was when the sources were checked.
    """
    rng = _generator(composition.seed, stage.bg_id, foreground.name, flip, placement)
    low, high = composition.scale
    size = composition.size
    cutout = read_cutout(foreground, max(1, round(high * size)))
    drawn = resize_cutout(cutout, max(1, round(rng.uniform(low, high) * size)))
    drawn = np.ascontiguousarray(drawn[:, ::-1]) if flip else drawn
    alpha = drawn[:, :, 3]
    place = _choose_place(rng, stage, alpha)
    height, width = alpha.shape
    area = np.s_[place.top : place.top + height, place.left : place.left + width]
    fg_bg, mask, depth = stage.bg.copy(), np.zeros_like(stage.depth), stage.depth.copy()
    fg_bg[area] = _blend(stage.bg[area], drawn)
    mask[area] = alpha
    covered = alpha > FOREGROUND_ABOVE
    if covered.any():
        depth[area][covered] = stage.depth[area][covered].min()
    return EncodedSample(
        sample_id=f"{stage.bg_id}_{foreground.name}_{int(flip)}_{placement:02d}",
        bg_id=stage.bg_id,
        fg_id=foreground.name,
        bg=stage.encoded,
        fg_bg=encode_jpeg(fg_bg),
        mask=encode_png(mask),
        depth=encode_png(depth),
    )


def _blend(bg: Pixels, drawn: Pixels) -> Pixels:
    """(h, w, 3): `drawn`, (h, w, 4) with colours multiplied by alpha, over `bg`, (h, w, 3)."""
    clear = cv2.cvtColor(255 - drawn[:, :, 3], cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.add(cv2.multiply(bg, clear, scale=1 / 255), drawn[:, :, :3]), np.uint8)


def _choose_place(rng: np.random.Generator, stage: Stage, alpha: Pixels) -> Place:
    """The first of some standing points where nothing stands out before the ground at the feet, or else the best."""
    covered = alpha > FOREGROUND_ABOVE
    if not covered.any():  # all but gone at this size
        covered = alpha >= alpha.max()
    lowest = int(np.flatnonzero(covered.any(axis=1))[-1])
    feet = np.zeros_like(covered)
    first = max(0, lowest + 1 - max(1, round(FEET * len(alpha))))
    feet[first : lowest + 1] = covered[first : lowest + 1]
    columns = np.flatnonzero(feet.any(axis=0))
    middle = int(columns[0] + columns[-1]) // 2
    corners = _free_corners(stage, alpha.shape, lowest, middle)
    free = np.flatnonzero(corners)
    best, least = Place(top=0, left=0), FARTHEST_LEVEL + 1
    for _ in range(SPOTS):
        top, left = divmod(int(free[rng.integers(len(free))]), corners.shape[1])
        behind = stage.depth[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        under_feet = np.sort(behind[feet])
        stands_out = int(under_feet[len(under_feet) // 2]) - int(behind[covered].min())
        if stands_out < least:
            best, least = Place(top=top, left=left), stands_out
        if least <= CLEAR:
            break
    return best


def _free_corners(stage: Stage, shape: tuple[int, ...], lowest: int, middle: int) -> NDArray[np.bool_]:
    """Where the upper left corner can be, for the feet, at (lowest, middle) of the foreground, to be on the ground."""
    size = len(stage.depth)
    height, width = size - shape[0] + 1, size - shape[1] + 1
    on_ground = stage.ground[lowest : lowest + height, middle : middle + width]
    if on_ground.any():
        return on_ground
    anywhere = np.zeros((height, width), np.bool_)
    anywhere[min(max(0, round(GROUND_BELOW * size) - lowest), height - 1) :] = True
    return anywhere


def _generator(seed: int, bg_id: str, fg_id: str, flip: bool, placement: int) -> np.random.Generator:
    """Names, not numbers: a picture that is added to a folder leaves the other samples as they are."""
    names = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in (bg_id, fg_id))
    key = (*names, int(flip), placement)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
