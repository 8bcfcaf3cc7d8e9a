"""Read the depth channel of an OpenEXR file with the library of the OpenEXR project, which is optional."""

from __future__ import annotations

import io
import math
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np

from data.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXR = b"\x76\x2f\x31\x01"
DEPTH_NAMES = ("z", "depth")
"""Names of a depth channel, in any case and after the name of a layer, as in 'ViewLayer.Depth.Z'."""
MAX_PIXELS = 2**28
"""Of a file; a small file may claim any size, for which memory would be taken. OpenCV's readers have the same limit."""


def read_exr(encoded: bytes, where: str) -> NDArray[Any]:
    """The values (H, W) of the depth channel: the only channel, or the one named Z or depth, or equal R, G and B.

    Raises:
        InputError: if the OpenEXR library is not installed, or the file is damaged or has no such channel.
    """
    try:
        import OpenEXR
    except ImportError:
        raise InputError(
            f"The depth '{where}' is an EXR file, which the package OpenEXR reads; install it with pip install "
            "'twinhead[exr]', or convert the file to a float32 TIFF, .npy or .pfm file."
        ) from None
    try:
        with OpenEXR.File(io.BytesIO(encoded), header_only=True) as file:
            pixels = sum(_pixels(part.header) * len(part.header["channels"]) for part in file.parts)
        if pixels > MAX_PIXELS:
            raise InputError(f"The depth '{where}' claims {pixels:,} values, but may have {MAX_PIXELS:,}; crop it.")
        # The library prints what it cannot read; standard output is for results.
        with redirect_stdout(sys.stderr), OpenEXR.File(io.BytesIO(encoded), separate_channels=True) as file:
            channels = {name: channel.pixels for part in file.parts for name, channel in part.channels.items()}
        if not channels:
            raise ValueError("the pixels cannot be read")  # noqa: TRY301
    except (RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"The depth '{where}' is not a whole EXR file ({error}); write it again.") from None
    return _depth(channels, where)


def _pixels(header: dict[str, Any]) -> int:
    first, last = header["dataWindow"]
    return math.prod(int(side) for side in last - first + 1)


def _depth(channels: dict[str, NDArray[Any]], where: str) -> NDArray[Any]:
    named = [name for name in channels if name.rpartition(".")[2].lower() in DEPTH_NAMES]
    if len(named) == 1 or len(channels) == 1:
        return channels[(named or list(channels))[0]]
    colours = [channels[name] for name in "RGB" if name in channels]
    if not named and len(colours) == 3 and all(np.array_equal(colours[0], other) for other in colours[1:]):
        return colours[0]
    raise InputError(
        f"The depth '{where}' has the channels {', '.join(sorted(channels))}, of which not one alone is named Z or "
        "depth; write an EXR file with the depth alone."
    )
