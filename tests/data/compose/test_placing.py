"""Placements that are drawn together are those of a plain search, one sample at a time."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.compose.composition import Composition
from data.compose.draws import Draws
from data.compose.grounds import GROUND_TOP, Scene, Scenes, find_ground
from data.compose.placing import FEET_HEIGHT, MAX_CANDIDATES, MAX_PROTRUSION, place
from data.composed.rendering import cutout_size, scaled_cutout
from data.schema import Pixels

if TYPE_CHECKING:
    from numpy.typing import NDArray


def scene(name: str, depth: Pixels) -> Scene:
    return Scene(bg_id=name, encoded=b"", bg=np.dstack([depth] * 3), depth=depth, ground=find_ground(depth))


def composition(size: int, low: float, high: float, seed: int, placements: int = 4) -> Composition:
    return Composition(
        backgrounds=Path(),
        foregrounds=Path(),
        depths=Path(),
        depth_unit="mm",
        placements=placements,
        flips=True,
        size=size,
        scale=(low, high),
        seed=seed,
    )


def placed_plainly(
    options: Composition, room: Scene, fg_id: str, rgba: Pixels, flip: int, number: int
) -> tuple[int, int, int, int, int]:
    """Height, width, top, left and level: the rules of `place`, written as a loop over positions."""
    names = (int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") for name in (room.bg_id, fg_id))
    key = (*names, flip, number)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(options.seed, spawn_key=key)))
    size, longest = options.size, max(1, round(rng.uniform(*options.scale) * options.size))
    height, width = cutout_size(rgba.shape[0], rgba.shape[1], longest)
    alpha = scaled_cutout(rgba, height, width, mirrored=bool(flip)).alpha
    opaque = alpha > 127
    covered = opaque if opaque.any() else alpha >= alpha.max()
    lowest = int(np.flatnonzero(covered.any(axis=1))[-1])
    feet = np.zeros_like(covered)
    first = max(0, lowest + 1 - max(1, round(FEET_HEIGHT * height)))
    feet[first : lowest + 1] = covered[first : lowest + 1]
    columns = np.flatnonzero(feet.any(axis=0))
    middle = int(columns[0] + columns[-1]) // 2
    allowed = room.ground[lowest : lowest + size - height + 1, middle : middle + size - width + 1]
    if not allowed.any():
        allowed = np.zeros((size - height + 1, size - width + 1), np.bool_)
        allowed[min(max(0, round(GROUND_TOP * size) - lowest), size - height) :] = True
    candidates = np.flatnonzero(allowed)
    best, least, level = (0, 0), 256, 255
    for _ in range(MAX_CANDIDATES):
        top, left = divmod(int(candidates[rng.integers(len(candidates))]), allowed.shape[1])
        behind = room.depth[top : top + height, left : left + width]
        under_feet = np.sort(behind[feet])
        protrusion = int(under_feet[len(under_feet) // 2]) - int(behind[covered].min())
        if protrusion < least:
            best, least = (top, left), protrusion
            level = int(behind[opaque].min()) if opaque.any() else 255
        if least <= MAX_PROTRUSION:
            break
    return height, width, *best, level


def depth_of_a_room(rng: np.random.Generator, size: int) -> Pixels:
    """A wall above a floor, with boxes in front of them."""
    floor = np.clip(np.linspace(400, 60, size), 0, 200).astype(np.uint8)[:, None].repeat(size, axis=1)
    for _ in range(rng.integers(0, 4)):
        top, left = rng.integers(0, size, 2)
        floor[top : top + size // 3, left : left + size // 4] = rng.integers(0, 200)
    return floor


def ragged_cutout(rng: np.random.Generator, height: int, width: int) -> Pixels:
    rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    rgba[rng.integers(height), rng.integers(width), 3] = 255
    return rgba


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([32, 61, 96]),
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    low=st.floats(0.05, 1),
    seed=st.integers(0, 2**63 - 1),
    flat=st.booleans(),
)
def test_placements_follow_the_rules(size: int, shape: tuple[int, int], low: float, seed: int, flat: bool) -> None:
    """On rooms with a floor and without, for foregrounds of any form and size, in both directions."""
    rng = np.random.default_rng(seed)
    depths = [np.full((size, size), 90, np.uint8) if flat else depth_of_a_room(rng, size) for _ in range(3)]
    rooms = [scene(f"room{number}", depth) for number, depth in enumerate(depths)]
    options = composition(size, low, min(1.0, low * 1.5), seed)
    rgba = ragged_cutout(rng, *shape)
    placed = place(options, Scenes(rooms), "thing", rgba)
    columns = [placed.height, placed.width, placed.top, placed.left, placed.level]
    for index in np.ndindex(3, 2, options.placements):
        found = tuple(int(column[index]) for column in columns)
        assert found == placed_plainly(options, rooms[index[0]], "thing", rgba, index[1], index[2])


def test_refused_draws_are_drawn_as_numpy_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are too rare to wait for: here, every other one counts as refused."""
    plain = Draws.indices

    def refusing(draws: Draws, number: int, counts: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rows % 2 == 0, -1, plain(draws, number, counts, rows))

    monkeypatch.setattr(Draws, "indices", refusing)
    rng = np.random.default_rng(0)
    rooms = [scene(f"room{number}", depth_of_a_room(rng, 64)) for number in range(3)]
    options, rgba = composition(64, 0.2, 0.5, 0), ragged_cutout(rng, 20, 10)
    placed = place(options, Scenes(rooms), "thing", rgba)
    for index in np.ndindex(3, 2, options.placements):
        expected = placed_plainly(options, rooms[index[0]], "thing", rgba, index[1], index[2])
        assert (int(placed.top[index]), int(placed.left[index])) == expected[2:4]


