"""Image file metadata: what changes the pixels (orientation, palette, transparent grey level), and notes in PNG files.

Shapes: H and W are height and width in pixels, after the orientation is applied.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.images import decode_any, grey_plane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from data.schema import Pixels

ORIENTATION = 0x0112
"""EXIF tag of the orientation: 1 (upright) to 8."""
PHOTOMETRIC, CMYK = 0x0106, 5
"""TIFF tag of the colour space, and its value for CMYK."""
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
"""Colour types in a PNG header."""
_HEADER_BYTES = len(PNG) + 25
"""Signature and header of a PNG file."""
NOTE = b"Twinhead\0"
"""Keyword of the text chunk with a note."""


def decode_upright(encoded: bytes, where: str) -> tuple[NDArray[Any], bool]:
    """Decode an image and apply its orientation.

    Args:
        encoded: bytes of an image file of any bit depth.
        where: the file, for error messages.

    Returns:
        Pixels (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, and whether a data set must store them as a new file. It must
        if the pixels were rotated or mirrored, or the file is TIFF: data sets contain no TIFF files.

    Raises:
        InputError: if the image is damaged, or its orientation or colour space is not supported.
    """
    pixels, exif = decode_any(encoded, where)
    if encoded[4:12] == b"ftypavif" and (b"irot" in encoded or b"imir" in encoded):
        raise InputError(f"The image '{where}' is a rotated or mirrored AVIF file; store it as PNG or JPEG.")
    if _tiff_tag(encoded, PHOTOMETRIC) == CMYK:
        raise InputError(f"The image '{where}' has CMYK colours; store it as RGB.")
    orientation = _tiff_tag(exif, ORIENTATION)
    if orientation not in _UPRIGHT:
        return pixels, encoded.startswith(TIFF + BIG_TIFF)
    return np.ascontiguousarray(_UPRIGHT[orientation](pixels)), True


def keyed_alpha(plane: Pixels, encoded: bytes) -> Pixels:
    """Alpha (H, W) of a grey PNG that declares one level of `plane` (H, W) transparent; OpenCV ignores this chunk."""
    alpha = np.full(plane.shape, 255, np.uint8)
    if _has_colour_type(encoded, _GREY):
        for kind, content in _chunks(encoded):
            if kind == b"tRNS":
                largest = 2 ** encoded[24] - 1
                alpha[plane == int.from_bytes(content[:2], "big") * 255 // largest] = 0
    return alpha


def has_coloured_palette(encoded: bytes) -> bool:
    """Whether an image is a PNG file whose palette has colours, used or not."""
    if not _has_colour_type(encoded, _PALETTE):
        return False
    palette = next((content for kind, content in _chunks(encoded) if kind == b"PLTE"), b"")
    return bool(palette) and grey_plane(np.frombuffer(palette, np.uint8).reshape(1, -1, 3)) is None


def palette_indices(encoded: bytes, where: str) -> Pixels | None:
    """Palette indices (H, W) of a PNG file; None for files without a palette.

    Raises:
        InputError: as `decode_upright`.
    """
    if not _has_colour_type(encoded, _PALETTE):
        return None
    return np.asarray(decode_upright(_with_indices(encoded), where)[0][:, :, 0], np.uint8)


def with_note(encoded: bytes, note: str) -> bytes:
    """A PNG file with a note in a text chunk after its header.

    Args:
        encoded: the PNG file.
        note: Latin-1 text.
    """
    return encoded[:_HEADER_BYTES] + _chunk(b"tEXt", NOTE + note.encode("latin-1")) + encoded[_HEADER_BYTES:]


def note_of(start: bytes) -> str:
    """The note that `with_note` put into a PNG file; '' if there is none.

    Args:
        start: the PNG file, or its first bytes, up to the note or more.
    """
    if start.startswith(PNG):
        for kind, content in _chunks(start):
            if kind == b"tEXt" and content.startswith(NOTE):
                return content.removeprefix(NOTE).decode("latin-1")
    return ""


def _tiff_tag(block: bytes, tag: int) -> int | None:
    """First value of a tag in the first directory of a TIFF file or an EXIF block, which share one format."""
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
    """The same PNG file, opaque, with a palette that maps each index to the grey level of the same number."""
    parts = [PNG]
    for kind, content in _chunks(encoded):
        if kind == b"tRNS":
            continue
        if kind == b"PLTE":
            content = bytes(index for index in range(len(content) // 3) for _ in range(3))
        parts.append(_chunk(kind, content))
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def _has_colour_type(encoded: bytes, colour_type: int) -> bool:
    """Whether `encoded` is a PNG file of that colour type."""
    return encoded.startswith(PNG) and encoded[25] == colour_type


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each chunk of a PNG file."""
    start = len(PNG)
    while start + 12 <= len(encoded):
        size = int.from_bytes(encoded[start : start + 4], "big")
        yield encoded[start + 4 : start + 8], encoded[start + 8 : start + 8 + size]
        start += size + 12
