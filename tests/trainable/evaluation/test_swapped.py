"""Swapped photographs: the one with the object has an edge where the two begin to differ."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.images import decode_photo, resize_to
from data.scenes.scenes import SceneSet
from data.schema import Pixels
from trainable.evaluation.swapped import look_swapped, outline_score

SCENES = 24


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Pixels, Pixels]]:
    """Backgrounds, and the same with a figure."""
    scenes = SceneSet(seed=11, backgrounds=SCENES, per_background=1, size=96)
    samples = [scenes[index] for index in range(SCENES)]
    return [(sample.bg, sample.fg_bg) for sample in samples]


@pytest.mark.slow
def test_swapped_scenes_are_recognised(pairs: list[tuple[Pixels, Pixels]]) -> None:
    """The rate that was measured on many is 98 %."""
    assert sum(look_swapped(fg_bg, bg) for bg, fg_bg in pairs) >= 0.9 * SCENES


@pytest.mark.slow
def test_scenes_in_the_right_order_do_not_look_swapped(pairs: list[tuple[Pixels, Pixels]]) -> None:
    """Users ignore a warning that is mostly wrong."""
    assert not any(look_swapped(bg, fg_bg) for bg, fg_bg in pairs)


@pytest.mark.slow
def test_score_changes_sign_with_the_order(pairs: list[tuple[Pixels, Pixels]]) -> None:
    """The order of the inputs makes no difference."""
    for bg, fg_bg in pairs:
        right, swapped = outline_score(bg, fg_bg), outline_score(fg_bg, bg)
        assert right is not None
        assert swapped is not None
        assert right == pytest.approx(-swapped, abs=0.15)  # the exposure is fitted to the first of the two


@pytest.mark.slow
@pytest.mark.parametrize("gain", [0.8, 1.1])
def test_another_exposure_changes_little(pairs: list[tuple[Pixels, Pixels]], gain: float) -> None:
    """Automatic exposure changes the whole photograph when a person enters."""
    brighter = [(bg, np.clip(fg_bg * gain, 0, 255).astype(np.uint8)) for bg, fg_bg in pairs]

    assert sum(look_swapped(fg_bg, bg) for bg, fg_bg in brighter) >= 0.85 * SCENES
    assert not any(look_swapped(bg, fg_bg) for bg, fg_bg in brighter)


def test_equal_photographs_have_no_score() -> None:
    """Twice the same file, noise alone, or nothing in common."""
    rng = np.random.default_rng(0)
    photo = np.asarray(cv2.GaussianBlur(rng.integers(0, 256, (60, 80, 3), np.uint8), (0, 0), 4), np.uint8)
    noisy = np.clip(photo + rng.normal(0, 3, photo.shape), 0, 255).astype(np.uint8)

    assert outline_score(photo, photo) is None
    assert outline_score(photo, noisy) is None
    assert outline_score(np.zeros_like(photo), np.full_like(photo, 255)) is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 9, 3), (7, 7, 3), (40, 3, 3)])
def test_tiny_photographs_have_no_score(shape: tuple[int, int, int]) -> None:
    """The check must not fail a prediction for images of any size."""
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, shape, np.uint8) for _ in range(2))

    assert not look_swapped(first, second)


@pytest.mark.slow
def test_large_photographs_are_judged_as_small_ones(pairs: list[tuple[Pixels, Pixels]]) -> None:
    """Photographs of a phone have 12 million pixels."""
    for bg, fg_bg in pairs[:3]:
        larger = [resize_to(photo, 1200, 1200) for photo in (bg, fg_bg)]
        reduced = [resize_to(photo, 224, 224) for photo in larger]

        assert outline_score(larger[0], larger[1]) == pytest.approx(outline_score(reduced[0], reduced[1]), abs=0.02)


@pytest.mark.slow
def test_real_pairs_are_recognised() -> None:
    """Every tenth of those that the rates were measured on, and all that people published."""
    if "TWINHEAD_REAL" not in os.environ:
        pytest.skip("TWINHEAD_REAL does not name a folder of real images")
    root = Path(os.environ["TWINHEAD_REAL"])
    with (root / "index_quads.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    chosen = [row for number, row in enumerate(rows) if number % 10 == 0 or row["bg"].startswith("eva4")]
    found = []
    for row in chosen:
        bg, fg_bg = (decode_photo((root / row[role]).read_bytes(), row[role]) for role in ("bg", "fg_bg"))
        bg = resize_to(bg, *fg_bg.shape[:2])
        found.append((look_swapped(fg_bg, bg), look_swapped(bg, fg_bg)))
    hits, false_alarms = np.mean(found, axis=0)

    assert len(found) > 70
    assert hits > 0.88
    assert false_alarms < 0.02
