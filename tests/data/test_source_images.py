"""Source images: read upright as Pillow does, opaque, with 8 bits, or refused with one sentence."""

from __future__ import annotations

import io
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from data.errors import InputError
from data.images import decode_photo, decode_plane, encode_jpeg, encode_png
from data.schema import Pixels
from data.source_images import mask_factor, source_cutout, source_depth, source_mask, source_photo

ORIENTATIONS = range(1, 9)


def photo(height: int = 24, width: int = 32) -> Pixels:
    """(height, width, 3) of soft colours, the same at no two corners."""
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def plane() -> Pixels:
    return np.ascontiguousarray(photo()[:, :, 0])


def sixteen() -> NDArray[np.uint16]:
    return plane().astype(np.uint16) * 31 + 7


def saved(pixels: NDArray[Any] | Image.Image, form: str, orientation: int | None = None, **options: Any) -> bytes:
    """The file that Pillow writes, with an orientation beside the pixels."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if orientation is not None:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = orientation
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def upright(encoded: bytes, mode: str | None = None) -> NDArray[Any]:
    """What Pillow shows."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded)))
    return np.asarray(image.convert(mode) if mode else image)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photograph_is_read_and_stored_upright(form: str, orientation: int) -> None:
    """Phones write how they were held; what is stored loses no level and needs no tag to be shown."""
    encoded = saved(photo(), form, orientation)

    pixels, stored = source_photo(encoded, "photo")

    np.testing.assert_array_equal(pixels, upright(encoded))
    np.testing.assert_array_equal(decode_photo(stored, "photo"), pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), pixels)
    assert (stored == encoded) == (orientation == 1 and form != "TIFF")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_mask_is_read_and_stored_upright(form: str, orientation: int) -> None:
    """Labelling programs copy a photograph's tags to its mask."""
    encoded = saved(plane(), form, orientation)

    pixels, stored, _ = source_mask(encoded, "mask")

    np.testing.assert_array_equal(pixels, upright(encoded))
    np.testing.assert_array_equal(decode_plane(stored, "mask"), pixels)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_depth_of_16_bits_is_read_upright_and_exactly(form: str, orientation: int) -> None:
    """Depth from a phone carries the tag of the photograph."""
    encoded = saved(sixteen(), form, orientation)

    pixels, _ = source_depth(encoded, "depth")

    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, upright(encoded))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_depth_of_8_bits_and_a_foreground_are_read_upright(orientation: int) -> None:
    """Every kind of file goes the same way."""
    depth, cutout = saved(plane(), "PNG", orientation), saved(np.dstack([photo(), plane()]), "PNG", orientation)

    pixels, stored = source_depth(depth, "depth")

    np.testing.assert_array_equal(pixels, upright(depth))
    np.testing.assert_array_equal(decode_plane(stored, "depth"), pixels)
    np.testing.assert_array_equal(source_cutout(cutout, "cutout"), upright(cutout))


def test_an_orientation_in_a_text_chunk_is_applied() -> None:
    """ImageMagick keeps EXIF of a JPEG so where it writes PNG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = b"Exif\x00\x00" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    text = PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(raw):8}\n{raw.hex()}\n", zip=True)
    encoded = saved(photo(), "PNG", pnginfo=text)

    np.testing.assert_array_equal(source_photo(encoded, "photo")[0], upright(encoded))


@pytest.mark.parametrize(
    "exif", [b"", b"II*\x00", b"MM\x00*\xff\xff\xff\xff", b"II*\x00\x08\x00\x00\x00\xff\xff", b"x"]
)
@pytest.mark.parametrize("orientation", [None, 0, 9])
def test_exif_without_orientation_keeps_the_bytes(exif: bytes, orientation: int | None) -> None:
    """Cameras write 0 where they do not know; editors cut the block."""
    encoded = saved(photo(), "JPEG", orientation) if orientation is not None else saved(photo(), "JPEG", exif=exif)

    pixels, stored = source_photo(encoded, "photo")

    assert pixels.shape == (24, 32, 3)
    assert stored == encoded


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_opaque_photograph_of_any_mode_agrees_with_pillow(mode: str, orientation: int) -> None:
    """Editors save with an alpha channel that hides nothing, scanners with a palette or a bit."""
    encoded = saved(Image.fromarray(photo()).convert(mode), "PNG", orientation)

    pixels, stored = source_photo(encoded, "photo")

    np.testing.assert_array_equal(pixels, upright(encoded, "RGB"))
    np.testing.assert_array_equal(decode_photo(stored, "photo"), pixels)


def test_cmyk_photograph_agrees_with_pillow() -> None:
    """CMYK JPEG files come out of print programs; a level of rounding apart."""
    encoded = saved(Image.fromarray(photo()).convert("CMYK"), "JPEG")

    assert np.abs(source_photo(encoded, "photo")[0].astype(int) - upright(encoded, "RGB")).max() <= 1


def test_cmyk_tiff_is_refused() -> None:
    """Four channels that are no alpha."""
    with pytest.raises(InputError, match=r"'photo\.tif' has CMYK colours; store it as RGB"):
        source_photo(saved(Image.fromarray(photo()).convert("CMYK"), "TIFF"), "photo.tif")


def test_rotated_avif_is_refused() -> None:
    """Its orientation is part of the pixels' format, which OpenCV does not apply."""
    assert source_photo(saved(photo(), "AVIF"), "photo")[0].shape == (24, 32, 3)
    with pytest.raises(InputError, match="rotated or mirrored AVIF file; store it as PNG or JPEG"):
        source_photo(saved(photo(), "AVIF", 6), "photo")


