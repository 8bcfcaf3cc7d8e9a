"""The intervals: their coverage, and agreement with a slow loop over images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from trainable.metrics import bootstrap
from trainable.metrics.bootstrap import Interval, difference, intervals
from trainable.metrics.objective import Objective
from trainable.metrics.per_image import PUBLISHED, STATES, ImageFigures, figures, metrics_of

PIXELS = 1024


def table(seed: int, *, rooms: int = 30, room_spread: float = 0.1, spread: float = 0.05) -> ImageFigures:
    """Images of rooms, one to eight per room, that are alike within a room; the mean IoU is 0.5."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, rooms)
    room = np.repeat(np.arange(rooms), counts)
    effect = rng.normal(0, room_spread, rooms)[room]

    def quality() -> np.ndarray:
        return np.clip(0.5 + effect + rng.normal(0, spread, len(room)), 0, 1)

    states = np.stack([PIXELS * quality() for _ in STATES], axis=1)
    states[:, 0], states[:, 1], states[:, 2], states[:, 13:] = 1, quality(), PIXELS, 0
    published = {name: quality() * (PIXELS if "soft" in name else 1) for name in PUBLISHED}
    published["ssim50_invalid_images"] = np.zeros(len(room))
    return ImageFigures(bg_ids=tuple(f"room-{number}" for number in room), states=states, published=published)


def as_rooms(found: ImageFigures) -> ImageFigures:
    """The same images, each in a room of its own."""
    return replace(found, bg_ids=tuple(str(number) for number in range(len(found.bg_ids))))


def width(interval: Interval) -> float:
    return interval.high - interval.low


@pytest.mark.slow
def test_intervals_have_their_nominal_coverage() -> None:
    """Images of one room are correlated; an interval that ignores this is far too narrow."""
    tables = [table(seed) for seed in range(200)]

    def share_held(found: list[ImageFigures]) -> float:
        ious = [intervals(each, draws=300)["mask_iou"] for each in found]
        return float(np.mean([interval.low <= 0.5 <= interval.high for interval in ious]))

    assert 0.9 <= share_held(tables) <= 0.98
    assert share_held([as_rooms(each) for each in tables]) < 0.8


def test_intervals_agree_with_a_loop_over_images() -> None:
    """Rooms differ in their number of images: all images of a resampled room count, as often as it was drawn."""
    found = table(1, rooms=8)
    rng, columns, rooms = np.random.default_rng(5), found.columns(), sorted(set(found.bg_ids))
    drawn: dict[str, list[float]] = {}
    for _ in range(4000):
        images = [
            row
            for room in rng.choice(rooms, len(rooms))
            for row, bg_id in zip(columns, found.bg_ids, strict=True)
            if bg_id == room
        ]
        for name, value in metrics_of(np.sum(images, axis=0)).items():
            drawn.setdefault(name, []).append(float(value))
    fast = intervals(found, level=0.8, draws=20_000)
    assert fast.keys() == drawn.keys()
    for name, values in drawn.items():
        low, high = np.quantile(values, [0.1, 0.9])
        near = 0.1 * (high - low)
        assert fast[name].low == pytest.approx(low, abs=near)
        assert fast[name].high == pytest.approx(high, abs=near)


def test_an_interval_is_around_the_figure_itself() -> None:
    """A comparison shows the measured metrics, not the mean over resamples."""
    found = table(2)
    measured = intervals(found)
    assert {name: interval.value for name, interval in measured.items()} == figures(found)
    assert all(interval.low < interval.value < interval.high for interval in measured.values())


def test_a_paired_difference_is_narrower_than_the_two_alone() -> None:
    """The difficulty of a room is the same for both networks, and must not hide which is better."""
    a = table(3)
    states = a.states.copy()
    states[:, 1] -= 0.02 + np.random.default_rng(0).normal(0, 0.01, len(states))
    b = replace(a, states=states)
    paired = difference(a, b, "mask_iou")
    assert paired.value == pytest.approx(figures(a)["mask_iou"] - figures(b)["mask_iou"])
    assert 0 < paired.low < paired.value < paired.high
    unpaired = math.hypot(*(width(intervals(each)["mask_iou"]) for each in (a, b)))
    assert width(paired) < unpaired / 5


def test_the_probability_is_that_of_a_normal_difference() -> None:
    """With independent rooms, the share of resamples above 0 follows from the mean and its standard error."""
    a = table(3, rooms=60)
    rng = np.random.default_rng(1)
    states = a.states.copy()
    states[:, 1] *= 1 - rng.normal(0.003, 0.02, len(states))
    found = difference(a, replace(a, states=states), "mask_iou")
    error = width(found) / (2 * 1.96)
    expected = 0.5 * (1 + math.erf(found.value / error / math.sqrt(2)))

    assert 0.6 < expected < 0.99
    assert found.probability == pytest.approx(expected, abs=0.03)
    assert difference(replace(a, states=states), a, "mask_iou").probability == pytest.approx(1 - found.probability)
    assert difference(a, a, "mask_iou").probability == 0.5


def test_a_smaller_error_is_better() -> None:
    """The probability is of being better, not of being larger."""
    a = table(3)
    states = a.states.copy()
    states[:, STATES.index("depth_squares")] *= 1.1
    b = replace(a, states=states)

    assert difference(a, b, "depth_rmse").value < 0
    assert difference(a, b, "depth_rmse").probability == 1
    assert difference(a, b, Objective.of("-depth_rmse")).probability == 1


