"""Codecs: bytes decode to exactly the intended image, or are refused with one sentence."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.errors import InputError
from data.images import (
    Resize,
    decode_any,
    decode_photo,
    decode_plane,
    decode_sample,
    encode_jpeg,
    encode_png,
    encode_sample,
    resize,
    resize_to,
)
from data.schema import EncodedSample, Pixels, Sample


def smooth(height: int, width: int, seed: int = 0) -> Pixels:
    """(height, width, 3) with gentle colours, as a photograph has."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)


def sample_of(bg: Pixels) -> Sample:
    plane = np.ascontiguousarray(bg[:, :, 0])
    return Sample(sample_id="s", bg_id="b", fg_id="f", bg=bg, fg_bg=bg[::-1].copy(), mask=plane, depth=255 - plane)


@settings(max_examples=30)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda size: arrays(np.uint8, (*size, 3))),
)
def test_png_photo_round_trip(pixels: Pixels) -> None:
    """PNG must give back each pixel in its channel: a swapped channel order would go unseen in training."""
    np.testing.assert_array_equal(decode_photo(encode_png(pixels), "photo"), pixels)


@settings(max_examples=30)
@given(st.tuples(st.integers(1, 20), st.integers(1, 20)).flatmap(lambda size: arrays(np.uint8, size)))
def test_png_plane_round_trip(pixels: Pixels) -> None:
    """Masks and depths are targets, so they must come back unchanged."""
    np.testing.assert_array_equal(decode_plane(encode_png(pixels), "plane"), pixels)


def test_png_stores_rgb_as_other_readers_expect() -> None:
    """A red pixel must be red in any other program, so the file is compared with OpenCV's own reading."""
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, :, 0] = 255

    stored = np.asarray(cv2.imdecode(np.frombuffer(encode_png(red), np.uint8), cv2.IMREAD_COLOR))

    assert stored[0, 0].tolist() == [0, 0, 255]  # OpenCV's order: blue, green, red


def test_jpeg_keeps_chroma_at_full_resolution() -> None:
    """The frame header says 1x1 sampling for all components: halved chroma would blur the edges of foregrounds."""
    encoded = encode_jpeg(smooth(32, 32))

    start = encoded.index(b"\xff\xc0")
    sampling = [encoded[start + 11 + 3 * component] for component in range(3)]

    assert sampling == [0x11, 0x11, 0x11]


def test_jpeg_is_close_to_the_photo() -> None:
    """At the default quality a photograph changes by few levels, in the right channels."""
    pixels = smooth(64, 48)

    decoded = decode_photo(encode_jpeg(pixels), "photo")

    assert np.abs(decoded.astype(int) - pixels).mean() < 2


def test_grey_photo_has_three_equal_channels() -> None:
    """One published layout is greyscale; models take three channels."""
    plane = smooth(8, 9)[:, :, 0]

    photo = decode_photo(encode_png(plane), "photo")

    np.testing.assert_array_equal(photo, np.stack([plane] * 3, axis=2))


@pytest.mark.parametrize(("difference", "is_accepted"), [(2, True), (3, False)])
def test_plane_allows_chroma_rounding_only(difference: int, *, is_accepted: bool) -> None:
    """JPEG leaves up to two levels of colour in a grey image; more is a wrong file, say a photograph."""
    pixels = np.full((8, 8, 3), 100, np.uint8)
    pixels[3, 3, 2] += difference

    if is_accepted:
        assert decode_plane(encode_png(pixels), "mask").shape == (8, 8)
    else:
        with pytest.raises(InputError, match="'mask' has colours"):
            decode_plane(encode_png(pixels), "mask")


def test_alpha_channel_is_refused() -> None:
    """A cut-out foreground must not pass as a photograph or a mask: its hidden colours are arbitrary."""
    _, encoded = cv2.imencode(".png", np.zeros((4, 4, 4), np.uint8))

    with pytest.raises(InputError, match=r"'fg.png' has 4 channels"):
        decode_photo(encoded.tobytes(), "fg.png")
    with pytest.raises(InputError, match=r"'fg.png' has colours or an alpha channel"):
        decode_plane(encoded.tobytes(), "fg.png")


def test_sixteen_bits_are_refused() -> None:
    """Depth in millimetres is 16 bits: cutting it to 8 would wrap around."""
    _, encoded = cv2.imencode(".png", np.full((4, 4), 3000, np.uint16))

    with pytest.raises(InputError, match=r"'depth.png' is stored as uint16"):
        decode_plane(encoded.tobytes(), "depth.png")


@pytest.mark.parametrize("encoded", [b"", b"not an image", b"\xff\xd8\xff"])
def test_bytes_that_are_not_an_image_are_refused(encoded: bytes) -> None:
    """The sentence names the file, since a data set has thousands."""
    with pytest.raises(InputError, match=r"'some.jpg'"):
        decode_photo(encoded, "some.jpg")


