"""Read depth files: images of 8 and 16 bits, and floating-point or integer values in TIFF, EXR, `.npy` and `.pfm`.

Files are known by their first bytes. Nothing is unpickled. Shapes: H and W are height and width in pixels.
"""

from __future__ import annotations

import io
import math
import re
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data.depth.exr import EXR, read_exr
from data.errors import InputError
from data.image_metadata import BIG_TIFF, TIFF, decode_upright
from data.images import encode_png
from data.source_images import source_depth

if TYPE_CHECKING:
    from data.depth.meaning import DepthMeaning
    from data.source_images import StoredDepth

NPY = b"\x93NUMPY"
PFM, PFM_COLOUR = (b"Pf\n", b"Pf\r", b"Pf "), (b"PF\n", b"PF\r", b"PF ")
_PFM_HEADER = re.compile(rb"Pf\s+(\d{1,6})\s+(\d{1,6})\s+([-+]?)[\d.]+(?:[eE][-+]?\d+)?(?:\r\n|\s)")
"""Width, height, and '-' for little-endian numbers; the size of the scale is not used."""
HEADER_ERRORS = (ValueError, LookupError, TypeError, SyntaxError, TokenError, RecursionError)
"""Errors of NumPy for a damaged or hostile header."""
NUMBERS = "fiu"
"""Kinds of NumPy types that are depth: floating-point numbers and integers."""
FLOATS = (".npy", ".pfm", ".exr")
"""Extensions of depth files that are not images."""


class DepthUnitError(InputError):
    """The unit of floating-point depth is not known."""


def read_depth(encoded: bytes, where: str, meaning: DepthMeaning) -> tuple[StoredDepth, bytes]:
    """Decode a depth file.

    Args:
        encoded: bytes of an image file of 8 or 16 bits, or a TIFF, EXR, NumPy or PFM file of numbers.
        where: the file, for error messages.
        meaning: of the values; values of more than 16 bits need a unit.

    Returns:
        (H, W) uint8, uint16 or, for all other numbers, float32; and for uint8 the bytes to store, as `source_depth`.

    Raises:
        DepthUnitError: if its unit is not known, but must be.
        InputError: if the file is damaged, has colours or more than one channel.
    """
    if encoded.startswith(PFM_COLOUR):
        raise InputError(
            f"The depth '{where}' is a PFM file with colours, but must have one value a pixel; convert it."
        )
    if encoded.startswith(NPY):
        values = _npy(encoded, where)
    elif encoded.startswith(EXR):
        values = read_exr(encoded, where)
    elif encoded.startswith(PFM):
        values = _pfm(encoded, where)
    elif encoded.startswith(TIFF + BIG_TIFF):
        values, _ = decode_upright(encoded, where)
        if values.dtype in (np.uint8, np.uint16):
            return source_depth(encoded, where)
    else:
        return source_depth(encoded, where)
    return _as_stored(values, where, meaning)


def _as_stored(values: NDArray[Any], where: str, meaning: DepthMeaning) -> tuple[StoredDepth, bytes]:
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[:, :, 0]
    if values.ndim != 2 or values.size == 0:
        raise InputError(
            f"The depth '{where}' has the shape {values.shape}, but must be (height, width); store one value a pixel."
        )
    if values.dtype.kind not in NUMBERS:
        raise _no_numbers(where, values.dtype)
    if values.dtype == np.uint8:
        levels = np.ascontiguousarray(values, np.uint8)
        return levels, encode_png(levels)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.ascontiguousarray(values, np.uint16), b""
    if meaning.unit is None:
        raise DepthUnitError(
            f"The depth '{where}' has {values.dtype} values, whose unit is not known; give --depth-unit mm, cm or m, "
            "or relative if they are no distances."
        )
    with np.errstate(over="ignore"):  # too large for float32: infinite, and so no measurement
        return np.ascontiguousarray(values, np.float32), b""


def _no_numbers(where: str, dtype: np.dtype[Any]) -> InputError:
    return InputError(f"The depth '{where}' is {dtype}, but must be numbers; convert it to float32.")


def _npy(encoded: bytes, where: str) -> NDArray[Any]:
    """The array of a NumPy file, whose size is compared with its header before memory is taken."""
    file = io.BytesIO(encoded)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        shape, is_fortran, dtype = read_header[np.lib.format.read_magic(file)](file)
    except HEADER_ERRORS as error:
        raise InputError(
            f"The depth '{where}' is not a whole NumPy file ({error}); write it again with np.save."
        ) from None
    if dtype.hasobject:
        raise InputError(f"The depth '{where}' has Python objects, but must be numbers; convert it to float32.")
    if dtype.kind not in NUMBERS:  # such as strings, whose size may be 0, and structures
        raise _no_numbers(where, dtype)
    shape = tuple(map(int, shape))  # True is a valid size for NumPy's header, but not for reshape
    content = encoded[file.tell() :]
    fits = all(0 <= size <= len(encoded) for size in shape) and len(content) == math.prod(shape) * dtype.itemsize
    if not fits:
        raise InputError(
            f"The depth '{where}' is cut off: it has {len(content):,} bytes for {dtype} of shape {shape}; write it "
            "again with np.save."
        )
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")


def _pfm(encoded: bytes, where: str) -> NDArray[Any]:
    """The values of a portable float map, whose rows go from the bottom to the top."""
    match = _PFM_HEADER.match(encoded)
    if match is None:
        raise InputError(f"The depth '{where}' is not a PFM file, or is cut off; write it again.")
    width, height = int(match[1]), int(match[2])
    content = encoded[match.end() :]
    if len(content) != 4 * width * height:
        raise InputError(
            f"The depth '{where}' has {len(content):,} bytes for {width}x{height} values of 4 bytes; write it again."
        )
    order = "<" if match[3] == b"-" else ">"
    return np.frombuffer(content, f"{order}f4").reshape(height, width)[::-1]