def test_a_difference_of_unrelated_networks_is_as_wide_as_the_two_together() -> None:
    """Pairing removes only the common variation."""
    a = table(4, room_spread=0.0)
    b = replace(a, states=np.where(np.arange(len(STATES)) == 1, a.states[::-1], a.states))
    unpaired = math.hypot(*(width(intervals(each)["mask_iou"]) for each in (a, b)))
    assert width(difference(a, b, "mask_iou")) == pytest.approx(unpaired, rel=0.15)


@pytest.mark.parametrize("change", ["order", "size"])
def test_difference_needs_the_same_images(change: str) -> None:
    """Rows of different images would be paired."""
    a = table(5)
    states = a.states.copy()
    states[:, 2] = 4 * PIXELS
    b = replace(a, bg_ids=a.bg_ids[::-1]) if change == "order" else replace(a, states=states)
    with pytest.raises(ValueError, match="same images in the same order"):
        difference(a, b, "score")


def test_single_background_has_no_interval() -> None:
    """All resamples are equal, and an interval of width 0 would look like certainty."""
    found = table(6, rooms=1)
    measured = intervals(found)["score"]
    assert measured.value == figures(found)["score"]
    assert math.isnan(measured.low)
    assert math.isnan(measured.high)


def test_nan_metric_does_not_affect_others() -> None:
    """A network with a single infinite output still has shares."""
    found = table(7)
    found.states[3, STATES.index("mask_squares")] = math.nan
    measured = intervals(found)
    assert math.isnan(measured["mask_rmse"].value)
    assert math.isnan(measured["mask_rmse"].high)
    assert [name for name, interval in measured.items() if math.isnan(interval.low)] == ["mask_rmse"]


def test_resamples_without_a_measured_depth_are_left_out() -> None:
    """Lost bounds: with few rooms of measured depth, some resamples have none of them, and no metric of the depth."""
    found = table(7, rooms=6)
    unmeasured = np.asarray([bg_id not in ("room-0", "room-1") for bg_id in found.bg_ids])
    states = found.states.copy()
    states[unmeasured, STATES.index("depth_squares") : STATES.index("depth_within3") + 1] = 0
    states[unmeasured, STATES.index("depth_invalid_pixels")] = states[unmeasured, STATES.index("pixels")]
    states[unmeasured, STATES.index("depth_invalid_images")] = 1
    a = replace(found, states=states)
    worse = states.copy()
    worse[:, STATES.index("depth_within1")] *= 0.9
    measured, apart = intervals(a), difference(a, replace(a, states=worse), "depth_delta1")

    assert all(math.isfinite(interval.low) and math.isfinite(interval.high) for interval in measured.values())
    of_room = (states[np.asarray(a.bg_ids) == room].sum(axis=0) for room in ("room-0", "room-1"))
    rooms = [metrics_of(sums)["depth_delta1"] for sums in of_room]
    assert min(rooms) <= measured["depth_delta1"].low < measured["depth_delta1"].high <= max(rooms)
    assert 0 < apart.low < apart.value < apart.high
    assert apart.probability == 1
    states[:, STATES.index("depth_squares")] = math.nan
    undefined = difference(a, a, "depth_rmse")
    assert all(math.isnan(number) for number in (undefined.low, undefined.high, undefined.probability))


def test_equal_tables_get_equal_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed comparison gives the same table, whatever the chunk size."""
    once = intervals(table(8))
    assert intervals(table(8)) == once
    assert intervals(table(8), seed=1) != once
    monkeypatch.setattr(bootstrap, "MAX_WEIGHTS", 1000)
    for name, interval in intervals(table(8)).items():
        assert (interval.low, interval.high) == pytest.approx((once[name].low, once[name].high), rel=1e-12)


@pytest.mark.parametrize("wrong", [{"level": 1.0}, {"level": 0.0}, {"draws": 0}])
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """A level of 95 would give an obscure error of numpy, or none at all."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        intervals(table(9), **wrong)


def test_an_unknown_metric_is_refused() -> None:
    """The error lists the known metrics."""
    with pytest.raises(ValueError, match="'iou' is not known; give one of score, mask_iou"):
        difference(table(9), table(9), "iou")


def test_an_interval_can_be_written_as_json() -> None:
    """JSON has no NaN, and a strict parser would refuse the whole report."""
    assert Interval(value=0.5, low=math.nan, high=math.nan).as_plain() == {"value": 0.5, "low": None, "high": None}


def test_difference_of_a_weighted_mean_is_the_mean_of_the_differences() -> None:
    """Of each resample: the score is the mean of these two metrics."""
    a = table(7)
    states = a.states.copy()
    states[:, [STATES.index("iou"), STATES.index("depth_within1")]] *= [0.9, 0.8]
    b = replace(a, states=states)
    found = difference(a, b, Objective.of({"mask_iou": 1, "depth_delta1": 1}))
    score = difference(a, b, "score")

    assert (found.value, found.low, found.high) == pytest.approx((score.value, score.low, score.high))
    assert found.low < found.value < found.high


def test_interval_of_a_weighted_mean_is_that_of_its_resamples() -> None:
    """The score is the mean of these two metrics; a single metric adds nothing."""
    found = intervals(table(7), Objective.of({"mask_iou": 1, "depth_delta1": 1}))
    alone = intervals(table(7))

    assert found["objective"].value == pytest.approx(alone["score"].value)
    assert (found["objective"].low, found["objective"].high) == pytest.approx((alone["score"].low, alone["score"].high))
    assert {name: found[name] for name in alone} == alone == intervals(table(7), Objective.of("-depth_rmse"))