def test_short_hashes_are_keys_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose hash fits into 32 bits has a key of fewer words; no such name is known, so its hash is set here."""
    rng = np.random.default_rng(0)
    rooms = [scene(f"room{number}", depth_of_a_room(rng, 64)) for number in range(4)]
    options = composition(64, 0.2, 0.5, 0)
    scenes = Scenes(rooms)
    before = scenes.draws(options.seed, "thing", 2, 4).fractions.reshape(4, -1)
    scenes._hashes[1] = 77
    after = scenes.draws(options.seed, "thing", 2, 4).fractions.reshape(4, -1)
    np.testing.assert_array_equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert after[1, 0] == scenes.generator(options.seed, "thing", 1, 0, 0).random()


def test_samples_that_are_tried_together_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many fit into memory depends on the outline: a ragged one has thousands of ranges."""
    rng = np.random.default_rng(0)
    rooms = [scene(f"room{number}", depth_of_a_room(rng, 64)) for number in range(3)]
    options, rgba = composition(64, 0.2, 0.9, 0), ragged_cutout(rng, 40, 30)
    together = place(options, Scenes(rooms), "thing", rgba)
    monkeypatch.setattr("data.compose.placing.MAX_OFFSETS", 300)
    apart = place(options, Scenes(rooms), "thing", rgba)
    for name in ("height", "width", "top", "left", "level"):
        np.testing.assert_array_equal(getattr(apart, name), getattr(together, name))


def test_scenes_are_whole_in_another_process() -> None:
    """They are sent without the tables that are computed from them."""
    rng = np.random.default_rng(0)
    scenes = Scenes([scene(f"room{number}", depth_of_a_room(rng, 61)) for number in range(2)])
    sent = pickle.loads(pickle.dumps(scenes))  # noqa: S301 - it was made in the line itself
    for name in ("depth", "ground", "nearest"):
        np.testing.assert_array_equal(getattr(sent, name), getattr(scenes, name))
    assert len(pickle.dumps(scenes)) < 3 * scenes.depth.size
