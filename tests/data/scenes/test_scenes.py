"""Rendered scenes: reproducible, with mask and depth that agree with the photograph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from data.errors import InputError
from data.scenes.scenes import SceneSet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from data.schema import Sample

ROOMS, EACH, SIZE = 16, 3, 48


@pytest.fixture(scope="module")
def rooms() -> list[list[Sample]]:
    """`EACH` samples of each of `ROOMS` rooms."""
    scenes = SceneSet(seed=1, backgrounds=ROOMS, per_background=EACH, size=SIZE)
    return [[scenes[room * EACH + picture] for picture in range(EACH)] for room in range(ROOMS)]


def _same(one: Sample, other: Sample) -> bool:
    ids = (one.sample_id, one.bg_id, one.fg_id) == (other.sample_id, other.bg_id, other.fg_id)
    pictures = ("bg", "fg_bg", "mask", "depth")
    return ids and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in pictures)


def _away_from(sample: Sample) -> NDArray[np.bool_]:
    """Pixels outside the figure."""
    return np.asarray(sample.mask == 0)


def _core(sample: Sample) -> NDArray[np.bool_]:
    """Pixels that the figure covers completely, including their neighbours."""
    return np.asarray(cv2.erode(sample.mask, np.ones((3, 3), np.uint8)) == 255)


def _depth_in_scale_of(sample: Sample, other: Sample) -> tuple[NDArray[np.float64], float]:
    """Depth of `other`, of the same room, in the levels of `sample`; and the worst misfit in the empty room."""
    both = _away_from(sample) & _away_from(other)
    known, wanted = other.depth[both].astype(float), sample.depth[both].astype(float)
    slope, offset = np.polyfit(known, wanted, 1)
    fitted = other.depth * slope + offset
    # Half a level is lost to rounding in `sample`, and half a level of `other` counts `slope` times.
    return fitted, float(np.abs(fitted - sample.depth)[both].max() - 0.5 - 0.5 * slope)


@pytest.mark.slow
def test_sample_depends_on_its_index_alone(rooms: list[list[Sample]]) -> None:
    """Workers read in any order, and a larger set must contain the samples of a smaller one."""
    longer = SceneSet(seed=1, backgrounds=5 * ROOMS, per_background=EACH, size=SIZE)
    for index in (7, 3, 0, 4):
        assert _same(longer[index], rooms[index // EACH][index % EACH])


def test_another_seed_gives_another_scene() -> None:
    """Seeds split training scenes from scenes to test on."""
    one, other = (SceneSet(seed=seed, backgrounds=1, per_background=1, size=32)[0] for seed in (0, 1))
    assert not np.array_equal(one.bg, other.bg)
    assert not np.array_equal(one.mask, other.mask)


@pytest.mark.slow
def test_a_scene_is_the_same_at_each_size() -> None:
    """A search at a small size must use the scenes that the final model is trained on."""
    for index in range(4):
        small, large = (SceneSet(seed=2, backgrounds=2, per_background=2, size=size)[index] for size in (40, 80))
        reduced = cv2.resize(large.mask, (40, 40), interpolation=cv2.INTER_AREA)
        assert small.sample_id == large.sample_id
        assert np.abs(reduced.astype(float) - small.mask).sum() < 0.15 * small.mask.sum()


def test_a_modified_sample_does_not_change_the_next() -> None:
    """The empty room is cached between samples: a caller that modifies a sample must not change the next one."""
    scenes = SceneSet(seed=3, backgrounds=1, per_background=2, size=32)
    kept = scenes[0].bg.copy()
    scenes[0].bg[:] = 0
    assert np.array_equal(scenes[1].bg, kept)


@pytest.mark.slow
def test_a_room_has_one_background(rooms: list[list[Sample]]) -> None:
    """A stored data set keeps a background once, by its id."""
    for number, samples in enumerate(rooms):
        assert {sample.bg_id for sample in samples} == {f"room{number:04d}"}
        assert all(np.array_equal(sample.bg, samples[0].bg) for sample in samples)
    assert len({samples[0].bg.tobytes() for samples in rooms}) == ROOMS


@pytest.mark.slow
def test_figures_reappear_in_other_rooms(rooms: list[list[Sample]]) -> None:
    """A split by foreground needs foregrounds that several backgrounds share."""
    pairs = {(sample.fg_id, sample.bg_id) for samples in rooms for sample in samples}
    figures = {figure for figure, _ in pairs}
    assert figures <= {f"figure{number:04d}" for number in range(64)}
    assert 10 < len(figures) < len(pairs)


def test_sample_ids_are_unique_and_made_of_their_parts(rooms: list[list[Sample]]) -> None:
    """Importers and splits tell samples apart by their ids."""
    ids = [sample.sample_id for samples in rooms for sample in samples]
    assert len(set(ids)) == ROOMS * EACH
    assert ids[EACH + 2] == f"room0001_{rooms[1][2].fg_id}_02"


def test_mask_area_is_bounded(rooms: list[list[Sample]]) -> None:
    """A figure that is hardly visible, or that hides the room, is useless for training."""
    shares = np.array([sample.mask.mean() / 255 for samples in rooms for sample in samples])
    assert shares.min() > 0.008
    assert shares.max() < 0.42


def test_masks_are_soft_only_at_edges(rooms: list[list[Sample]]) -> None:
    """Coverage of a pixel is between 0 and 1 where an edge runs through it, and nowhere else."""
    for sample in (samples[0] for samples in rooms):
        soft = (sample.mask > 0) & (sample.mask < 255)
        kernel = np.ones((3, 3), np.uint8)
        edge = cv2.dilate(sample.mask, kernel) != cv2.erode(sample.mask, kernel)
        assert soft.any()
        assert (edge | ~soft).all()


def test_depth_uses_all_levels(rooms: list[list[Sample]]) -> None:
    """Far is bright: 0 is the nearest of the image and 255 the farthest."""
    for sample in (sample for samples in rooms for sample in samples):
        assert (sample.depth.min(), sample.depth.max()) == (0, 255)


def test_depth_around_the_figure_is_that_of_the_room(rooms: list[list[Sample]]) -> None:
    """Outside their figures two images of a room show the same surfaces, in scales of their own."""
    for one, other, _ in rooms:
        _, misfit = _depth_in_scale_of(one, other)
        assert misfit < 0.5


def test_the_figure_is_in_front_of_the_room(rooms: list[list[Sample]]) -> None:
    """Where the mask is full, nothing of the room may be nearer than the figure."""
    checked = 0
    for one, other, _ in rooms:
        room_depth, _ = _depth_in_scale_of(one, other)
        where = _core(one) & _away_from(other)
        checked += int(where.sum())
        assert (one.depth[where] <= room_depth[where] + 2).all()
        if where.any():
            assert one.depth[where].mean() < room_depth[where].mean() - 2
    assert checked > 500


def test_feet_are_on_the_floor(rooms: list[list[Sample]]) -> None:
    """A figure that floats is nearer than the floor below its feet, and its depth and shadow are wrong."""
    standing = []
    for one, other, _ in rooms:
        room_depth, _ = _depth_in_scale_of(one, other)
        lowest = np.flatnonzero((one.mask == 255).any(axis=1))[-1]
        if lowest + 2 < SIZE:
            feet = (one.mask[lowest] == 255) & _away_from(other)[lowest + 2]
            if feet.any():
                standing.append((one.depth[lowest] > room_depth[lowest + 2] - 2)[feet].any())
    assert len(standing) >= ROOMS // 3
    assert np.mean(standing) > 0.8


def test_photographs_agree_away_from_the_figure(rooms: list[list[Sample]]) -> None:
    """Two shots differ by noise, exposure and shadow, and not by what they show."""
    for sample in (samples[0] for samples in rooms):
        apart = np.abs(sample.fg_bg.astype(float) - sample.bg).mean(axis=2)
        assert np.median(apart[_away_from(sample)]) < 25
        assert not np.array_equal(sample.fg_bg[_away_from(sample)], sample.bg[_away_from(sample)])


def test_a_threshold_does_not_find_the_mask(rooms: list[list[Sample]]) -> None:
    """The difference of the photographs must neither solve the task nor be useless for it."""
    samples = [sample for several in rooms for sample in several][:32]
    apart = np.stack([np.abs(sample.fg_bg.astype(float) - sample.bg).mean(axis=2) for sample in samples])
    figure = np.stack([sample.mask > 127 for sample in samples])
    best = 0.0
    for threshold in range(2, 80):
        found = apart > threshold
        overlap, either = (found & figure).sum(axis=(1, 2)), (found | figure).sum(axis=(1, 2))
        best = max(best, float((overlap / either).mean()))
    assert 0.2 < best < 0.85


def test_length_is_rooms_times_samples_per_room() -> None:
    """Python's default iteration reads indices until an `IndexError`."""
    scenes = SceneSet(seed=0, backgrounds=2, per_background=2, size=32)
    assert len(scenes) == 4
    assert [sample.bg_id for sample in scenes] == ["room0000"] * 2 + ["room0001"] * 2
    with pytest.raises(IndexError, match="index -1"):
        scenes[-1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("backgrounds", 0),
        ("per_background", 0),
        ("size", 31),
        ("size", 1025),
        ("size", 64.0),
        ("seed", True),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object) -> None:
    """The error names the value, before anything is rendered."""
    values = {"seed": 0, "backgrounds": 1, "per_background": 1, "size": 64, field: value}
    with pytest.raises(InputError, match=f"The value of '{field}' is {value!r}, but must be an integer"):
        SceneSet(**values)  # type: ignore[arg-type]
