"""Read image files of the user and convert them to the form of a data set: upright, opaque, 8 bits.

Used by import, compose and predict; `data.images` decodes images that are already in a data set. Phones add an EXIF
orientation, image editors an alpha channel, and sensors write 16 bits.

Shapes: H and W are height and width in pixels, after the orientation is applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.dataset.statistics import FOREGROUND_ABOVE
from data.errors import InputError
from data.image_metadata import decode_upright, has_coloured_palette, keyed_alpha, palette_indices
from data.images import check_8_bit, encode_png, grey_plane
from data.schema import Pixels

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LABEL = 1023
"""Largest label of a 16-bit mask: larger values are levels of an unknown range, or codes of classes."""
MAX_PALETTE_LABELS = 64
"""Limit for the labels of a mask with a palette: a photograph with a palette has more colours."""
MASK_TOLERANCE = 8
"""Grey levels around 0 and 255 that a mask of two levels has after JPEG compression."""

MaskForm = Literal["levels", "labels", "alpha"]
"""Grey levels or a single label; several labels, which are joined; or the alpha channel of a cut-out."""


class SourceMask(NamedTuple):
    """A mask of a user, converted."""

    plane: Pixels
    """(H, W) in 0..255."""
    encoded: bytes
    """The bytes to store: those of the file if it needs no change, else a PNG."""
    form: MaskForm


StoredDepth = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
"""Depth (H, W) as it is in a file."""


def source_photo(encoded: bytes, where: str) -> tuple[Pixels, bytes]:
    """Decode a photo.

    Args:
        encoded: bytes of a PNG, JPEG or other image file with 8 bits per channel; grey is converted to R=G=B.
        where: the file, for error messages.

    Returns:
        (H, W, 3) RGB, and the bytes to store: `encoded` if it needs no change, else a PNG, which is lossless.

    Raises:
        InputError: if the image is damaged, does not have 8 bits per channel, or has transparent pixels.
    """
    pixels, is_changed = decode_upright(encoded, where)
    check_8_bit(pixels, where)
    if pixels.ndim == 2:
        _check_opaque(keyed_alpha(pixels, encoded), where)
        return np.repeat(pixels[:, :, None], 3, axis=2), encode_png(pixels) if is_changed else encoded
    if pixels.shape[2] == 4:
        pixels, is_changed = _opaque(pixels, where), True
    return pixels, encode_png(pixels) if is_changed else encoded


def source_mask(encoded: bytes, where: str, *, factor: int = 1) -> SourceMask:
    """Decode a mask.

    A mask is an image of grey levels, an image with a palette of colours or with 16 bits whose values are labels, or
    the alpha channel of a cut-out. Label 0 is background, every other one is foreground. A 16-bit image that reaches
    65535 has grey levels; labels are at most `MAX_LABEL`.

    Args:
        encoded: bytes of a PNG, JPEG or other image file; grey levels may be stored as R=G=B.
        where: the file, for error messages.
        factor: multiplies the levels; see `mask_factor`.

    Raises:
        InputError: if the image is damaged, has other 16-bit values or colours, or transparent pixels that are no mask.
    """
    pixels, is_changed = decode_upright(encoded, where)
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return _mask_of_16_bits(np.asarray(pixels, np.uint16), where)
    check_8_bit(pixels, where)
    plane = pixels if pixels.ndim == 2 else grey_plane(pixels[:, :, :3])
    indices = palette_indices(encoded, where) if plane is None or has_coloured_palette(encoded) else None
    if indices is not None and (plane is None or _is_label_in_grey(indices, plane)):
        return _mask_of_labels(indices, where)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        if _is_cutout(pixels, plane):
            return SourceMask(*_stored(pixels[:, :, 3]), "alpha")
        _check_opaque(pixels[:, :, 3], where)
    if plane is None:
        raise _coloured(where)
    is_changed = is_changed or pixels.ndim == 3 or factor != 1
    plane = np.asarray(plane * np.uint8(factor), np.uint8)
    return SourceMask(plane, encode_png(plane) if is_changed else encoded, "levels")


def mask_factor(masks: Iterable[Pixels], where: str) -> int:
    """Factor for the mask levels of a source: 255 if the largest level of all masks is 1, else 1.

    Stops at the first mask with a foreground.

    Args:
        masks: all masks of the source, (H, W) each.
        where: the source, for error messages.

    Raises:
        InputError: if no mask has a foreground, but the largest level is above 1.
    """
    largest = 0
    for mask in masks:
        largest = max(largest, int(mask.max()))
        if largest > FOREGROUND_ABOVE:
            return 1
    if largest > 1:
        raise InputError(
            f"The largest level of all masks in '{where}' is {largest}, but a foreground is above {FOREGROUND_ABOVE}; "
            "store it as 255, or as 1 in all masks."
        )
    return 255 if largest == 1 else 1


def source_depth(encoded: bytes, where: str) -> tuple[StoredDepth, bytes]:
    """Decode a depth image of 8 or 16 bits.

    Args:
        encoded: bytes of a PNG, TIFF or other image file; 8-bit depth may be R=G=B.
        where: the file, for error messages.

    Returns:
        (H, W), and for 8-bit depth the bytes to store: `encoded` if it needs no change, else a PNG.

    Raises:
        InputError: if the image is damaged, has other than 8 or 16 bits, colours, or transparent pixels.
    """
    pixels, is_changed = decode_upright(encoded, where)
    if pixels.dtype == np.uint16 and pixels.ndim == 2:
        return np.asarray(pixels, np.uint16), encoded
    if pixels.dtype != np.uint8:
        channels = 1 if pixels.ndim == 2 else pixels.shape[2]
        raise InputError(
            f"The depth '{where}' is {pixels.dtype} with {channels} channel{'s' if channels > 1 else ''}, but must "
            "have a single channel of 8 or 16 bits; convert it, such as metres to millimetres in 16 bits."
        )
    if pixels.ndim == 2:
        return pixels, encode_png(pixels) if is_changed else encoded
    plane = grey_plane(_opaque(pixels, where) if pixels.shape[2] == 4 else pixels)
    if plane is None:
        raise _coloured(where)
    return plane, encode_png(plane)


def source_cutout(encoded: bytes, where: str) -> Pixels:
    """Decode a foreground cutout: (H, W, 4) RGBA.

    Raises:
        InputError: if the image is damaged, does not have 8 bits per channel, has no alpha channel, or is transparent
            everywhere.
    """
    pixels, _ = decode_upright(encoded, where)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        raise InputError(
            f"The foreground '{where}' has no alpha channel, but must be RGBA and transparent around the object; "
            "cut it out, and store it as PNG."
        )
    if pixels.dtype != np.uint8:
        raise InputError(f"The foreground '{where}' is {pixels.dtype}, but must have 8 bits a channel; convert it.")
    if pixels[:, :, 3].max() <= FOREGROUND_ABOVE:
        raise InputError(
            f"The foreground '{where}' is transparent everywhere: no pixel has an alpha above {FOREGROUND_ABOVE} of "
            "255; replace or remove it."
        )
    return np.asarray(pixels, np.uint8)


def _coloured(where: str) -> InputError:
    return InputError(
        f"The image '{where}' has colours, but a mask or depth must have a single channel; store it as grey."
    )


def _opaque(pixels: NDArray[Any], where: str) -> Pixels:
    """Remove the alpha channel of (H, W, 4); refuse transparent pixels."""
    _check_opaque(pixels[:, :, 3], where)
    return np.ascontiguousarray(pixels[:, :, :3])


def _check_opaque(alpha: NDArray[Any], where: str) -> None:
    transparent = alpha < 255
    if not transparent.any():
        return
    rows, columns = (np.flatnonzero(transparent.any(axis=axis)) for axis in (1, 0))
    raise InputError(
        f"The image '{where}' is transparent in {np.count_nonzero(transparent):,} of {alpha.size:,} pixels (columns "
        f"{columns[0]} to {columns[-1]}, rows {rows[0]} to {rows[-1]}; alpha down to {alpha.min()} of 255), but must "
        "be opaque everywhere; store it without an alpha channel."
    )


def _mask_of_16_bits(pixels: NDArray[np.uint16], where: str) -> SourceMask:
    largest = int(pixels.max())
    if largest == np.iinfo(np.uint16).max:
        return SourceMask(*_stored(np.asarray(np.rint(pixels / 257), np.uint8)), "levels")
    if largest > MAX_LABEL:
        raise InputError(
            f"The mask '{where}' has 16 bits with values up to {largest}, which are neither labels (at most "
            f"{MAX_LABEL}) nor grey levels up to 65535; store it as 0 and 255 with 8 bits."
        )
    return _mask_of_labels(pixels, where)


def _mask_of_labels(labels: NDArray[Any], where: str) -> SourceMask:
    """Mask of labels (H, W): 0 where the label is 0, else 255."""
    used = np.unique(labels)
    if labels.dtype == np.uint8 and len(used) > MAX_PALETTE_LABELS:
        raise InputError(
            f"The mask '{where}' uses {len(used)} palette colours, as a photograph does, but labels use at most "
            f"{MAX_PALETTE_LABELS}; store it as grey."
        )
    is_joined = np.count_nonzero(used) > 1
    return SourceMask(*_stored(np.where(labels > 0, np.uint8(255), np.uint8(0))), "labels" if is_joined else "levels")


def _is_label_in_grey(indices: Pixels, plane: Pixels) -> bool:
    """Whether a mask has a single label, whose colour among others is grey: index 0 is then all that is black."""
    return len(np.unique(indices)) <= 2 and np.array_equal(indices == 0, plane == 0)


def _is_cutout(pixels: Pixels, plane: Pixels | None) -> bool:
    """Whether the alpha channel of (H, W, 4) is a mask: its background is transparent, and its colours are no mask."""
    alpha = pixels[:, :, 3]
    if alpha.min() > 0:
        return False
    if plane is None:
        return True
    shown = plane[alpha > FOREGROUND_ABOVE]
    dark, bright = shown < MASK_TOLERANCE, shown >= 256 - MASK_TOLERANCE
    return not (dark.any() and bright.any() and (dark | bright).all())


def _stored(plane: Pixels) -> tuple[Pixels, bytes]:
    plane = np.ascontiguousarray(plane)
    return plane, encode_png(plane)