def clear_corner(orientation: int = 1) -> list[bytes]:
    """Photographs of which 3 x 2 pixels are transparent, by alpha, by palette, by colour, and by grey level."""
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[4:6, 7:10] = 90
    levels = np.full((24, 32), 5, np.uint8)
    levels[4:6, 7:10] = 6
    palette = Image.fromarray(levels)
    palette.putpalette([value for index in range(256) for value in (index, 0, 9)])
    colours = np.repeat(levels[:, :, None], 3, axis=2)
    return [
        saved(np.dstack([photo(), alpha]), "PNG", orientation),
        saved(Image.fromarray(np.dstack([plane(), alpha]), "LA"), "PNG", orientation),
        saved(palette, "PNG", orientation, transparency=6),
        saved(colours, "PNG", orientation, transparency=(6, 6, 6)),
        saved(levels, "PNG", orientation, transparency=6),
    ]


@pytest.mark.parametrize("encoded", clear_corner())
def test_transparency_of_any_kind_is_located_and_refused(encoded: bytes) -> None:
    """What stands in a transparent pixel is arbitrary; the sentence says which to look at."""
    with pytest.raises(InputError, match=r"transparent in 6 of 768 pixels \(columns 7 to 9, rows 4 to 5; alpha down"):
        source_photo(encoded, "photo")


def test_transparency_is_located_in_the_upright_photograph() -> None:
    """That is what the user sees."""
    with pytest.raises(InputError, match=r"\(columns 18 to 19, rows 7 to 9;"):
        source_photo(clear_corner(6)[0], "photo")


def test_photographs_and_masks_of_an_unknown_16_bit_range_are_refused() -> None:
    """Whether 4095 or 65535 is white is not written in them."""
    with pytest.raises(InputError, match=r"'a\.png' is stored as uint16, but must have 8 bits"):
        source_photo(saved(sixteen(), "PNG"), "a.png")
    with pytest.raises(InputError, match=r"'a\.png' has 16 bits with values up to \d+, which are neither labels"):
        source_mask(saved(sixteen(), "PNG"), "a.png")


@pytest.mark.parametrize("read", [source_mask, source_depth])
def test_a_plane_stored_as_equal_channels_is_accepted_exactly(read: Any) -> None:
    """Published depths are often RGB files with R=G=B, or with an alpha channel that hides nothing."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for channels in ([levels] * 3, [*[levels] * 3, np.full_like(levels, 255)]):
        pixels, stored, *_ = read(saved(np.dstack(channels), "PNG"), "depth")

        np.testing.assert_array_equal(pixels, levels)
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_UNCHANGED), levels)


@pytest.mark.parametrize("read", [source_mask, source_depth])
def test_a_single_channel_plane_keeps_its_bytes(read: Any) -> None:
    """Encoding a JPEG a second time would lose what the publisher stored."""
    encoded = encode_jpeg(plane())

    assert read(encoded, "plane")[1] == encoded


@pytest.mark.parametrize("read", [source_mask, source_depth])
def test_planes_with_colours_or_transparency_are_refused(read: Any) -> None:
    """A photograph, or a cut-out, in a target's place."""
    clear = np.dstack([plane(), plane(), plane(), np.full_like(plane(), 9)])

    with pytest.raises(InputError, match=r"'a\.png' has colours"):
        read(encode_png(photo()), "a.png")
    with pytest.raises(InputError, match=r"'a\.png' is transparent in 768 of 768 pixels"):
        read(saved(clear, "PNG"), "a.png")


