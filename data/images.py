"""Encoded pictures to pixels and back, on OpenCV; the only file that knows its channel order.

Shapes: H and W height and width in pixels. A photograph is (H, W, 3) RGB, a plane (mask or depth) is (H, W).
"""

from __future__ import annotations

import contextlib
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.schema import EncodedSample, Pixels, Sample

Resize = Literal["area", "bilinear", "lanczos"]
Resized = TypeVar("Resized", Pixels, NDArray[np.float32])

GREY_TOLERANCE = 2
"""Levels by which the channels of a grey picture stored as colour may differ: JPEG rounds chroma."""

_EXIF = cv2.IMAGE_METADATA_EXIF
_TO_RGB = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
"""From OpenCV's order of channels, by their number."""


def decode_photo(encoded: bytes, where: str) -> Pixels:
    """Pixels of a photograph in a data set; a grey one counts as R=G=B.

    An EXIF orientation is ignored: `data.source_images` applied it before the photograph was stored.

    Args:
        encoded: bytes of a PNG, JPEG or other 8-bit image file.
        where: the file, or the part and sample, for the error's sentence.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: if the bytes are no whole image, have other than 8 bits a channel, or an alpha channel.
    """
    pixels = _decode(encoded, where)
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.shape[2] != 3:
        raise InputError(
            f"The photograph '{where}' has {pixels.shape[2]} channels, but must be grey or RGB; "
            "store it without an alpha channel."
        )
    return pixels


def decode_plane(encoded: bytes, where: str) -> Pixels:
    """Pixels of a mask or a depth; three channels are accepted where they are equal up to JPEG's rounding.

    Args:
        encoded: bytes of a PNG, JPEG or other 8-bit image file.
        where: the file, or the part and sample, for the error's sentence.

    Returns:
        (H, W).

    Raises:
        InputError: if the bytes are no whole image, have other than 8 bits, colours, or an alpha channel.
    """
    pixels = _decode(encoded, where)
    plane = pixels if pixels.ndim == 2 else grey_plane(pixels)
    if plane is None:
        raise InputError(
            f"The picture '{where}' has colours or an alpha channel, but a mask or depth must have a single "
            "channel; store it as grey."
        )
    return plane


def decode_any(encoded: bytes, where: str) -> tuple[NDArray[Any], bytes]:
    """Pixels of an image file of any number of bits, as they are stored, and its EXIF data.

    Returns:
        (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, whichever is stored; of a TIFF file, turned upright. EXIF data as they
        are, empty if there are none.

    Raises:
        InputError: if the bytes are no whole image.
    """
    decoded = None
    with contextlib.suppress(cv2.error):
        decoded = cv2.imdecodeWithMetadata(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded[0] is None:
        raise InputError(f"The picture '{where}' is no image, or cut off; replace it by a whole PNG or JPEG file.")
    pixels, kinds, blocks = decoded
    if pixels.ndim == 3 and pixels.shape[2] in _TO_RGB:
        pixels = cv2.cvtColor(pixels, _TO_RGB[pixels.shape[2]])
    exif = [np.asarray(block).tobytes() for kind, block in zip(kinds, blocks, strict=True) if kind == _EXIF]
    return np.asarray(pixels), exif[0] if exif else b""


def grey_plane(pixels: Pixels) -> Pixels | None:
    """(H, W) of (H, W, 3) whose channels are equal up to JPEG's rounding; None of another."""
    if pixels.shape[2] != 3 or _colour(pixels) > GREY_TOLERANCE:
        return None
    return _pixels(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def encode_png(pixels: Pixels) -> bytes:
    """Bytes of a PNG file, without loss, from (H, W, 3) RGB or (H, W)."""
    return _encode(".png", pixels, [])


def encode_jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    """Bytes of a JPEG file from (H, W, 3) RGB or (H, W), chroma at full size (4:4:4); quality in 1..100."""
    full_chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *full_chroma])


def encode_sample(sample: Sample, *, lossless: bool = False) -> EncodedSample:
    """Encode photographs as JPEG of quality 95, or as PNG if `lossless`; mask and depth as PNG."""
    encode_photo = encode_png if lossless else encode_jpeg
    return EncodedSample(
        sample_id=sample.sample_id,
        bg_id=sample.bg_id,
        fg_id=sample.fg_id,
        bg=encode_photo(sample.bg),
        fg_bg=encode_photo(sample.fg_bg),
        mask=encode_png(sample.mask),
        depth=encode_png(sample.depth),
    )


def decode_sample(encoded: EncodedSample, *, bg: Pixels | None = None, where: str = "the data set") -> Sample:
    """Decode the four pictures of a sample.

    Args:
        encoded: what was stored.
        bg: (H, W, 3) RGB, the background where it is already decoded; `encoded.bg` is not read then.
        where: the part that it was stored in, for the error's sentence.

    Raises:
        InputError: if a picture cannot be decoded, or the four differ in height and width.
    """
    place = f"{{}} of sample {encoded.sample_id} in {where}"
    try:
        return Sample(
            sample_id=encoded.sample_id,
            bg_id=encoded.bg_id,
            fg_id=encoded.fg_id,
            bg=decode_photo(encoded.bg, place.format("bg")) if bg is None else bg,
            fg_bg=decode_photo(encoded.fg_bg, place.format("fg_bg")),
            mask=decode_plane(encoded.mask, place.format("mask")),
            depth=decode_plane(encoded.depth, place.format("depth")),
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{error} Correct the sample in {where}.") from None


def resize(pixels: Pixels, size: int, how: Resize = "area") -> Pixels:
    """Resize (H, W) or (H, W, 3) to a square of `size` pixels a side.

    Args:
        pixels: (H, W) or (H, W, 3).
        size: side in pixels.
        how: 'area' makes a pixel the mean of the area it covers where both sides shrink, and is bilinear elsewhere.
            'bilinear' and 'lanczos' interpolate the 2 or 8 nearest pixels of a row, and as many rows, at any size.
    """
    return resize_to(pixels, size, size, how=how)


def resize_to(pixels: Resized, height: int, width: int, *, how: Resize = "area") -> Resized:
    """Resize (H, W) or (H, W, 3) to `height` by `width`, as `resize` does."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    methods = {
        "area": cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        "bilinear": cv2.INTER_LINEAR,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=methods[how]), pixels.dtype)


def _decode(encoded: bytes, where: str) -> Pixels:
    """(H, W), (H, W, 3) RGB or (H, W, 4) RGBA."""
    pixels, _ = decode_any(encoded, where)
    if pixels.dtype != np.uint8:
        raise InputError(
            f"The picture '{where}' is stored as {pixels.dtype}, but must have 8 bits a channel; convert it to uint8."
        )
    return _pixels(pixels)


def _encode(extension: str, pixels: Pixels, options: list[int]) -> bytes:
    _, encoded = cv2.imencode(extension, _flip_channels(pixels) if pixels.ndim == 3 else pixels, options)
    return encoded.tobytes()


def _flip_channels(pixels: Pixels) -> Pixels:
    """RGB to BGR."""
    return _pixels(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))


def _colour(pixels: Pixels) -> int:
    """Largest difference between two channels of a pixel, in grey levels."""
    red, green, blue = cv2.split(pixels)
    return max(int(cv2.absdiff(green, other).max()) for other in (blue, red))


def _pixels(array: cv2.typing.MatLike) -> Pixels:
    """OpenCV's result as what it is known to be: uint8."""
    return np.asarray(array, np.uint8)
