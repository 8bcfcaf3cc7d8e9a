"""Decode, encode and resize images with OpenCV; only this module handles its BGR channel order.

Shapes: H and W are height and width in pixels. A photo is (H, W, 3) RGB, a plane (mask or depth) is (H, W).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from data.errors import InputError
from data.fitting.sizes import sides_of
from data.schema import VALID, EncodedSample, Pixels, Sample

Resize = Literal["area", "bilinear", "lanczos"]
Resized = TypeVar("Resized", Pixels, NDArray[np.float32])

GREY_TOLERANCE = 2
"""Largest difference between the channels of a grey image stored as colour: JPEG rounds chroma."""

HALF = 0.5 - 1e-5
"""Share of a resized pixel from which on it is valid: a half, up to rounding."""

_EXIF = cv2.IMAGE_METADATA_EXIF
_TO_RGB = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGBA}
"""OpenCV conversion code by number of channels."""


def decode_photo(encoded: bytes, where: str) -> Pixels:
    """Decode a photo of a data set; grey is converted to R=G=B.

    An EXIF orientation is ignored: `data.source_images` applies it before the photo is stored.

    Args:
        encoded: bytes of a PNG, JPEG or other 8-bit image file.
        where: the file, or the part and sample, for error messages.

    Returns:
        (H, W, 3) RGB.

    Raises:
        InputError: if the image is damaged, does not have 8 bits per channel, or has an alpha channel.
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
    """Decode a mask or depth. Three channels are accepted if they are equal up to JPEG rounding.

    Args:
        encoded: bytes of a PNG, JPEG or other 8-bit image file.
        where: the file, or the part and sample, for error messages.

    Returns:
        (H, W).

    Raises:
        InputError: if the image is damaged, does not have 8 bits, has colours, or an alpha channel.
    """
    pixels = _decode(encoded, where)
    plane = pixels if pixels.ndim == 2 else grey_plane(pixels)
    if plane is None:
        raise InputError(
            f"The image '{where}' has colours or an alpha channel, but a mask or depth must have a single "
            "channel; store it as grey."
        )
    return plane


def decode_rgba(encoded: bytes, where: str) -> Pixels:
    """Decode an image with an alpha channel.

    Returns:
        (H, W, 4) RGBA.

    Raises:
        InputError: if the image is damaged, does not have 8 bits per channel, or no alpha channel.
    """
    pixels = _decode(encoded, where)
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        raise InputError(f"The image '{where}' has no alpha channel; store it as RGBA.")
    return pixels


def decode_valid(encoded: bytes, where: str) -> Pixels:
    """Decode a validity mask, which has only the levels 0 and 255.

    Args:
        encoded: bytes of a lossless 8-bit image file.
        where: the part and sample, for error messages.

    Returns:
        (H, W): 255 where the depth was measured, 0 where it was not.

    Raises:
        InputError: as `decode_plane`, or if there are other levels.
    """
    pixels = decode_plane(encoded, where)
    other = pixels[(pixels != 0) & (pixels != VALID)]
    if other.size:
        raise InputError(
            f"The validity mask '{where}' has the level {other[0]}, but must have only 0 and {VALID}; store it as PNG, "
            "black where the depth was not measured and white elsewhere."
        )
    return pixels


DECODERS: Mapping[str, Callable[[bytes, str], Pixels]] = {
    "bg": decode_photo,
    "fg_bg": decode_photo,
    "mask": decode_plane,
    "depth": decode_plane,
    "valid": decode_valid,
    "cutout": decode_rgba,
}
"""What decodes each image of a sample, and of a recipe, by its name."""