def palette_mask(indices: Pixels, colours: list[int], orientation: int = 1, **options: Any) -> bytes:
    image = Image.fromarray(indices)
    image.putpalette(colours)
    return saved(image, "PNG", orientation, **options)


@pytest.mark.parametrize("foreground", [1, 15])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("clear", [None, 0])
def test_a_mask_with_a_palette_of_colours_counts_by_index(
    foreground: int, bits: int, orientation: int, clear: int | None
) -> None:
    """Labelling programs write index 0 black and the others coloured, at times with 0 transparent."""
    shown = np.zeros((24, 32), np.uint8)
    shown[3:9, 4:20] = 1
    colours = [value for index in range(16) for value in ((128 * (index % 2), 9 * index, 0) if index else (0, 0, 0))]
    options = {} if clear is None else {"transparency": clear}

    pixels, stored, _ = source_mask(
        palette_mask(shown * foreground, colours, orientation, bits=bits, **options), "mask"
    )

    np.testing.assert_array_equal(pixels, 255 * (shown if orientation == 1 else np.rot90(shown, -1)))
    np.testing.assert_array_equal(decode_plane(stored, "mask"), pixels)


def test_mask_with_a_grey_palette_counts_by_level() -> None:
    """Programs that save space give grey images a palette in any order."""
    shown = np.zeros((24, 32), np.uint8)
    shown[3:9, 4:20] = 1

    pixels, _, _ = source_mask(palette_mask(shown, [255, 255, 255, 0, 0, 0]), "mask")

    np.testing.assert_array_equal(pixels, 255 - 255 * shown)


def test_labels_of_a_palette_are_joined() -> None:
    """Several instances, each with a colour of its own."""
    shown = np.zeros((24, 32), np.uint8)
    shown[3:9, 4:20], shown[12:] = 1, 2

    mask = source_mask(palette_mask(shown, [0, 0, 0, 255, 0, 0, 0, 255, 0]), "mask")

    np.testing.assert_array_equal(mask.plane, 255 * (shown > 0))
    np.testing.assert_array_equal(decode_plane(mask.encoded, "mask"), mask.plane)
    assert mask.form == "labels"
    assert source_mask(palette_mask(np.minimum(shown, 1), [0, 0, 0, 255, 0, 0]), "mask").form == "levels"


@pytest.mark.parametrize("grey", [64, 128])
def test_a_label_whose_colour_is_grey_is_foreground(grey: int) -> None:
    """PASCAL VOC colours label 7 (128, 128, 128), and an image may have no other: half a foreground, with 64 none."""
    shown = np.zeros((24, 32), np.uint8)
    shown[4:20, 6:18] = 2

    mask = source_mask(palette_mask(shown, [0, 0, 0, 128, 0, 0, grey, grey, grey]), "mask")

    np.testing.assert_array_equal(mask.plane, np.where(shown > 0, 255, 0))
    assert mask.form == "levels"


def test_a_grey_mask_among_the_colours_of_the_web_counts_by_level() -> None:
    """Pillow's palette for the web has colours, and soft edges use some of its greys."""
    levels = np.repeat(np.arange(0, 256, 51, np.uint8)[None], 24, axis=0)
    encoded = saved(Image.fromarray(levels).convert("RGB").convert("P"), "PNG")

    np.testing.assert_array_equal(source_mask(encoded, "mask").plane, levels)


def test_a_photograph_with_a_palette_is_refused() -> None:
    """Its colours are no labels."""
    indices = np.arange(768, dtype=np.uint16).reshape(24, 32) % 256
    colours = [value for index in range(256) for value in (index, 255 - index, 7)]

    with pytest.raises(
        InputError, match="'mask' uses 256 palette colours, as a photograph does, but labels use at most 64"
    ):
        source_mask(palette_mask(indices.astype(np.uint8), colours), "mask")


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_labels_of_16_bits_are_joined(form: str) -> None:
    """More instances than 8 bits can count."""
    labels = np.zeros((24, 32), np.uint16)
    labels[3:9, 4:20], labels[12:, :5] = 1, 700

    mask = source_mask(saved(labels, form), "mask")

    np.testing.assert_array_equal(mask.plane, 255 * (labels > 0))
    assert mask.form == "labels"
    assert source_mask(saved(np.minimum(labels, 1), form), "mask").form == "levels"


