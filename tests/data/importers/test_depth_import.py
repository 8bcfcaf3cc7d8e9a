"""Depth of sensors and estimates, in any file: levels over the valid range, and a mask of the valid pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.depth.files import DepthUnitError
from data.depth.meaning import DepthMeaning
from data.errors import InputError
from data.images import encode_png
from data.importers.importers import import_folders, import_source
from data.importers.problems import ImportProblemsError
from tests.data.importers.test_importers import birender, depth_of, mask_at, photo, store, write
from tests.data.importers.test_stems import folders
from tests.data.importers.test_tables import images, table

METRES = DepthMeaning(unit="m")
SIDE = 32


def metres(number: int) -> NDArray[np.float32]:
    """A room of 2 to 6 m with somebody at 1 m; the sensor sees neither the ceiling nor a corner."""
    depth = np.linspace(6, 2, SIDE, dtype=np.float32)[:, None].repeat(SIDE, axis=1)
    depth[mask_at(3 + number) > 127] = 1
    depth[:3] = np.nan
    depth[-4:, :4] = 0
    return depth


def npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def tiff(values: NDArray[Any]) -> bytes:
    return cv2.imencode(".tiff", values)[1].tobytes()


def pfm(values: NDArray[Any]) -> bytes:
    return f"Pf\n{values.shape[1]} {values.shape[0]}\n-1\n".encode() + values[::-1].astype("<f4").tobytes()


def millimetres(values: NDArray[Any]) -> bytes:
    return cv2.imencode(".png", np.nan_to_num(values * 1000).astype(np.uint16))[1].tobytes()


def with_depth(root: Path, suffix: str, encode: Callable[[NDArray[Any]], bytes]) -> Path:
    """A table of samples with such depth."""
    rows = images(root)
    for number, row in enumerate(rows):
        row["depth"] = f"depths/{number}{suffix}"
        store(root / str(row["depth"]), encode(metres(number)))
    return table(root / "t.csv", rows)


@pytest.mark.parametrize(
    ("suffix", "encode", "unit"),
    [
        (".npy", npy, "m"),
        (".tiff", tiff, "m"),
        (".pfm", pfm, "m"),
        (".png", millimetres, "mm"),
        (".npy", lambda values: npy(values * 100), "cm"),
    ],
)
def test_every_file_of_metric_depth_gives_the_same_samples(
    tmp_path: Path, suffix: str, encode: Callable[[NDArray[Any]], bytes], unit: Any
) -> None:
    """Scaled over the valid pixels of each image, and the others marked."""
    found = import_source(with_depth(tmp_path, suffix, encode), depth_meaning=DepthMeaning(unit=unit))
    dataset = write(found, tmp_path / "set")

    assert found.depth_polarity == "far-bright"
    assert dataset.info.source["depth_unit"] == unit
    for number, sample in enumerate(dataset.read()):
        depth = metres(number)
        valid = np.nan_to_num(depth) > 0
        assert sample.valid is not None
        np.testing.assert_array_equal(sample.valid, 255 * valid)
        low, high = depth[valid].min(), depth[valid].max()
        expected = (depth[valid] - low) / (high - low) * 255
        assert np.abs(sample.depth[valid] - expected).max() <= 0.6  # half a level, and a rounded millimetre
        assert (sample.depth[:3] >= 250).all()  # the ceiling, as the wall below it


def test_depth_of_16_bits_marks_pixels_without_a_reading(tmp_path: Path) -> None:
    """They are filled as before, and no longer count as measured."""
    root = birender(tmp_path / "source")
    for number, path in enumerate(sorted((root / "fg_bg_depth_images").iterdir())):
        path.write_bytes(millimetres(metres(number)))

    for sample in write(import_source(root, depth_polarity="far-bright"), tmp_path / "set").read():
        assert sample.valid is not None
        assert not sample.valid[:3].any()
        assert sample.valid[4].all()


def test_the_mask_is_resized_with_the_depth(tmp_path: Path) -> None:
    """Depth of half the size: a pixel is valid if at least half of what it covers is."""
    path = with_depth(tmp_path, ".npy", lambda values: npy(values[::2, ::2]))

    for sample in write(import_source(path, depth_meaning=METRES), tmp_path / "set").read():
        assert sample.valid is not None
        assert sample.valid.shape == (SIDE, SIDE)
        assert not sample.valid[:3].any()
        assert sample.valid[5:-6].all()


@pytest.mark.parametrize("rounded", [0, 1])
def test_half_of_an_odd_side_may_be_rounded_either_way(tmp_path: Path, rounded: int) -> None:
    """Photographs of any sizes, and a network that gives depth at half of each."""
    rows = images(tmp_path)
    for row, side in zip(rows, (32, 32, 33, 35), strict=True):
        mask = cv2.resize(mask_at(5), (side, side), interpolation=cv2.INTER_NEAREST)
        store(tmp_path / str(row["fg_bg"]), encode_png(photo(1, side)))
        store(tmp_path / str(row["mask"]), encode_png(mask))
        half = (side + rounded) // 2
        store(tmp_path / str(row["depth"]), encode_png(cv2.resize(depth_of(mask), (half, half))))
        row["bg"] = row["fg_bg"]

    dataset = write(import_source(table(tmp_path / "t.csv", rows), depth_polarity="far-bright"), tmp_path / "set")

    assert [sample.depth.shape for sample in dataset.read()] == [(32, 32), (32, 32), (33, 33), (35, 35)]


def test_depth_is_resized_from_measured_pixels_only(tmp_path: Path) -> None:
    """What fills a hole has no influence: a reduced pixel has the mean of those that were measured in it."""
    rows = images(tmp_path)
    path = tmp_path / str(rows[0]["depth"])
    depth = np.full((2 * SIDE, 2 * SIDE), 3000, np.uint16)
    depth[:2, :4] = [[1000, 5000, 0, 0], [5000, 0, 0, 0]]
    path.write_bytes(encode_png(depth))
    for row in rows[1:]:
        (tmp_path / str(row["depth"])).write_bytes(encode_png(np.full_like(depth, 3000)))

    found = import_source(table(tmp_path / "t.csv", rows), depth_meaning=DepthMeaning(unit="mm"))
    first = next(iter(write(found, tmp_path / "set").read()))

    assert first.valid is not None
    assert first.valid[0, :2].tolist() == [255, 0]
    assert first.depth[0, 0] == 170  # two of the three are the farthest


def test_an_invalid_value_of_8_bits_is_kept_out(tmp_path: Path) -> None:
    """Levels stay; the value is filled and marked."""
    rows = images(tmp_path)
    path = tmp_path / str(rows[0]["depth"])
    depth = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    depth[:2] = 255
    path.write_bytes(encode_png(depth))

    found = import_source(table(tmp_path / "t.csv", rows), depth_meaning=DepthMeaning(invalid=255))
    first, *others = write(found, tmp_path / "set").read()

    assert first.valid is not None
    assert np.flatnonzero(~first.valid.all(axis=1)).tolist() == [0, 1]
    np.testing.assert_array_equal(first.depth[2:], depth[2:])
    assert first.depth[:2].max() < 255
    assert all(other.valid is None for other in others)


def test_floating_point_depth_without_a_unit_is_refused_at_once(tmp_path: Path) -> None:
    """All files have it: nothing else is read."""
    checked: list[int] = []
    with pytest.raises(DepthUnitError, match=r"0\.npy' has float32 values, whose unit is not known"):
        import_source(with_depth(tmp_path, ".npy", npy), on_checked=lambda done, _: checked.append(done))
    assert checked == []


def test_distances_that_are_near_bright_are_refused(tmp_path: Path) -> None:
    """Disparity with a wrong unit would turn the set inside out."""
    path = with_depth(tmp_path, ".npy", lambda values: npy(1 / np.where(values > 0, values, np.nan)))

    with pytest.raises(InputError, match="'--depth-unit' is 'm', but the depth was measured to be near-bright"):
        import_source(path, depth_meaning=METRES)
    with pytest.raises(InputError, match="'near-bright', but depth in m grows with distance"):
        import_source(path, depth_polarity="near-bright", depth_meaning=METRES)
    assert import_source(path, depth_meaning=DepthMeaning(unit="relative")).depth_polarity == "near-bright"


def test_near_bright_relative_depth_is_inverted_within_its_valid_range(tmp_path: Path) -> None:
    """Inverse depth of an estimator."""
    path = with_depth(tmp_path, ".npy", lambda values: npy(1 / np.where(values > 0, values, np.nan)))

    for sample in write(import_source(path, depth_meaning=DepthMeaning(unit="relative")), tmp_path / "set").read():
        assert sample.valid is not None
        assert sample.depth[sample.mask > 127].max() == 0
        assert sample.depth[sample.valid > 0].max() == 255


def test_an_empty_depth_is_refused_by_name(tmp_path: Path) -> None:
    """A covered sensor."""
    path = with_depth(tmp_path, ".npy", npy)
    store(tmp_path / "depths/1.npy", npy(np.full((SIDE, SIDE), np.nan, np.float32)))

    with pytest.raises(InputError, match=r"1\.npy' has no reading"):
        write(import_source(path, depth_meaning=METRES), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_four_folders_take_depth_that_is_no_image(tmp_path: Path) -> None:
    """And name what is damaged."""
    given = folders(tmp_path)
    for number, path in enumerate(sorted(given["depth"].iterdir())):
        store(path.with_suffix(".npy"), npy(metres(number)))
        path.unlink()

    assert write(import_folders(given, depth_meaning=METRES), tmp_path / "set").info.has_validity
    (given["depth"] / "room_1_a.npy").rename(given["depth"] / "room_1_a.exr")
    store(given["depth"] / "room_1_a.exr", b"\x76\x2f\x31\x01")
    with pytest.raises(ImportProblemsError, match=r"room_1_a\.exr' is not a whole EXR file"):
        import_folders(given, depth_meaning=METRES)
