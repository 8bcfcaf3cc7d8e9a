"""Depth of 16 bits: its full range becomes 0..255, and missing pixels take the nearest measurement."""

from __future__ import annotations

import numpy as np
import pytest

from data.depth.levels import comparable_depth, fill_holes, scale_depth, valid_levels
from data.depth.meaning import DepthMeaning
from data.errors import InputError
from data.importers.polarity import POLARITIES, PolarityName, measure_polarity


def ramp(low: int = 0, high: int = 8000) -> np.ndarray:
    """(8, 1001) from `low` to `high`."""
    return np.linspace(low, high, 1001).round().astype(np.uint16)[None].repeat(8, axis=0)


@pytest.mark.parametrize("polarity", POLARITIES)
@pytest.mark.parametrize(("low", "high"), [(0, 8000), (400, 8000), (0, 65535), (60000, 60300)])
def test_full_range_of_16_bits_is_kept(low: int, high: int, polarity: PolarityName) -> None:
    """A room 8 m deep in millimetres takes an eighth of 16 bits, and must get all 256 levels."""
    levels = scale_depth(ramp(low, high), polarity, "depth")

    assert len(np.unique(levels)) == 256
    assert (levels[0, 0], levels[0, -1]) == (0, 255)
    assert (np.diff(levels[0].astype(int)) >= 0).all()


@pytest.mark.parametrize("polarity", POLARITIES)
def test_depth_of_8_bits_keeps_its_levels(polarity: PolarityName) -> None:
    """Their range was chosen by their author, and 0 belongs to it."""
    depth = np.array([[0, 3, 90]], np.uint8)

    np.testing.assert_array_equal(scale_depth(depth, polarity, "depth"), depth)
    np.testing.assert_array_equal(comparable_depth(depth), depth)


def test_missing_pixels_take_the_nearest_measurement() -> None:
    """A sensor writes 0 where it sees nothing, which must not be the nearest point, nor take the range."""
    depth = np.array([[1000, 1000, 0, 0, 3000, 0, 2000]], np.uint16)

    assert scale_depth(depth, "far-bright", "depth").tolist() == [[0, 0, 0, 255, 255, 255, 128]]


def test_zero_is_farthest_when_near_is_bright() -> None:
    """Disparity of the sky."""
    assert scale_depth(np.array([[0, 0, 500, 1000]], np.uint16), "near-bright", "depth").tolist() == [[0, 0, 128, 255]]


def test_zero_is_nearest_when_the_full_range_is_used() -> None:
    """An estimate scaled to 16 bits has its nearest object at 0, of any size: it is no hole."""
    depth = np.array([[0, 0, 0, 32768, 65535]], np.uint16)

    assert scale_depth(depth, "far-bright", "depth").tolist() == [[0, 0, 0, 128, 255]]


@pytest.mark.parametrize(("polarity", "level"), [("far-bright", 255), ("near-bright", 0)])
def test_constant_image_gets_the_farthest_level(polarity: PolarityName, level: int) -> None:
    """There is no range to divide by; the farthest of an image is 255 in a data set, after it was turned round."""
    depth = np.full((3, 4), 1234, np.uint16)

    assert (scale_depth(depth, polarity, "depth") == level).all()
    assert np.isfinite(comparable_depth(depth)).all()


def test_depth_without_any_measurement_is_refused() -> None:
    """A covered sensor; there is nothing to fill it with."""
    empty = np.zeros((3, 4), np.uint16)

    with pytest.raises(InputError, match=r"'d\.png' has no reading: every pixel is 0"):
        scale_depth(empty, "far-bright", "d.png")
    assert np.isnan(comparable_depth(empty)).all()


def test_holes_are_filled_from_the_nearest_pixel() -> None:
    """Every hole, by distance in both directions; the rest is left as it is."""
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 9000, (20, 30)).astype(np.uint16)
    holes = rng.random((20, 30)) < 0.6

    filled = fill_holes(depth, holes)

    rows, columns = np.nonzero(~holes)
    np.testing.assert_array_equal(filled[~holes], depth[~holes])
    for row, column in np.argwhere(holes):
        distances = np.hypot(rows - row, columns - column)
        near = distances <= distances.min() * 1.03 + 1e-9  # OpenCV's distance is a few per cent off
        assert filled[row, column] in depth[rows[near], columns[near]]