def test_a_mask_of_16_bits_with_its_full_range_keeps_soft_edges() -> None:
    """65535 is white."""
    levels = np.array([[0, 257 * 100, 65535]], np.uint16)

    mask = source_mask(saved(levels, "PNG"), "mask")

    assert (mask.plane.tolist(), mask.form) == ([[0, 100, 255]], "levels")


@pytest.mark.parametrize("colours", [photo(), np.zeros((24, 32, 3), np.uint8), np.full((24, 32, 3), 255, np.uint8)])
def test_the_alpha_of_a_cutout_is_the_mask(colours: Pixels) -> None:
    """Whatever the colours are; soft edges stay."""
    alpha = np.zeros((24, 32), np.uint8)
    alpha[3:9, 4:20], alpha[3, 4:20] = 255, 90

    mask = source_mask(saved(np.dstack([colours, alpha]), "PNG"), "mask")

    np.testing.assert_array_equal(mask.plane, alpha)
    np.testing.assert_array_equal(decode_plane(mask.encoded, "mask"), alpha)
    assert mask.form == "alpha"


def test_a_mask_with_transparent_margins_is_refused() -> None:
    """Its grey levels and its alpha are different masks."""
    grey, alpha = np.zeros((24, 32), np.uint8), np.zeros((24, 32), np.uint8)
    grey[3:9, 4:20], alpha[2:, 2:] = 255, 255

    with pytest.raises(InputError, match=r"'a\.png' is transparent in 108 of 768 pixels"):
        source_mask(saved(np.dstack([grey, grey, grey, alpha]), "PNG"), "a.png")


def test_a_mask_of_one_bit_is_0_and_255() -> None:
    """As PNG and as TIFF."""
    for form in ("PNG", "TIFF"):
        encoded = saved(Image.fromarray(plane()).convert("1"), form)

        np.testing.assert_array_equal(source_mask(encoded, "mask")[0], upright(encoded, "L"))


def flat(level: int) -> Pixels:
    return np.full((2, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("largest", "factor"), [([0, 1, 1], 255), ([1, 0, 255], 1), ([1, 1, 128], 1), ([0, 0], 1), ([], 1)]
)
def test_masks_of_0_and_1_are_recognised_over_the_whole_set(largest: list[int], factor: int) -> None:
    """A single mask can be almost empty; the largest level of the whole set is what counts."""
    assert mask_factor((flat(level) for level in largest), "set") == factor


def test_masks_are_read_until_the_first_foreground() -> None:
    """A set has hundreds of thousands, and the first one usually suffices."""
    left = iter([flat(0), flat(255), flat(1)])

    mask_factor(left, "set")

    assert len(list(left)) == 1


def test_masks_without_any_foreground_are_refused() -> None:
    """Grey levels of a label map, or of a bit depth that was lost."""
    with pytest.raises(InputError, match=r"largest level of all masks in 'set' is 85, but a foreground is above 127"):
        mask_factor([flat(85), flat(3)], "set")


def test_a_scaled_mask_is_stored_scaled() -> None:
    """Whoever reads the data set finds 0 and 255."""
    mask = (plane() > 127).astype(np.uint8)

    pixels, stored, _ = source_mask(encode_png(mask), "mask", factor=255)

    np.testing.assert_array_equal(pixels, mask * 255)
    np.testing.assert_array_equal(decode_plane(stored, "mask"), mask * 255)


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (saved(sixteen().astype(np.int32), "TIFF"), "is int32 with 1 channel, but"),
        (saved(sixteen().astype(np.float32), "TIFF"), "is float32 with 1 channel, but"),
        (cv2.imencode(".png", photo().astype(np.uint16))[1].tobytes(), "is uint16 with 3 channels, but"),
    ],
)
def test_depth_of_unsupported_type_is_refused(encoded: bytes, said: str) -> None:
    """Metres as floating-point numbers, or 16 bits of colours."""
    with pytest.raises(InputError, match=f"'d.tif' {said} must have a single channel of 8 or 16 bits"):
        source_depth(encoded, "d.tif")


def test_palette_with_a_wrong_checksum_is_refused() -> None:
    """It is rewritten to read the indices, which must not heal a damaged file."""
    encoded = palette_mask(np.ones((24, 32), np.uint8), [0, 0, 0, 255, 0, 0])
    start = encoded.index(b"PLTE")
    damaged = bytearray(encoded)
    damaged[start + 5] ^= 255
    assert zlib.crc32(damaged[start : start + 10]) != zlib.crc32(encoded[start : start + 10])

    with pytest.raises(InputError, match="'mask' is not an image"):
        source_mask(bytes(damaged), "mask")