@pytest.mark.parametrize("encode", [encode_png, encode_jpeg])
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_cut_off_file_is_refused(encode: type[bytes], kept: float) -> None:
    """A broken download decodes to an image that is grey at the bottom, if nobody looks."""
    encoded = encode(smooth(64, 64))

    with pytest.raises(InputError, match=r"'cut\.img'"):
        decode_photo(encoded[: int(len(encoded) * kept)], "cut.img")


def test_exif_rotation_is_not_applied_to_stored_images() -> None:
    """Sources are turned before they are stored; older data sets have masks that fit photographs as they are stored."""
    pixels = smooth(8, 16)
    jpeg = encode_jpeg(pixels)
    tiff = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\x00\x00" + tiff
    rotated = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    by_default = np.asarray(cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR))

    assert by_default.shape == (16, 8, 3)  # the flag is there
    assert decode_photo(rotated, "photo").shape == (8, 16, 3)


def test_sample_round_trip_is_lossless_if_asked() -> None:
    """Whoever checks numerics needs the same pixels back."""
    sample = sample_of(smooth(12, 10))

    decoded = decode_sample(encode_sample(sample, lossless=True))

    for name in ("bg", "fg_bg", "mask", "depth"):
        np.testing.assert_array_equal(getattr(decoded, name), getattr(sample, name))


def test_sample_targets_are_lossless_by_default() -> None:
    """Photographs may be JPEG; masks and depths may not, since JPEG rings at the edges that are to be learned."""
    sample = sample_of(smooth(24, 24))

    encoded = encode_sample(sample)
    decoded = decode_sample(encoded)

    assert encoded.bg.startswith(b"\xff\xd8")
    np.testing.assert_array_equal(decoded.mask, sample.mask)
    np.testing.assert_array_equal(decoded.depth, sample.depth)


def test_images_of_different_sizes_are_refused() -> None:
    """All four images show the same pixels, so a quadruple with two sizes is a wrong pairing."""
    encoded = encode_sample(sample_of(smooth(12, 10)))
    wrong = EncodedSample(
        sample_id="s7",
        bg_id="b",
        fg_id="f",
        bg=encoded.bg,
        fg_bg=encoded.fg_bg,
        mask=encode_png(np.zeros((6, 5), np.uint8)),
        depth=encoded.depth,
    )

    with pytest.raises(InputError, match="'mask' in sample 's7'"):
        decode_sample(wrong)


def test_shrinking_averages_areas() -> None:
    """A quarter must be the mean of 4 by 4 pixels: bilinear would take the middle four and alias fine texture."""
    pixels = smooth(32, 32)

    expected = pixels.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))

    assert np.abs(resize(pixels, 8) - expected).max() <= 0.5


def test_enlarging_is_bilinear() -> None:
    """Half-size depth is enlarged on import; new pixels lie at quarters between the old ones."""
    row = np.array([[0, 100]], np.uint8).repeat(2, axis=0)

    assert resize(row, 4)[0].tolist() == [0, 25, 75, 100]


def test_bilinear_uses_the_two_nearest_pixels_also_when_shrinking() -> None:
    """A project that shrank its images so saw their finest detail aliased, not averaged."""
    row = np.array([[0, 40, 80, 200, 10, 100, 120, 250]], np.uint8).repeat(8, axis=0)

    assert resize(row, 2, "bilinear")[0].tolist() == [60, 110]


@pytest.mark.parametrize("size", [20, 61])
def test_lanczos_is_the_windowed_sinc_of_eight_pixels(size: int) -> None:
    """A published project resized so, smaller and larger; Duchon 1979: sinc(x) sinc(x / 4) for |x| < 4."""
    row = np.random.default_rng(0).integers(0, 256, (1, 40), np.uint8)
    places = (np.arange(size) + 0.5) * 40 / size - 0.5
    apart = places[:, None] - np.arange(-8, 48)
    weights = np.where(np.abs(apart) < 4, np.sinc(apart) * np.sinc(apart / 4), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.clip(weights @ np.pad(row[0].astype(float), 8, mode="edge"), 0, 255)

    assert np.abs(resize(row.repeat(40, axis=0), size, "lanczos") - expected).max() <= 1


@settings(max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 255),
    st.sampled_from(["area", "bilinear", "lanczos"]),
)  # fmt: skip
def test_resize_keeps_a_constant_image_constant(height: int, width: int, size: int, level: int, how: Resize) -> None:
    """Whatever the method, a mask that is all foreground stays all foreground."""
    resized = resize(np.full((height, width), level, np.uint8), size, how)

    assert resized.shape == (size, size)
    assert (resized == level).all()


def test_resize_to_takes_height_first() -> None:
    """OpenCV takes width first; nobody else here does."""
    assert resize_to(smooth(10, 20), 30, 40).shape == (30, 40, 3)


@pytest.mark.parametrize(("width", "height"), [(100_000, 100_000), (2**31 - 1, 1), (0, 1)])
def test_png_that_claims_an_absurd_size_is_refused(width: int, height: int) -> None:
    """A file of a hundred bytes may ask for 30 GB of memory."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    png = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    for decode in (decode_photo, decode_plane, decode_any):
        with pytest.raises(InputError, match=r"'huge\.png' is not an image, or is cut off"):
            decode(png, "huge.png")
