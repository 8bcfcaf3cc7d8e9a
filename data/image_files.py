"""What image files say besides their pixels: the orientation to show them in, a palette, a transparent level.

Shapes: H and W height and width in pixels, after the orientation was applied.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.images import decode_any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.schema import Pixels

ORIENTATION = 0x0112
"""The EXIF tag of how the pixels must be turned to be upright, 1 (not at all) to 8."""
PHOTOMETRIC, CMYK = 0x0106, 5
"""The TIFF tag of what the channels mean, and its value for inks."""
_UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
PNG = b"\x89PNG\r\n\x1a\n"
TIFF, BIG_TIFF = (b"II*\0", b"MM\0*"), (b"II+\0", b"MM\0+")
_GREY, _PALETTE = 0, 3
"""Colour types in the header of a PNG file."""


def decode_upright(encoded: bytes, where: str) -> tuple[NDArray[Any], bool]:
    """Pixels as `decode_any` gives them but upright, and whether a data set must hold them in another file.

    It must where they were turned: whoever reads the data set shall not need to know. And it holds no TIFF files, whose
    orientation OpenCV applies itself.

    Args:
        encoded: bytes of an image file of any number of bits.
        where: the file, for the error's sentence.

    Returns:
        (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, whichever is stored.

    Raises:
        InputError: if the bytes are no whole image, or its orientation or colours cannot be told.
    """
    pixels, exif = decode_any(encoded, where)
    if encoded[4:12] == b"ftypavif" and (b"irot" in encoded or b"imir" in encoded):
        raise InputError(f"The picture '{where}' is an AVIF file that is turned or mirrored; store it as PNG or JPEG.")
    if _tiff_tag(encoded, PHOTOMETRIC) == CMYK:
        raise InputError(f"The picture '{where}' has the colours of inks (CMYK); store it as RGB.")
    orientation = _tiff_tag(exif, ORIENTATION)
    if orientation not in _UPRIGHT:
        return pixels, encoded.startswith(TIFF + BIG_TIFF)
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)), True


def keyed_alpha(plane: Pixels, encoded: bytes) -> Pixels:
    """(H, W): 0 where a grey PNG file declares the level in `plane` (H, W) transparent, else 255; OpenCV ignores it."""
    alpha = np.full(plane.shape, 255, np.uint8)
    if _has_colour_type(encoded, _GREY):
        for kind, content in _chunks(encoded):
            if kind == b"tRNS":
                largest = 2 ** encoded[24] - 1
                alpha[plane == int.from_bytes(content[:2], "big") * 255 // largest] = 0
    return alpha


def palette_indices(encoded: bytes, where: str) -> Pixels | None:
    """(H, W) indices of a PNG file with a palette; None of other files.

    Raises:
        InputError: as `decode_upright`.
    """
    if not _has_colour_type(encoded, _PALETTE):
        return None
    return np.asarray(decode_upright(_with_indices(encoded), where)[0][:, :, 0], np.uint8)


def _tiff_tag(block: bytes, tag: int) -> int | None:
    """The first value of a tag in the first directory of a TIFF file, or of EXIF, which has its form."""
    block = block.removeprefix(b"Exif\0\0")
    if not block.startswith(TIFF):
        return None

    def number(start: int, size: int) -> int:
        return int.from_bytes(block[start : start + size], "little" if block.startswith(b"II") else "big")

    first = number(4, 4)
    for entry in range(first + 2, min(first + 2 + 12 * number(first, 2), len(block)), 12):
        if number(entry, 2) == tag:
            is_short = number(entry + 2, 2) == 3
            return number(entry + 8, 2 if is_short else 4)
    return None


def _with_indices(encoded: bytes) -> bytes:
    """The same PNG file with each index of its palette as its own grey level, and opaque."""
    parts = [PNG]
    for kind, content in _chunks(encoded):
        if kind == b"tRNS":
            continue
        if kind == b"PLTE":
            content = bytes(index for index in range(len(content) // 3) for _ in range(3))
        parts += [len(content).to_bytes(4, "big"), kind, content, zlib.crc32(kind + content).to_bytes(4, "big")]
    return b"".join(parts)


def _has_colour_type(encoded: bytes, colour_type: int) -> bool:
    """Whether it is a PNG file of that colour type."""
    return encoded.startswith(PNG) and encoded[25] == colour_type


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of a PNG file's chunks."""
    start = len(PNG)
    while start + 12 <= len(encoded):
        size = int.from_bytes(encoded[start : start + 4], "big")
        yield encoded[start + 4 : start + 8], encoded[start + 8 : start + 8 + size]
        start += size + 12