def decode_any(encoded: bytes, where: str) -> tuple[NDArray[Any], bytes]:
    """Decode an image file of any bit depth.

    Returns:
        Pixels (H, W), (H, W, 3) RGB or (H, W, 4) RGBA as stored (OpenCV applies the orientation of TIFF files), and the
        raw EXIF block, empty if there is none.

    Raises:
        InputError: if the image is damaged.
    """
    decoded = None
    with contextlib.suppress(cv2.error):
        decoded = cv2.imdecodeWithMetadata(np.frombuffer(encoded, np.uint8), flags=cv2.IMREAD_UNCHANGED)
    if decoded is None or decoded[0] is None:
        raise InputError(f"'{where}' is not an image, or is cut off; replace it by a whole PNG or JPEG file.")
    pixels, kinds, blocks = decoded
    if pixels.ndim == 3 and pixels.shape[2] in _TO_RGB:
        pixels = cv2.cvtColor(pixels, _TO_RGB[pixels.shape[2]])
    exif = [np.asarray(block).tobytes() for kind, block in zip(kinds, blocks, strict=True) if kind == _EXIF]
    return np.asarray(pixels), exif[0] if exif else b""


def grey_plane(pixels: Pixels) -> Pixels | None:
    """Convert (H, W, 3) to (H, W) if its channels are equal up to JPEG rounding, else return None."""
    if pixels.shape[2] != 3 or _colour(pixels) > GREY_TOLERANCE:
        return None
    return _pixels(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def check_8_bit(pixels: NDArray[Any], where: str) -> None:
    """Refuse pixels that are not uint8.

    Raises:
        InputError: if they are not.
    """
    if pixels.dtype != np.uint8:
        raise InputError(
            f"The image '{where}' is stored as {pixels.dtype}, but must have 8 bits a channel; convert it to uint8."
        )


def encode_png(pixels: Pixels) -> bytes:
    """Encode (H, W, 3) RGB, (H, W, 4) RGBA or (H, W) as PNG, lossless; also the colours of transparent pixels."""
    return _encode(".png", pixels, [])


def encode_mask(pixels: Pixels) -> bytes:
    """Encode a mask (H, W) as PNG, lossless.

    Without a filter, and at the lowest level: of composed samples at 224 px, files are a sixth smaller than OpenCV's
    default, and take two thirds of the time to encode and a sixth to decode.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    return _encode(".png", pixels, options)


def encode_depth(pixels: Pixels) -> bytes:
    """Encode depth (H, W) as PNG, lossless.

    Depth differs least from the row above: with that filter, files of composed samples are a fifth smaller than with
    OpenCV's default (a tenth for the depth of photographs), and take three quarters of the time to decode.
    """
    strategy = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return _encode(".png", pixels, [*strategy, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP])


def encode_jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    """Encode (H, W, 3) RGB or (H, W) as JPEG with full chroma (4:4:4); quality in 1..100."""
    full_chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality, *full_chroma])


def encode_sample(sample: Sample, *, lossless: bool = False) -> EncodedSample:
    """Encode photos as JPEG of quality 95, or as PNG if `lossless`; mask, depth and validity mask as PNG."""
    encode_photo = encode_png if lossless else encode_jpeg
    return EncodedSample(
        sample_id=sample.sample_id,
        bg_id=sample.bg_id,
        fg_id=sample.fg_id,
        bg=encode_photo(sample.bg),
        fg_bg=encode_photo(sample.fg_bg),
        mask=encode_mask(sample.mask),
        depth=encode_depth(sample.depth),
        valid=None if sample.valid is None else encode_mask(sample.valid),
    )


def decode_sample(encoded: EncodedSample, *, bg: Pixels | None = None, where: str = "the data set") -> Sample:
    """Decode the images of a sample.

    Args:
        encoded: the stored sample.
        bg: (H, W, 3) RGB, the background if it is already decoded; `encoded.bg` is then ignored.
        where: the part that contains the sample, for error messages.

    Raises:
        InputError: if an image cannot be decoded, or they differ in height or width.
    """
    file = f"{{}} of sample {encoded.sample_id} in {where}"
    try:
        return Sample(
            sample_id=encoded.sample_id,
            bg_id=encoded.bg_id,
            fg_id=encoded.fg_id,
            bg=decode_photo(encoded.bg, file.format("bg")) if bg is None else bg,
            fg_bg=decode_photo(encoded.fg_bg, file.format("fg_bg")),
            mask=decode_plane(encoded.mask, file.format("mask")),
            depth=decode_plane(encoded.depth, file.format("depth")),
            valid=None if encoded.valid is None else decode_valid(encoded.valid, file.format("valid")),
        )
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{error} Correct the sample in {where}.") from None


def resize(pixels: Pixels, size: int | Sequence[int], how: Resize = "area") -> Pixels:
    """Resize (H, W) or (H, W, 3).

    Args:
        pixels: (H, W) or (H, W, 3).
        size: side of a square in pixels, or height and width.
        how: 'area' averages the covered area if both sides shrink, and is bilinear otherwise. 'bilinear' and 'lanczos'
            interpolate 2x2 or 8x8 pixels at any scale.
    """
    return resize_to(pixels, *sides_of(size), how=how)


def resize_to(pixels: Resized, height: int, width: int, *, how: Resize = "area") -> Resized:
    """Resize (H, W) or (H, W, 3) to `height` by `width`, with the methods of `resize`."""
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    methods = {
        "area": cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
        "bilinear": cv2.INTER_LINEAR,
        "lanczos": cv2.INTER_LANCZOS4,
    }
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=methods[how]), pixels.dtype)


def resize_depth(
    depth: Pixels, valid: Pixels | None, height: int, width: int, *, how: Resize = "area"
) -> tuple[Pixels, Pixels | None]:
    """Resize a depth and its validity mask (H, W) to `height` by `width`, with the methods of `resize`.

    With R the resizing and v the mask as 0 or 1, the share of a new pixel that was measured is R(v). The new pixel is
    valid if that is at least half, and its depth is then R(v depth) / R(v): the level that is stored where nothing was
    measured has no influence on valid pixels. Other pixels get R(depth).

    Returns:
        The depth, and the mask; None if `valid` is None.
    """
    if valid is None or depth.shape == (height, width):
        return resize_to(depth, height, width, how=how), valid
    resized = resize_to(depth, height, width, how=how)
    is_measured = valid > 0
    if is_measured.all():
        return resized, np.full((height, width), VALID, np.uint8)
    share = resize_to(is_measured.astype(np.float32), height, width, how=how)
    measured = resize_to(np.where(is_measured, depth, 0).astype(np.float32), height, width, how=how)
    is_valid = share >= HALF
    levels = np.divide(measured, share, out=resized.astype(np.float32), where=is_valid)
    return np.rint(levels.clip(0, 255)).astype(np.uint8), np.where(is_valid, VALID, 0).astype(np.uint8)


def _decode(encoded: bytes, where: str) -> Pixels:
    """(H, W), (H, W, 3) RGB or (H, W, 4) RGBA."""
    pixels, _ = decode_any(encoded, where)
    check_8_bit(pixels, where)
    return _pixels(pixels)


def _encode(extension: str, pixels: Pixels, options: list[int]) -> bytes:
    _, encoded = cv2.imencode(extension, _flip_channels(pixels) if pixels.ndim == 3 else pixels, options)
    return encoded.tobytes()


def _flip_channels(pixels: Pixels) -> Pixels:
    """RGB to BGR, or RGBA to BGRA."""
    return _pixels(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA))


def _colour(pixels: Pixels) -> int:
    """Largest difference between green and another channel of a pixel, in grey levels."""
    red, green, blue = cv2.split(pixels)
    return max(int(cv2.absdiff(green, other).max()) for other in (blue, red))


def _pixels(array: cv2.typing.MatLike) -> Pixels:
    """OpenCV's result, typed as uint8."""
    return np.asarray(array, np.uint8)
