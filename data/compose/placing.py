"""Choose a position for a foreground in a background, and compose the photograph, mask and depth of the sample.

Shapes, in pixels: S is the side of the composed images, h and w are height and width of the resized foreground.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from data.compose.depth import MAX_LEVEL, middle_square
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

GROUND_TOP = 0.5
"""Foregrounds stand below this height of the image, as a share of its side from the top."""
SLOPE_SPAN = 0.03
"""Depth is compared this far above and below a pixel, as a share of the side, to tell ground from wall."""
MAX_CANDIDATES = 6
"""Positions that are drawn for a sample; the first unobstructed one is used."""
MAX_PROTRUSION = 2
"""Levels of depth by which something behind the foreground may be nearer than the ground at its feet."""
FEET_HEIGHT = 0.05
"""The lowest part of a foreground that counts as its feet, as a share of its height."""


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


def compose_sample(
    composition: Composition, scene: Scene, foreground: SourceFile, *, flip: bool, placement: int
) -> EncodedSample:
    """Compose a sample, decided by the source images and (seed, background, foreground, flip, placement) alone.

    The foreground is mirrored left to right if `flip`. Its longer side is S times a uniform number from `scale`. It
    lies completely in the image, with its feet on the ground, or anywhere in the lower half if it fits on no ground.
    Several positions are drawn; one where nothing nearer is behind the foreground is preferred.

    The mask is the foreground's alpha. Where it is above 127, depth is a single level: that of the nearest pixel that
    the foreground covers, so that it is never behind what it hides. If nothing protrudes, that is the ground under its
    feet, since all other ground it covers is farther. Elsewhere, depth is the background's.

    Raises:
        InputError: if the foreground has changed since the sources were checked.
    """
    rng = _generator(composition.seed, scene.bg_id, foreground.name, flip, placement)
    low, high = composition.scale
    size = composition.size
    cutout = read_cutout(foreground, max(1, round(high * size)))
    resized = resize_cutout(cutout, max(1, round(rng.uniform(low, high) * size)))
    resized = np.ascontiguousarray(resized[:, ::-1]) if flip else resized
    alpha = resized[:, :, 3]
    top, left = _choose_offset(rng, scene, alpha)
    height, width = alpha.shape
    area = np.s_[top : top + height, left : left + width]
    fg_bg, mask, depth = scene.bg.copy(), np.zeros_like(scene.depth), scene.depth.copy()
    fg_bg[area] = _blend(scene.bg[area], resized)
    mask[area] = alpha
    covered = alpha > FOREGROUND_ABOVE
    if covered.any():
        depth[area][covered] = scene.depth[area][covered].min()
    return EncodedSample(
        sample_id=f"{scene.bg_id}_{foreground.name}_{int(flip)}_{placement:02d}",
        bg_id=scene.bg_id,
        fg_id=foreground.name,
        bg=scene.encoded,
        fg_bg=encode_jpeg(fg_bg),
        mask=encode_png(mask),
        depth=encode_png(depth),
    )


def _blend(bg: Pixels, cutout: Pixels) -> Pixels:
    """Draw `cutout` (h, w, 4), with colours multiplied by alpha, over `bg` (h, w, 3)."""
    transparency = cv2.cvtColor(255 - cutout[:, :, 3], cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.add(cv2.multiply(bg, transparency, scale=1 / 255), cutout[:, :, :3]), np.uint8)


def _choose_offset(rng: np.random.Generator, scene: Scene, alpha: Pixels) -> tuple[int, int]:
    """Draw the row and column of the foreground's upper left pixel.

    Of several candidates, it is the first where nothing behind the foreground is nearer than the ground at its feet, or
    else the best one.
    """
    covered = alpha > FOREGROUND_ABOVE
    if not covered.any():  # a thin foreground may lose its opaque pixels when it is reduced
        covered = alpha >= alpha.max()
    lowest = int(np.flatnonzero(covered.any(axis=1))[-1])
    feet = np.zeros_like(covered)
    first = max(0, lowest + 1 - max(1, round(FEET_HEIGHT * len(alpha))))
    feet[first : lowest + 1] = covered[first : lowest + 1]
    columns = np.flatnonzero(feet.any(axis=0))
    middle = int(columns[0] + columns[-1]) // 2
    allowed = _allowed_offsets(scene, alpha.shape, lowest, middle)
    candidates = np.flatnonzero(allowed)
    best, least = (0, 0), MAX_LEVEL + 1
    for _ in range(MAX_CANDIDATES):
        top, left = divmod(int(candidates[rng.integers(len(candidates))]), allowed.shape[1])
        behind = scene.depth[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        under_feet = np.sort(behind[feet])
        protrusion = int(under_feet[len(under_feet) // 2]) - int(behind[covered].min())
        if protrusion < least:
            best, least = (top, left), protrusion
        if least <= MAX_PROTRUSION:
            break
    return best


def _allowed_offsets(scene: Scene, shape: tuple[int, ...], lowest: int, middle: int) -> NDArray[np.bool_]:
    """Offsets with the feet, at (lowest, middle) of the foreground, on the ground, or else in the lower half."""
    size = len(scene.depth)
    height, width = size - shape[0] + 1, size - shape[1] + 1
    on_ground = scene.ground[lowest : lowest + height, middle : middle + width]
    if on_ground.any():
        return on_ground
    in_lower_half = np.zeros((height, width), np.bool_)
    in_lower_half[min(max(0, round(GROUND_TOP * size) - lowest), height - 1) :] = True
    return in_lower_half


def _generator(seed: int, bg_id: str, fg_id: str, flip: bool, placement: int) -> np.random.Generator:
    """Seeded by names, not indices: a new file in a folder does not change the other samples."""
    names = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in (bg_id, fg_id))
    key = (*names, int(flip), placement)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=key)))
