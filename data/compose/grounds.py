"""Read backgrounds with their depth, and find the ground on which foregrounds can stand.

Shapes: S is the side of the composed images in pixels, M the number of backgrounds, K that of samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.compose.depth import middle_square
from data.compose.draws import Draws, first_draws
from data.depth.levels import MAX_LEVEL
from data.images import decode_photo, encode_jpeg, resize
from data.source_images import source_depth, source_photo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from data.compose.depth import DepthScale
    from data.compose.sources import Background
    from data.schema import Pixels

GROUND_TOP = 0.5
"""Foregrounds stand below this height of the image, as a share of its side from the top."""
SLOPE_SPAN = 0.03
"""Depth is compared this far above and below a pixel, as a share of the side, to tell ground from wall."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A background as it is stored, and the ground in it."""

    bg_id: str
    encoded: bytes
    bg: Pixels
    """(S, S, 3) RGB, decoded from `encoded`, so that fg_bg is composed from the stored pixels."""
    depth: Pixels
    """(S, S), far is bright."""
    ground: NDArray[np.bool_]
    """(S, S), where a foreground can stand; may be empty."""


def read_background(background: Background, size: int, scale: DepthScale) -> Scene:
    """Read the middle square of a background and of its depth, resized to `size` pixels a side.

    Raises:
        InputError: if a file has changed since the sources were checked.
    """
    photo, _ = source_photo(background.photo.read(), str(background.photo.path))
    stored, _ = source_depth(background.depth.read(), str(background.depth.path))
    encoded = encode_jpeg(resize(np.ascontiguousarray(middle_square(photo)), size))
    depth = scale.levels(stored, size)
    return Scene(
        bg_id=background.photo.name,
        encoded=encoded,
        bg=decode_photo(encoded, str(background.photo.path)),
        depth=depth,
        ground=find_ground(depth),
    )


def find_ground(depth: Pixels) -> NDArray[np.bool_]:
    """Find the pixels (S, S) of the lower half where depth (S, S) increases upwards, both below and above the pixel.

    That is so on a floor. On a wall or a piece of furniture, depth hardly changes; at an edge, on one side only.
    """
    size = len(depth)
    span = max(1, round(SLOPE_SPAN * size))
    # The mean along the row, in which a floor has one depth: differences below a level remain visible.
    smooth = cv2.blur(depth.astype(np.float32), (2 * span + 1, 1), borderType=cv2.BORDER_REPLICATE)
    padded = np.pad(smooth, ((0, span), (0, 0)), mode="edge")
    rows = np.arange(round(GROUND_TOP * size), size)
    above, here, below = smooth[rows - span], smooth[rows], padded[rows + span]
    # The last rows have no pixel that far below them.
    slopes_below = (here - below >= 1) | (rows + span >= size)[:, None]
    ground = np.zeros(depth.shape, np.bool_)
    ground[rows] = (above - here >= 1) & slopes_below
    return ground


class Scenes:
    """The depth and ground of M backgrounds in arrays, for placements in all of them at once."""

    def __init__(self, scenes: Sequence[Scene]) -> None:
        self.depth = np.stack([scene.depth for scene in scenes])
        """(M, S, S)"""
        self._is_ground = np.stack([scene.ground for scene in scenes])
        self._hashes = np.array([_hash(scene.bg_id) for scene in scenes], np.uint64)
        self._prepare()

    def __getstate__(self) -> dict[str, object]:
        """Without what is faster to compute than to send to another process."""
        return {"depth": self.depth, "_is_ground": self._is_ground, "_hashes": self._hashes}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Restore what is not sent."""
        self.__dict__.update(state)
        self._prepare()

    def _prepare(self) -> None:
        ground = np.zeros((len(self.depth), self.size + 1, self.size + 1), np.int32)
        for is_ground, counts in zip(self._is_ground, ground, strict=True):
            counts[:] = cv2.integral(is_ground.view(np.uint8))
        self.ground = ground.reshape(-1)
        """Flat from (M, S + 1, S + 1); [m, y, x]: ground pixels of background m above row y and left of column x."""
        levels = self.size.bit_length()
        self.nearest = np.full(levels * self.depth.size + 1, MAX_LEVEL, np.uint8)
        """Flat from (levels, M, S, S): the smallest depth of the 2**level pixels from each one downwards.

        And then a level that is not nearer than any other.
        """
        nearest = self.nearest[:-1].reshape(levels, *self.depth.shape)
        nearest[0] = self.depth
        for level in range(1, levels):
            half = 2 ** (level - 1)
            np.minimum(nearest[level - 1, :, :-half], nearest[level - 1, :, half:], out=nearest[level, :, :-half])

    @property
    def size(self) -> int:
        """S."""
        return int(self.depth.shape[1])

    def draws(self, seed: int, fg_id: str, directions: int, numbers: int) -> Draws:
        """Those of all M x D x P samples of a foreground, in that order."""
        fractions, words = [], []
        # Hashes below 2**32, of one in four billion names, are keys of a single word.
        boundaries = np.flatnonzero(np.diff(self._hashes < 2**32)) + 1
        for hashes in np.split(self._hashes, boundaries):
            direction, number = np.arange(directions, dtype=np.uint64), np.arange(numbers, dtype=np.uint64)
            keys = [hashes[:, None, None], np.array(_hash(fg_id), np.uint64), direction[:, None], number]
            drawn = first_draws(seed, keys)
            fractions.append(drawn.fractions)
            words.append(drawn.words)
        return Draws(np.concatenate(fractions), np.concatenate(words))

    def generator(self, seed: int, fg_id: str, scene: int, direction: int, number: int) -> np.random.Generator:
        """The generator of one sample, whose first draws are in `draws`."""
        key = (int(self._hashes[scene]), _hash(fg_id), direction, number)
        return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))


def _hash(name: str) -> int:
    """Generators are seeded by names, not indices: a new file in a folder does not change the other samples."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
