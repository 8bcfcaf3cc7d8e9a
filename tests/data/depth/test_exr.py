"""Depth in EXR files, written by OpenEXR's own library."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from numpy.typing import NDArray

from data.depth.exr import read_exr
from data.depth.files import DepthUnitError, read_depth
from data.depth.meaning import DepthMeaning
from data.errors import InputError

METRES = (np.arange(12, dtype=np.float32).reshape(3, 4) + 1) / 3


def exr(folder: Path, **channels: NDArray[Any]) -> bytes:
    """A file with channels, in which '_' of a name is '.'."""
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    path = folder / "depth.exr"
    with OpenEXR.File(header, {name.replace("_", "."): values for name, values in channels.items()}) as file:
        file.write(str(path))
    return path.read_bytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("name", ["Z", "Y", "ViewLayer_Depth_Z", "anything"])
def test_depth_is_read(tmp_path: Path, name: str, dtype: type[np.floating[Any]]) -> None:
    """A file with one channel, of whatever name, of single or half precision."""
    found, stored = read_depth(exr(tmp_path, **{name: METRES.astype(dtype)}), "d", DepthMeaning(unit="m"))

    assert (found.dtype, stored) == (np.float32, b"")
    np.testing.assert_array_equal(found, METRES.astype(dtype))


def test_depth_is_found_among_other_channels(tmp_path: Path) -> None:
    """A renderer writes colours beside it; some programs write the same value three times."""
    other = METRES + 1

    np.testing.assert_array_equal(read_exr(exr(tmp_path, R=other, G=METRES, B=other, depth=METRES), "d"), METRES)
    np.testing.assert_array_equal(read_exr(exr(tmp_path, R=METRES, G=METRES, B=METRES), "d"), METRES)
    with pytest.raises(InputError, match=r"'d' has the channels B, G, R, of which not one alone is named Z or depth"):
        read_exr(exr(tmp_path, R=other, G=METRES, B=METRES), "d")


def test_an_unknown_unit_is_refused(tmp_path: Path) -> None:
    """As with other floating-point numbers."""
    with pytest.raises(DepthUnitError, match="'d' has float32 values, whose unit is not known"):
        read_depth(exr(tmp_path, Z=METRES), "d", DepthMeaning())


def test_a_damaged_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut off in the header, in the pixels, or after the first bytes."""
    whole = exr(tmp_path, Z=METRES)
    for damaged in (whole[:-20], whole[:100], whole[:4] + b"rest"):
        with pytest.raises(InputError, match=r"'d' is not a whole EXR file"):
            read_exr(damaged, "d")
    assert capsys.readouterr().out == ""


def test_an_absurd_size_is_refused(tmp_path: Path) -> None:
    """Before memory is taken for it."""
    whole = bytearray(exr(tmp_path, Z=METRES))
    window = whole.index(b"dataWindow\0box2i\0") + len(b"dataWindow\0box2i\0") + 4
    whole[window + 8 : window + 16] = np.array([2**20, 2**20], "<i4").tobytes()

    with pytest.raises(InputError, match=r"'d' claims 1,099,\S+ values"):
        read_exr(bytes(whole), "d")


def test_the_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two ways out."""
    whole = exr(tmp_path, Z=METRES)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)

    with pytest.raises(InputError, match=r"install it with pip install 'twinhead\[exr\]', or convert the file"):
        read_exr(whole, "d")
