"""Validity masks in augmentation: they follow the geometry of the depth, and never declare what was not measured."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.augment.cpu import Augmenter, SampleImages
from data.augment.device import DeviceAugmenter
from data.augment.erase import Erase
from data.augment.transforms import Transforms
from data.schema import Batch, Pixels

SIDE, COUNT, KEY = 48, 24, (3, 1, 0, 7)
WARPS: list[dict[str, Any]] = [
    {"rotate": 30.0},
    {"zoom": 0.5},
    {"hflip": 0.5, "vflip": 0.3, "rotate": 45.0, "rotate_p": 0.5, "zoom": 0.4},
]
COLOURS: dict[str, Any] = {"jitter": 0.3, "hue": 0.2, "shift": 0.8, "noise": 0.1, "erase": Erase(p=1.0, count=3)}


def images(level: int | None = None) -> tuple[SampleImages, Pixels]:
    """Noise, with invalid blobs; invalid depth is `level`, or noise."""
    rng = np.random.default_rng(0)
    bg, fg_bg = (rng.integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8) for _ in range(2))
    mask, depth = (rng.integers(0, 256, (COUNT, SIDE, SIDE), np.uint8) for _ in range(2))
    coarse = [cv2.GaussianBlur(rng.random((SIDE, SIDE)), (0, 0), 3) for _ in range(COUNT)]
    valid = np.stack([np.where(each > np.quantile(each, 0.3), 255, 0) for each in coarse]).astype(np.uint8)
    if level is not None:
        depth = np.where(valid, depth, level).astype(np.uint8)
    return SampleImages(bg, fg_bg, mask, depth), valid


def on_cpu(given: tuple[SampleImages, Pixels], strengths: dict[str, Any]) -> tuple[SampleImages, Pixels]:
    copies, valid = SampleImages(*(stack.copy() for stack in given[0])), given[1].copy()
    Augmenter(**strengths).change(copies, *KEY, valid=valid)
    return copies, valid


def on_device(given: tuple[SampleImages, Pixels], strengths: dict[str, Any]) -> tuple[SampleImages, Pixels]:
    bg, fg_bg, mask, depth, valid = (torch.from_numpy(stack.copy()) for stack in (*given[0], given[1]))
    batch = Batch(
        bg=bg.permute(0, 3, 1, 2),
        fg_bg=fg_bg.permute(0, 3, 1, 2),
        mask=mask[:, None],
        depth=depth[:, None],
        valid=valid[:, None],
    )
    found = DeviceAugmenter(**strengths)(batch, *KEY)
    assert found.valid is not None
    photos = (photo.permute(0, 2, 3, 1).numpy() for photo in (found.bg, found.fg_bg))
    return SampleImages(*photos, found.mask[:, 0].numpy(), found.depth[:, 0].numpy()), found.valid[:, 0].numpy()


@pytest.mark.parametrize("augment", [on_cpu, on_device])
def test_flips_move_the_mask_with_the_depth(augment: Any) -> None:
    """Here the depth is the mask, so they must stay equal."""
    (bg, fg_bg, mask, _), valid = images()
    found, moved = augment((SampleImages(bg, fg_bg, mask, valid), valid), {"hflip": 0.5, "vflip": 0.5})

    np.testing.assert_array_equal(moved, found.depth)
    assert (moved != valid).any()


@pytest.mark.parametrize("augment", [on_cpu, on_device])
def test_published_independent_flips_leave_mask_and_depth(augment: Any) -> None:
    """The targets of that project are never flipped, and so their validity is not."""
    given = images()
    _, moved = augment(given, {"hflip": 0.5, "flips_apart": True})

    np.testing.assert_array_equal(moved, given[1])


@pytest.mark.parametrize("augment", [on_cpu, on_device])
@pytest.mark.parametrize("strengths", WARPS)
def test_invalid_levels_have_no_influence_on_valid_pixels(augment: Any, strengths: dict[str, Any]) -> None:
    """Interpolation mixes neighbours: a pixel beside a hole must not take its level."""
    found, valid = augment(images(level=0), strengths)
    other, same = augment(images(level=255), strengths)

    np.testing.assert_array_equal(valid, same)
    assert set(np.unique(valid)) == {0, 255}
    np.testing.assert_array_equal(found.depth[valid > 0], other.depth[valid > 0])


def one_by_one(valid: Pixels, warp: NDArray[np.float64]) -> tuple[Pixels, NDArray[np.bool_]]:
    """A warped mask (H, W) pixel by pixel, and where the nearest source is clear: not halfway between two pixels."""
    found, is_clear = np.zeros_like(valid), np.zeros(valid.shape, np.bool_)
    for y, x in np.ndindex(valid.shape):
        source = warp @ (x, y, 1)
        column, row = np.rint(source).astype(int)
        is_clear[y, x] = np.abs(np.abs(source - np.rint(source)) - 0.5).min() > 0.05
        if 0 <= row < SIDE and 0 <= column < SIDE:
            around = valid[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            found[y, x] = around.min()
    return found, is_clear


@pytest.mark.slow
@pytest.mark.parametrize("augment", [on_cpu, on_device])
@pytest.mark.parametrize("strengths", WARPS[:2])
def test_warped_mask_follows_its_definition(augment: Any, strengths: dict[str, Any]) -> None:
    """The nearest pixel and those around it must be valid, and in the image."""
    given = images()
    warps = Augmenter(**strengths).draw(COUNT, SIDE, SIDE, np.random.default_rng(KEY)).warps

    _, moved = augment(given, strengths)

    for before, after, warp in zip(given[1], moved, warps, strict=True):
        expected, is_clear = one_by_one(before, warp)
        np.testing.assert_array_equal(after[is_clear], expected[is_clear])
        assert is_clear.mean() > 0.7


@pytest.mark.parametrize("augment", [on_cpu, on_device])
def test_pixels_from_outside_are_invalid(augment: Any) -> None:
    """A rotation fills the corners with a reflection, which is no measurement."""
    given, _ = images()
    _, valid = augment((given, np.full((COUNT, SIDE, SIDE), 255, np.uint8)), {"rotate": 45.0})

    corners = valid[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).mean() > 0.8
    assert (valid[:, SIDE // 2, SIDE // 2] == 255).all()


@pytest.mark.parametrize("strengths", WARPS)
def test_device_agrees_with_the_cpu(strengths: dict[str, Any]) -> None:
    """Except where rounding chooses another nearest pixel."""
    _, left = on_cpu(images(), strengths)
    _, right = on_device(images(), strengths)

    assert (left != right).mean() < 0.01
    for one, other in zip(left, right, strict=True):
        near = cv2.dilate(one, np.ones((3, 3))), cv2.erode(one, np.ones((3, 3)))
        assert ((near[1] <= other) & (other <= near[0])).all()


@pytest.mark.parametrize("augment", [on_cpu, on_device])
def test_colours_and_erasing_leave_the_mask(augment: Any) -> None:
    """They change the inputs, not what the sensor measured."""
    given = images()
    _, valid = augment(given, COLOURS)

    np.testing.assert_array_equal(valid, given[1])


def test_listed_transforms_get_the_mask() -> None:
    """Those of albumentations follow the built-in ones, and move the mask with the depth."""
    (bg, fg_bg, mask, _), valid = images()
    strengths = {"transforms": Transforms({"HorizontalFlip": {"p": 0.5}, "Transpose": {"p": 0.5}}), "vflip": 0.5}

    found, moved = on_cpu((SampleImages(bg, fg_bg, mask, valid), valid), strengths)

    np.testing.assert_array_equal(moved, found.depth)
    assert (moved != valid).any()


def test_a_mask_changes_nothing_else() -> None:
    """The random numbers and the four images are those of a data set without masks."""
    everything = {**WARPS[-1], **COLOURS}
    given, valid = images()
    plain = SampleImages(*(stack.copy() for stack in given))
    Augmenter(**everything).change(plain, *KEY)

    found, _ = on_cpu((given, valid), everything)

    for left, right in zip(plain, found, strict=True):
        np.testing.assert_array_equal(left, right)
