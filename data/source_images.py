"""Image files that a user gives, as a data set stores them: upright, opaque, a photograph or a plane of 8 bits.

`data.images` decodes what a data set holds. Import, compose and predict read their files here: phones write an
orientation beside the pixels, editors an alpha channel, sensors 16 bits.

Shapes: H and W height and width in pixels, after the orientation was applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.dataset.statistics import FOREGROUND_ABOVE
from data.errors import InputError
from data.image_files import decode_upright, keyed_alpha, palette_indices
from data.images import encode_png, grey_plane
from data.schema import Pixels

if TYPE_CHECKING:
    from collections.abc import Iterable

StoredDepth = NDArray[np.uint8] | NDArray[np.uint16]


def source_photo(encoded: bytes, where: str) -> tuple[Pixels, bytes]:
    """Decode a photograph, and give the bytes to store it as.

    Args:
        encoded: bytes of a PNG, JPEG or other image file of 8 bits a channel; grey counts as R=G=B.
        where: the file, for the error's sentence.

    Returns:
        (H, W, 3) RGB, and `encoded` itself if it needs no change, else a PNG: no level is lost.

    Raises:
        InputError: if the bytes are no whole image, have other than 8 bits a channel, or are transparent anywhere.
    """
    pixels, is_changed = decode_upright(encoded, where)
    _check_bits(pixels, where)
    if pixels.ndim == 2:
        _check_opaque(keyed_alpha(pixels, encoded), where)
        return np.repeat(pixels[:, :, None], 3, axis=2), encode_png(pixels) if is_changed else encoded
    if pixels.shape[2] == 4:
        pixels, is_changed = _opaque(pixels, where), True
    return pixels, encode_png(pixels) if is_changed else encoded


def source_mask(encoded: bytes, where: str, *, factor: int = 1) -> tuple[Pixels, bytes]:
    """Decode a mask, and give the bytes to store it as.

    A palette of colours counts by its index: 0 is background, a single other index is foreground.

    Args:
        encoded: bytes of a PNG, JPEG or other image file of 8 bits; grey, also as R=G=B, or with a palette.
        where: the file, for the error's sentence.
        factor: what the levels are multiplied by, as `mask_factor` found it.

    Returns:
        (H, W) in 0..255, and `encoded` itself if it needs no change, else a PNG.

    Raises:
        InputError: if the bytes are no whole image, have other than 8 bits, colours, or transparent pixels.
    """
    pixels, is_changed = decode_upright(encoded, where)
    _check_bits(pixels, where)
    plane = pixels if pixels.ndim == 2 else grey_plane(pixels[:, :, :3])
    indices = palette_indices(encoded, where) if plane is None else None
    if indices is not None:
        plane = _foreground(indices, where)
    elif pixels.ndim == 3 and pixels.shape[2] == 4:
        _opaque(pixels, where)
    if plane is None:
        raise _coloured(where)
    is_changed = is_changed or pixels.ndim == 3 or factor != 1
    plane = np.asarray(plane * np.uint8(factor), np.uint8)
    return plane, encode_png(plane) if is_changed else encoded


def mask_factor(masks: Iterable[Pixels], where: str) -> int:
    """What the levels of a set's masks must be multiplied by: 255 if the largest over the whole set is 1, else 1.

    Reads no more masks than it takes to find a foreground.

    Args:
        masks: (H, W) each, all of the set.
        where: the set, for the error's sentence.

    Raises:
        InputError: if no mask has a foreground, though the largest level is above 1.
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
        encoded: bytes of a PNG, TIFF or other image file; of 8 bits it may be R=G=B.
        where: the file, for the error's sentence.

    Returns:
        (H, W), and, of 8 bits, the bytes to store it as: `encoded` itself if it needs no change, else a PNG.

    Raises:
        InputError: if the bytes are no whole image, no integers, have colours, or transparent pixels.
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
    """Pixels of a foreground, (H, W, 4) RGBA.

    Raises:
        InputError: if the bytes are no whole image of 8 bits, it has no alpha channel, or nothing in it is opaque.
    """
    pixels, _ = decode_upright(encoded, where)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        raise InputError(
            f"The foreground '{where}' has no alpha channel, but must be RGBA, transparent around what it shows; "
            "cut it out, and store it as PNG."
        )
    if pixels.dtype != np.uint8:
        raise InputError(f"The foreground '{where}' is {pixels.dtype}, but must have 8 bits a channel; convert it.")
    if pixels[:, :, 3].max() <= FOREGROUND_ABOVE:
        raise InputError(
            f"The foreground '{where}' is transparent all over: no pixel has an alpha above {FOREGROUND_ABOVE} of 255; "
            "replace or remove it."
        )
    return np.asarray(pixels, np.uint8)


def _check_bits(pixels: NDArray[Any], where: str) -> None:
    if pixels.dtype != np.uint8:
        raise InputError(
            f"The picture '{where}' is stored as {pixels.dtype}, but must have 8 bits a channel; convert it to uint8."
        )


def _coloured(where: str) -> InputError:
    return InputError(
        f"The picture '{where}' has colours, but a mask or depth must have a single channel; store it as grey."
    )


def _opaque(pixels: NDArray[Any], where: str) -> Pixels:
    """(H, W, 3) of (H, W, 4) whose alpha hides nothing.

    Raises:
        InputError: if it does.
    """
    _check_opaque(pixels[:, :, 3], where)
    return np.ascontiguousarray(pixels[:, :, :3])


def _check_opaque(alpha: NDArray[Any], where: str) -> None:
    clear = alpha < 255
    if not clear.any():
        return
    rows, columns = (np.flatnonzero(clear.any(axis=axis)) for axis in (1, 0))
    raise InputError(
        f"The picture '{where}' is transparent in {np.count_nonzero(clear):,} of {clear.size:,} pixels (columns "
        f"{columns[0]} to {columns[-1]}, rows {rows[0]} to {rows[-1]}; alpha down to {alpha.min()} of 255), but must "
        "be opaque everywhere; store it without an alpha channel."
    )


def _foreground(indices: Pixels, where: str) -> Pixels:
    """(H, W): 0 where the index of a palette (H, W) is 0, else 255.

    Raises:
        InputError: if there are two other indices.
    """
    used = np.unique(indices)
    if np.count_nonzero(used) > 1:
        raise InputError(
            f"The mask '{where}' has {len(used)} colours of its palette, but must have two: index 0 for the "
            "background, and one for the foreground; store it as grey."
        )
    return np.where(indices > 0, np.uint8(255), np.uint8(0))