def scene(inside: int, beside: int, hole_share: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A mask, (64, 64), and its depth of 16 bits; holes lie inside the mask, as on dark clothes."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 20:36] = 255
    depth = np.where(mask > 127, np.uint16(inside), np.uint16(beside))
    depth[0] = 1000  # the range is that of the image, not of the two
    depth[-1] = 60000
    holes = (np.random.default_rng(0).random(mask.shape) < hole_share) & (mask > 127)
    depth[holes] = 0
    return mask, depth


def test_polarity_is_measured_on_16_bits() -> None:
    """A difference of less than a level of 8 bits, over many samples, still says which is nearer."""
    samples = [scene(20000 + number, 20300 + number) for number in range(12)]

    def measured(flip: bool) -> float:
        pairs = [(mask, 61000 - depth if flip else depth) for mask, depth in samples]
        return measure_polarity((mask, comparable_depth(depth)) for mask, depth in pairs).difference

    expected = 300 * 255 / 59000
    assert measured(flip=False) == pytest.approx(expected, rel=1e-3)
    assert measured(flip=True) == pytest.approx(-expected, rel=1e-3)


def test_polarity_ignores_missing_pixels() -> None:
    """Counted as 0 they would make each far object look near."""
    mask, depth = scene(50000, 20000, hole_share=0.9)

    measured = measure_polarity([(mask, comparable_depth(depth))])

    assert measured.name == "near-bright"
    assert measured.difference == pytest.approx(-30000 * 255 / 59000, rel=1e-3)


FLOATS = np.array([[0, 0.5, 2.5, np.nan, np.inf, -1, 1.5]], np.float32)


def test_only_valid_pixels_decide_the_range() -> None:
    """NaN, infinite and negative values are filled from the nearest pixel, and marked; in metres, 0 is too."""
    levels, valid = valid_levels(FLOATS, "far-bright", "d", DepthMeaning(unit="m"))

    assert valid is not None
    assert valid.tolist() == [[False, True, True, False, False, False, True]]
    assert levels[valid].tolist() == [0, 255, 128]
    assert levels[0, 0] == 0
    assert set(levels[0, 3:6].tolist()) <= {255, 128}


def test_zero_is_a_measurement_in_relative_depth() -> None:
    """The nearest point of an estimate."""
    levels, valid = valid_levels(FLOATS, "far-bright", "d", DepthMeaning(unit="relative"))

    assert valid is not None
    assert valid[0, 0]
    assert levels[valid].tolist() == [0, 51, 255, 153]


@pytest.mark.parametrize("kind", [np.float32, np.uint16])
def test_units_give_the_same_levels(kind: type) -> None:
    """Each image is scaled over its own range."""
    metres = np.array([[1, 2, 4, 6]], kind)

    of_unit = [
        scale_depth(np.asarray(metres * factor, kind), "far-bright", "d", DepthMeaning(unit=unit)).tolist()
        for unit, factor in (("m", 1), ("cm", 100), ("mm", 1000))
    ]

    assert of_unit == [[[0, 51, 153, 255]]] * 3


def test_8_bits_are_scaled_if_they_are_metric() -> None:
    """Decimetres of a sensor, with 0 for none; as levels they would be kept."""
    depth = np.array([[0, 10, 20, 30]], np.uint8)

    levels, valid = valid_levels(depth, "far-bright", "d", DepthMeaning(unit="cm"))

    assert levels.tolist() == [[0, 0, 128, 255]]
    assert valid is not None
    assert valid.tolist() == [[False, True, True, True]]


@pytest.mark.parametrize(("kind", "invalid"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 0.1)])
def test_the_invalid_value_is_no_measurement(kind: type, invalid: float) -> None:
    """Also the largest of its type, which would take the whole range."""
    depth = np.array([[10, 20, invalid, 40]]).astype(kind)

    levels, valid = valid_levels(depth, "far-bright", "d", DepthMeaning(unit="relative", invalid=invalid))

    assert valid is not None
    assert valid.tolist() == [[True, True, False, True]]
    assert (levels.max(), levels[0, 3]) == ((40, 40) if kind is np.uint8 else (255, 255))
    assert (
        np.isnan(comparable_depth(depth, DepthMeaning(unit="relative", invalid=invalid))).tolist() == (~valid).tolist()
    )


def test_zero_counts_as_a_hole_beside_an_invalid_65535() -> None:
    """The largest value does not mean the full range here."""
    _, valid = valid_levels(np.array([[0, 900, 65535]], np.uint16), "far-bright", "d", DepthMeaning(invalid=65535))

    assert valid is not None
    assert valid.tolist() == [[False, True, False]]


def test_depth_that_is_valid_everywhere_has_no_mask() -> None:
    """It would only take room."""
    assert valid_levels(ramp(), "near-bright", "d")[1] is None
    assert valid_levels(np.ones((2, 2), np.float32), "far-bright", "d", DepthMeaning(unit="m"))[1] is None


def test_depth_without_a_valid_pixel_says_why() -> None:
    """NaN alone."""
    with pytest.raises(InputError, match="every pixel is 0, negative, not finite, or has the value of --depth-invalid"):
        valid_levels(np.full((2, 2), np.nan, np.float32), "far-bright", "d", DepthMeaning(unit="m"))


@pytest.mark.parametrize("invalid", [float("nan"), float("inf")])
def test_the_invalid_value_is_a_number(invalid: float) -> None:
    """NaN equals nothing."""
    with pytest.raises(InputError, match=r"'--depth-invalid' is (nan|inf), but must be a number"):
        DepthMeaning(invalid=invalid)
