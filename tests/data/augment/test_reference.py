"""Colours on the CPU against albumentations' functions of the same names, with the same parameters."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.augment.cpu import Augmenter, SampleImages
from data.augment.draws import BY_RGB, HUE
from data.schema import Pixels

SIDE = 48
HUE_STEPS = 26
"""Levels of three steps of hue at full saturation: there it has 180, and is cut off and not rounded."""


@functools.cache
def reference() -> Any:
    """albumentations, without its look for a newer version on the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
        from albumentations.augmentations.pixel import functional

    return functional


def stacks(seed: int = 0) -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Twelve samples of colours that light can change without leaving 0..255 everywhere."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 8, 8, 8), np.uint8)
    eight = np.stack([cv2.resize(one, (SIDE, SIDE)) for one in coarse])
    bg, fg_bg, mask, depth = (part.copy() for part in np.split(eight, [3, 6, 7], axis=3))
    return bg, fg_bg, mask[..., 0], depth[..., 0]


def changed(strengths: dict[str, Any]) -> tuple[SampleImages, Any]:
    """Changed stacks, and what was drawn for them."""
    given, augmenter = stacks(), Augmenter(**strengths)
    drawn = augmenter.draw(len(given[2]), SIDE, SIDE, np.random.default_rng((5, 6)))
    augmenter.change(given, 5, 6)
    return SampleImages(*given), drawn


def apart(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    return np.abs(left.astype(np.int64) - right)


@pytest.mark.parametrize("strengths", [{"jitter": 0.5}, {"hue": 0.5}, {"jitter": 0.15, "hue": 0.15}])
def test_jitter_agrees_with_the_reference(strengths: dict[str, Any]) -> None:
    """Each change clips and rounds before the next, in the drawn order; there, what is between levels is cut off."""
    steps = [
        reference().adjust_brightness_torchvision,
        reference().adjust_contrast_torchvision,
        reference().adjust_saturation_torchvision,
        reference().adjust_hue_torchvision,
    ]
    pictures, drawn = changed(strengths)
    for place, (new, old) in enumerate(zip(pictures[:2], stacks()[:2], strict=True)):
        for index, photo in enumerate(old):
            wanted = photo
            for kind in drawn.jitter.order[index, place]:
                wanted = steps[kind](wanted, drawn.jitter.factor[index, place, kind])
            difference = apart(new[index], wanted)
            assert difference.mean() < (3 if HUE in drawn.jitter.order else 1.5)
            assert difference.max() <= (HUE_STEPS if HUE in drawn.jitter.order else 5)


def test_shifts_agree_with_the_reference() -> None:
    """By red, green and blue, or by hue, saturation and value, which greys have none of."""
    pictures, drawn = changed({"shift": 1.0})
    kinds = drawn.shift.kind[:, 0]
    assert len(set(kinds.tolist())) == 2
    for new, old, kind, levels in zip(pictures.bg, stacks()[0], kinds, drawn.shift.levels[:, 0], strict=True):
        if kind == BY_RGB:
            assert apart(new, np.clip(old + levels, 0, 255)).max() <= 1
        else:
            difference = apart(new, reference().shift_hsv(old, *levels.tolist()))
            assert difference.mean() < 3
            assert difference.max() <= HUE_STEPS
