"""Put a cutout in front of a background: the pixels of a composed sample.

Shapes, in pixels: h and w are height and width of the resized cutout, H and W those of the stored one, S is the side of
the composed images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from data.dataset.statistics import FOREGROUND_ABOVE
from data.images import encode_depth, encode_jpeg, encode_mask, resize_to
from data.schema import EncodedSample

if TYPE_CHECKING:
    from data.composed.columns import Placement
    from data.schema import Pixels

FARTHEST = 255
"""Level of a cutout without opaque pixels, which changes no depth."""
_LEVELS = np.arange(256, dtype=np.uint8)
_CEILINGS = np.where(_LEVELS[None, :] > FOREGROUND_ABOVE, _LEVELS[:, None], FARTHEST).astype(np.uint8)
"""(256, 256): row v has the upper limit of the depth for each alpha, in front of which a cutout at level v stands."""


class Cutout(NamedTuple):
    """A foreground at its size in a sample."""

    rgb: Pixels
    """(h, w, 3), multiplied by alpha."""
    alpha: Pixels
    """(h, w)"""


def cutout_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """Height and width when the longer side of (`height`, `width`) becomes `longest`."""
    factor = longest / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def scaled_cutout(rgba: Pixels, height: int, width: int, *, mirrored: bool = False) -> Cutout:
    """Resize (H, W, 4), with colours multiplied by alpha, and mirror it left to right if `mirrored`."""
    resized = resize_to(rgba, height, width)
    if mirrored:
        resized = np.asarray(cv2.flip(resized, 1), np.uint8)
    rgb, alpha = cv2.cvtColor(resized, cv2.COLOR_RGBA2RGB), cv2.extractChannel(resized, 3)
    return Cutout(np.asarray(rgb, np.uint8), np.asarray(alpha, np.uint8))


def resized_alpha(rgba: Pixels, height: int, width: int) -> Pixels:
    """The alpha (`height`, `width`) of a `scaled_cutout` that is not mirrored."""
    # With the colours: the rounding of a single channel may differ.
    return np.asarray(cv2.extractChannel(resize_to(rgba, height, width), 3), np.uint8)


def paste(cutout: Cutout, level: int, fg_bg: Pixels, mask: Pixels, depth: Pixels) -> None:
    """Draw a cutout over the area of the images that it covers; all three are changed in place.

    Where alpha is above 127, the depth becomes `level`, which must not be behind the nearest pixel that is covered.

    Args:
        cutout: (h, w).
        level: depth of the cutout in 0..255.
        fg_bg: (h, w, 3), the background; becomes the photograph.
        mask: (h, w), is overwritten by alpha.
        depth: (h, w), depth of the background.
    """
    transparency = cv2.cvtColor(cv2.bitwise_not(cutout.alpha), cv2.COLOR_GRAY2RGB)
    cv2.multiply(fg_bg, transparency, dst=fg_bg, scale=1 / 255)
    cv2.add(fg_bg, cutout.rgb, dst=fg_bg)
    mask[:] = cutout.alpha
    cv2.min(depth, cv2.LUT(cutout.alpha, _CEILINGS[level]), dst=depth)


def compose(bg: Pixels, depth: Pixels, rgba: Pixels, placement: Placement) -> tuple[Pixels, Pixels, Pixels]:
    """Compose the photograph (S, S, 3), mask (S, S) and depth (S, S) of a sample.

    Args:
        bg: (S, S, 3).
        depth: (S, S), of the background.
        rgba: (H, W, 4), the cutout with colours multiplied by alpha.
        placement: where it is.
    """
    cutout = scaled_cutout(rgba, placement.height, placement.width, mirrored=placement.mirrored)
    fg_bg, mask, depth = bg.copy(), np.zeros_like(depth), depth.copy()
    area = np.s_[placement.top : placement.top + placement.height, placement.left : placement.left + placement.width]
    paste(cutout, placement.level, fg_bg[area], mask[area], depth[area])
    return fg_bg, mask, depth


def encode_composed(
    ids: tuple[str, str], encoded_bg: bytes, images: tuple[Pixels, Pixels, Pixels], placement: Placement
) -> EncodedSample:
    """Encode a composed sample as a data set of images stores it: JPEG for the photograph, PNG otherwise.

    Args:
        ids: of the background and of the foreground.
        encoded_bg: the file of the background.
        images: the result of `compose`.
        placement: where the cutout is.
    """
    fg_bg, mask, depth = images
    return EncodedSample(
        sample_id=placement.sample_id(*ids),
        bg_id=ids[0],
        fg_id=ids[1],
        bg=encoded_bg,
        fg_bg=encode_jpeg(fg_bg),
        mask=encode_mask(mask),
        depth=encode_depth(depth),
    )
