"""Polarity of depth: it is decided only from the depth of foregrounds."""

from __future__ import annotations

import numpy as np

from data.importers.polarity import measure_polarity
from data.schema import Pixels


def mask_at(x: int) -> Pixels:
    """(64, 64), 16 pixels wide from column `x`."""
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, x : x + 16] = 255
    return mask


def test_polarity_is_not_misled_by_a_rooms_gradient() -> None:
    """Depth that misses the foreground, but falls to the floor, must not count as an answer."""
    masks = [mask_at(x) for x in range(4, 40)]
    gradient = np.linspace(255, 0, 64).astype(np.uint8)[:, None].repeat(64, axis=1)
    lower = [np.roll(mask, 12, axis=0) for mask in masks]

    assert measure_polarity((mask, gradient) for mask in lower).name is None


def test_polarity_of_scattered_differences_is_not_clear() -> None:
    """With many samples, a difference must stand out of its own spread."""
    mask = mask_at(20)
    depths = [np.where(mask > 127, np.uint8(level), np.uint8(110)) for level in [90] * 37 + [130] * 23]

    measured = measure_polarity((mask, depth) for depth in depths)

    assert measured.samples == 60
    assert measured.difference > 1
    assert measured.agreement >= 0.6
    assert measured.name is None


def test_polarity_ignores_samples_without_a_foreground() -> None:
    """An empty mask, or one that fills the image, has nothing to compare."""
    depth = np.full((64, 64), 9, np.uint8)
    empty, full = np.zeros_like(depth), np.full_like(depth, 255)

    assert measure_polarity([(empty, depth), (full, depth)]).samples == 0


def test_few_samples_need_a_large_difference_of_one_sign() -> None:
    """One published sample says the contrary of its data set by 17 levels, so few of them must be sure."""
    mask = mask_at(20)

    def measured(*inside: int) -> str | None:
        flat = (np.where(mask > 127, np.uint8(level), np.uint8(120)) for level in inside)
        return measure_polarity((mask, depth) for depth in flat).name

    assert measured(90) == "far-bright"
    assert measured(150) == "near-bright"
    assert measured(105) is None
    assert measured(20, 20, 130) is None
