"""Depth files: every format gives the numbers that were written, and nothing is unpickled."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from data.depth.files import DepthUnitError, read_depth
from data.depth.meaning import UNKNOWN, DepthMeaning
from data.errors import InputError
from data.images import encode_png

METRES = DepthMeaning(unit="m")
FLOATS = np.array([[0.5, 2.25, np.nan], [7.125, np.inf, -1]], np.float32)


def npy(values: NDArray[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    """The file that Pillow writes."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", **options)
    return file.getvalue()


def npy_of(descr: str, shape: str, content: bytes = b"") -> bytes:
    """A NumPy file whose header has these values, as a damaged or hostile one may."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def pfm(values: NDArray[np.float32], order: str = "<") -> bytes:
    """As its description says: rows from the bottom to the top, and a negative scale for little-endian numbers."""
    height, width = values.shape
    scale = b"-1.0" if order == "<" else b"1.0"
    return b"Pf\n%d %d\n%s\n" % (width, height, scale) + values[::-1].astype(f"{order}f4").tobytes()


@pytest.mark.parametrize(
    "encoded",
    [
        npy(FLOATS),
        npy(FLOATS.astype(np.float64)),
        npy(FLOATS.astype(">f4")),
        npy(np.asfortranarray(FLOATS)),
        npy(FLOATS[None]),
        npy(FLOATS[:, :, None]),
        npy(FLOATS.astype(np.float16)),
        tiff(FLOATS),
        tiff(FLOATS, compression="tiff_adobe_deflate"),
        tiff(FLOATS, compression="tiff_lzw"),
        pfm(FLOATS),
        pfm(FLOATS, ">"),
    ],
)
def test_floating_point_depth_is_read_exactly(encoded: bytes) -> None:
    """NaN and infinity too, the right way up."""
    values, _ = read_depth(encoded, "d", METRES)

    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, FLOATS)


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64, np.uint32])
def test_integers_of_other_sizes_become_floating_point(kind: Any) -> None:
    """Millimetres, with -1 for none in signed types."""
    depth = np.array([[0, 1200], [65000 if kind is not np.int16 else 32000, 5]]).astype(kind)

    values, _ = read_depth(npy(depth), "d", METRES)

    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, depth)


def test_npy_of_8_and_16_bits_is_as_an_image() -> None:
    """Without a unit, as PNG files."""
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    values, stored = read_depth(npy(levels), "d", UNKNOWN)
    assert stored == encode_png(levels)
    np.testing.assert_array_equal(values, levels)

    values, _ = read_depth(npy(levels.astype(np.uint16) * 300), "d", UNKNOWN)
    assert values.dtype == np.uint16
    np.testing.assert_array_equal(values, levels.astype(np.uint16) * 300)


def test_tiff_of_16_bits_needs_no_unit() -> None:
    """As today."""
    depth = np.arange(12, dtype=np.uint16).reshape(3, 4) * 300

    np.testing.assert_array_equal(read_depth(tiff(depth), "d", UNKNOWN)[0], depth)


@pytest.mark.parametrize("encoded", [npy(FLOATS), tiff(FLOATS), pfm(FLOATS), npy(np.ones((2, 2), np.int32))])
def test_values_of_an_unknown_unit_are_refused(encoded: bytes) -> None:
    """Whether 0 is a measurement depends on it."""
    with pytest.raises(
        DepthUnitError, match=r"'d' has (float32|int32) values, whose unit is not known; give --depth-unit"
    ):
        read_depth(encoded, "d", UNKNOWN)
    read_depth(encoded, "d", DepthMeaning(unit="relative"))


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (npy(np.zeros((2, 3, 3), np.float32)), r"has the shape \(2, 3, 3\), but must be \(height, width\)"),
        (npy(np.zeros(5, np.float32)), r"has the shape \(5,\)"),
        (npy(np.zeros((0, 5), np.float32)), r"has the shape \(0, 5\)"),
        (npy(np.zeros((2, 3), np.complex64)), "is complex64, but must be numbers"),
        (npy(np.zeros((2, 3), np.bool_)), "is bool, but must be numbers"),
        (npy(FLOATS)[:-1], "is cut off: it has 23 bytes for float32 of shape"),
        (npy(FLOATS)[:20], "is not a whole NumPy file"),
        (b"\x93NUMPY\x09\x00", "is not a whole NumPy file"),
        (b"\x76\x2f\x31\x01rest", "is not a whole EXR file"),
        (b"PF\n1 1\n-1\n" + bytes(12), "is a PFM file with colours, but must have one value a pixel"),
        (pfm(FLOATS)[:-4], "has 20 bytes for 3x2 values of 4 bytes"),
        (b"Pf\nx", "is not a PFM file, or is cut off"),
    ],
)
def test_an_unusable_file_is_named(encoded: bytes, said: str) -> None:
    """With what to do."""
    with pytest.raises(InputError, match=f"'d' {said}"):
        read_depth(encoded, "d", METRES)


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (npy_of("'|S0'", "(2, 3)"), "but must be numbers"),
        (npy_of("'|V0'", "(2, 3)"), "but must be numbers"),
        (npy_of("[('z', '<f4')]", "(2, 3)", bytes(24)), "but must be numbers"),
        (npy_of("('<f4', (2,))", "(2, 3)", bytes(48)), "but must be numbers"),
        (npy_of("()", "(2, 3)"), "is not a whole NumPy file"),
        (npy_of("-" * 5000, "(2, 3)"), "is not a whole NumPy file"),
        (npy_of("'<f4'", "(10000000000000000000000, 0)"), "is cut off"),
    ],
)
def test_a_header_of_no_numbers_is_refused(encoded: bytes, said: str) -> None:
    """Traceback of NumPy: its header allows types of 0 bytes, structures, and sizes that no array has."""
    with pytest.raises(InputError, match=f"The depth 'd' .*{said}"):
        read_depth(encoded, "d", METRES)


def test_a_size_of_true_in_a_header_is_1() -> None:
    """Traceback of NumPy, whose header allows it."""
    values, _ = read_depth(npy_of("'<f4'", "(True, 1)", np.float32(2.5).tobytes()), "d", METRES)

    np.testing.assert_array_equal(values, [[2.5]])


class Trap:
    """Creates a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A file of objects runs the code of whoever wrote it."""
    encoded = npy(np.array([[Trap(tmp_path / "sprung")]], object), allow_pickle=True)

    with pytest.raises(InputError, match="has Python objects, but must be numbers"):
        read_depth(encoded, "d", METRES)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(encoded[encoded.index(b"\x80\x04") :])  # noqa: S301 - shows that the trap works
    assert (tmp_path / "sprung").exists()


def test_a_header_that_claims_a_huge_array_takes_no_memory() -> None:
    """Its size is compared with that of the file first."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header = header.ljust(117) + b"\n"
    encoded = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header

    with pytest.raises(InputError, match="is cut off"):
        read_depth(encoded, "d", METRES)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 40),
    st.sampled_from([npy(FLOATS), pfm(FLOATS)]),
)
def test_any_damage_is_an_input_error_or_harmless(damages: list[tuple[int, int]], lost: int, whole: bytes) -> None:
    """Never another exception."""
    content = bytearray(whole)
    for position, value in damages:
        content[position % len(content)] = value
    try:
        values, _ = read_depth(bytes(content[: len(content) - lost]), "d", METRES)
    except InputError:
        return
    assert values.ndim == 2
