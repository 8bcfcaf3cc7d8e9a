"""Augmentation on the device: the same random values as `Augmenter`, applied to a whole batch."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data.augment.cpu import Augmenter, SampleImages
from data.augment.device import DeviceAugmenter, is_on_device
from data.augment.erase import Erase
from data.schema import Batch, Pixels

SIDE, COUNT = 48, 40
KEY = (3, 1, 0, 7)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GEOMETRIES: list[dict[str, Any]] = [
    {"hflip": 0.5},
    {"vflip": 0.5},
    {"rotate": 30.0},
    {"zoom": 0.5},
    {"hflip": 0.5, "vflip": 0.3, "rotate": 45.0, "rotate_p": 0.7, "zoom": 0.5},
]
COLOURS: list[dict[str, Any]] = [{"jitter": 0.3}, {"hue": 0.3}, {"jitter": 0.15, "hue": 0.15}, {"shift": 0.8}]
EVERYTHING: dict[str, Any] = {**GEOMETRIES[-1], "jitter": 0.2, "hue": 0.1, "shift": 0.5, "erase": Erase(p=0.5, count=2)}


def pattern(seed: int, channels: int) -> Pixels:
    """(COUNT, SIDE, SIDE, channels): smooth, so that interpolation costs little, and without any symmetry."""
    coarse = np.random.default_rng(seed).integers(0, 256, (COUNT, 8, 8, channels), np.uint8)
    smooth = [cv2.resize(one, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for one in coarse]
    return np.stack(smooth).reshape(COUNT, SIDE, SIDE, channels)


def different() -> SampleImages:
    return SampleImages(pattern(1, 3), pattern(2, 3), pattern(3, 1)[..., 0], pattern(4, 1)[..., 0])


def alike() -> SampleImages:
    """The same thing in all four images of a sample."""
    plane = pattern(5, 1)
    photo = np.repeat(plane, 3, axis=3)
    return SampleImages(photo, photo.copy(), plane[..., 0].copy(), plane[..., 0].copy())


def flat(level: int) -> SampleImages:
    photo = np.full((COUNT, SIDE, SIDE, 3), level, np.uint8)
    return SampleImages(photo, photo.copy(), photo[..., 0].copy(), photo[..., 0].copy())


def batch_of(pictures: SampleImages, device: str) -> Batch:
    bg, fg_bg, mask, depth = (torch.from_numpy(stack.copy()) for stack in pictures)
    photos = bg.permute(0, 3, 1, 2), fg_bg.permute(0, 3, 1, 2)
    return Batch(bg=photos[0], fg_bg=photos[1], mask=mask[:, None], depth=depth[:, None]).to(torch.device(device))


def pictures_of(batch: Batch) -> SampleImages:
    photos = (photo.permute(0, 2, 3, 1).cpu().numpy() for photo in (batch.bg, batch.fg_bg))
    return SampleImages(*photos, batch.mask[:, 0].cpu().numpy(), batch.depth[:, 0].cpu().numpy())


def on_device(pictures: SampleImages, strengths: dict[str, Any], device: str = "cpu", key: Any = KEY) -> Any:
    return pictures_of(DeviceAugmenter(**strengths)(batch_of(pictures, device), *key))


def on_cpu(pictures: SampleImages, strengths: dict[str, Any], key: Any = KEY) -> SampleImages:
    copies = SampleImages(*(stack.copy() for stack in pictures))
    Augmenter(**strengths).change(copies, *key)
    return copies


def apart(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    return np.abs(left.astype(np.int64) - right)


def same(left: SampleImages, right: SampleImages) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("side", ["augmenter", *DEVICES])
@pytest.mark.parametrize("strengths", GEOMETRIES)
def test_four_images_of_a_sample_stay_aligned(strengths: dict[str, Any], side: str) -> None:
    """A mask that is a pixel off its photograph teaches the network to be a pixel off."""
    original = alike()
    changed = on_cpu(original, strengths) if side == "augmenter" else on_device(original, strengths, side)
    for plane in (changed.bg.max(axis=3), changed.fg_bg.min(axis=3), changed.fg_bg.max(axis=3), changed.depth):
        assert apart(plane, changed.mask).max() <= 1
    moved = apart(changed.mask, original.mask).max(axis=(1, 2)) > 30
    assert moved.sum() > 5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("strengths", [*GEOMETRIES, {"flips_apart": True, "hflip": 0.5, "rotate": 20.0}])
def test_geometry_agrees_with_the_cpu_within_a_level(strengths: dict[str, Any], device: str) -> None:
    """OpenCV's warp is the reference: half a pixel between the two would show as tens of levels."""
    for left, right in zip(on_device(different(), strengths, device), on_cpu(different(), strengths), strict=True):
        assert apart(left, right).max() <= 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("strengths", [*COLOURS, EVERYTHING])
def test_colours_agree_with_the_cpu_within_a_few_levels(strengths: dict[str, Any], device: str) -> None:
    """A recipe means the same wherever it runs; OpenCV rounds hue to one of 256, which is six levels of a colour."""
    ours, reference = on_device(different(), strengths, device), on_cpu(different(), strengths)
    for left, right in zip(ours[:2], reference[:2], strict=True):
        assert apart(left, right).mean() < 1.5
        assert np.quantile(apart(left, right), 0.99) <= 8
    assert apart(ours.mask, reference.mask).max() <= 1
    assert apart(ours.depth, reference.depth).max() <= 1


@pytest.mark.parametrize("device", DEVICES)
def test_erased_rectangles_agree_with_the_cpu(device: str) -> None:
    """Erasing is exact: the same rectangles in the same colour."""
    erase = Erase(
        p=0.5, count=3, bg_scale=0.5, crosses_border=True, bg_fill=(1.4, 2.0, 3.0), fg_bg_fill=(9.0, 8.0, 7.0)
    )
    changed = on_device(flat(200), {"erase": erase}, device)
    assert same(changed, on_cpu(flat(200), {"erase": erase}))
    assert 0 < (changed.bg == (1, 2, 3)).all(axis=3).any(axis=(1, 2)).sum() < COUNT


@pytest.mark.parametrize("device", DEVICES)
def test_noise_strength_agrees_with_the_cpu(device: str) -> None:
    """Its values are the device's own, but whether a photograph has any, and how much, is not."""
    strengths = {"noise": 0.1, "noise_low": 0.02}
    ours, reference = on_device(flat(128), strengths, device), on_cpu(flat(128), strengths)
    for left, right in zip(ours[:2], reference[:2], strict=True):
        ours_spread, reference_spread = left.std(axis=(1, 2, 3)), right.std(axis=(1, 2, 3))
        assert 5 < (reference_spread > 0).sum() < COUNT - 5
        np.testing.assert_allclose(ours_spread, reference_spread, rtol=0.06)
        noisy = left[ours_spread > 0] - 128.0
        assert np.abs(noisy.mean(axis=(1, 2, 3)) / noisy.std(axis=(1, 2, 3))).max() < 5 / np.sqrt(3 * SIDE**2)
    planes = [photo[:, :, :, channel][spread > 0].ravel()[: SIDE**2] for photo, spread in zip(
        ours[:2], [photo.std(axis=(1, 2, 3)) for photo in ours[:2]], strict=True
    ) for channel in range(3)]  # fmt: skip
    assert np.abs(np.corrcoef(planes) - np.eye(6)).max() < 5 / SIDE


@pytest.mark.parametrize("device", DEVICES)
def test_noise_of_one_plane_keeps_grey_grey(device: str) -> None:
    """A network that sees grey gets the whole strength, and not that of a mean over three channels."""
    strengths = {"noise": 0.05, "noise_low": 0.05, "noise_per_channel": False}
    ours, reference = on_device(flat(128), strengths, device), on_cpu(flat(128), strengths)
    for left, right in zip(ours[:2], reference[:2], strict=True):
        assert np.ptp(left.astype(int), axis=3).max() == np.ptp(right.astype(int), axis=3).max() == 0
        ours_spread, reference_spread = left.std(axis=(1, 2, 3)), right.std(axis=(1, 2, 3))
        assert 5 < (reference_spread > 0).sum() < COUNT - 5
        np.testing.assert_allclose(ours_spread, reference_spread, rtol=0.1)
        assert ours_spread[ours_spread > 0].mean() == pytest.approx(0.05 * 255, rel=0.02)


@pytest.mark.parametrize("side", ["augmenter", *DEVICES])
def test_brightness_is_uniform_in_its_range_and_drawn_for_each_photograph(side: str) -> None:
    """A grey photograph shows the factor itself: contrast and saturation leave it alone."""
    factors: list[NDArray[Any]] = []
    for number in range(20):
        key = (1, 1, 0, number)
        given, strengths = flat(160), {"jitter": 0.3}
        changed = on_cpu(given, strengths, key) if side == "augmenter" else on_device(given, strengths, side, key)
        factors.append(np.stack([changed.bg[:, 0, 0, 0], changed.fg_bg[:, 0, 0, 0]]) / 160)
    bg, fg_bg = np.concatenate(factors, axis=1)
    for drawn in (bg, fg_bg):
        assert abs(drawn.mean() - 1) < 5 * 0.3 / np.sqrt(3 * len(drawn))
        assert abs(drawn.std() / (0.3 / np.sqrt(3)) - 1) < 0.1
        assert drawn.min() > 0.69
        assert drawn.max() < 1.31
    assert abs(np.corrcoef(bg, fg_bg)[0, 1]) < 5 / np.sqrt(len(bg))


@pytest.mark.parametrize("device", DEVICES)
def test_grey_stays_grey_when_colours_shift_after_jitter(device: str) -> None:
    """In floats a grey has a trace of hue, which a shift of saturation would bring out as a tint."""
    plane = np.tile(np.linspace(30, 220, SIDE).astype(np.uint8), (COUNT, SIDE, 1))
    photo = np.repeat(plane[..., None], 3, axis=3)
    given = SampleImages(photo, photo.copy(), plane, plane.copy())
    strengths = {"jitter": 0.3, "hue": 0.2, "shift": 1.0}
    drawn = DeviceAugmenter(**strengths).draw(COUNT, SIDE, SIDE, np.random.default_rng(KEY))
    assert drawn.shift is not None
    by_hsv = on_device(given, strengths, device).bg[drawn.shift.kind[:, 0] == 2]
    assert len(by_hsv) > 5
    assert np.ptp(by_hsv.astype(int), axis=3).max() == 0


@pytest.mark.parametrize("device", DEVICES)
def test_published_errors_can_be_reproduced(device: str) -> None:
    """Flips of either photograph alone, and light and noise that change what is to be predicted."""
    given = alike()
    flipped = on_device(given, {"hflip": 0.5, "flips_apart": True}, device)
    assert np.array_equal(flipped.mask, given.mask)
    sides = [(photo != given.bg).any(axis=(1, 2, 3)) for photo in flipped[:2]]
    assert (sides[0] != sides[1]).any()
    strengths = {"jitter": 0.3, "noise": 0.05, "noise_low": 0.05, "noise_p": 0.5, "targets_too": True}
    lit, reference = on_device(flat(160), strengths, device), on_cpu(flat(160), strengths)
    for left, right in zip(lit, reference, strict=True):
        means = [changed.reshape(COUNT, -1).mean(axis=1) for changed in (left, right)]
        assert np.abs(means[0] - means[1]).max() < 2
        assert means[0].std() > 10
    assert not np.array_equal(lit.mask, lit.depth)


@pytest.mark.parametrize("device", DEVICES)
def test_key_determines_the_augmentation(device: str) -> None:
    """A resumed trial sees the images that it would have seen, and other epochs, workers and batches see others."""
    strengths = {**EVERYTHING, "noise": 0.1}
    first = on_device(different(), strengths, device)
    torch.manual_seed(9)
    assert same(first, on_device(different(), strengths, device))
    for place in range(4):
        other = list(KEY)
        other[place] += 1
        assert not any(map(np.array_equal, first, on_device(different(), strengths, device, other)))


@pytest.mark.parametrize("device", DEVICES)
def test_output_follows_the_schema_and_the_input_is_unchanged(device: str) -> None:
    """Models and losses take it as it is; photographs lie channels-last, which convolutions are fast on."""
    given, copy = batch_of(different(), device), different()
    for strengths in ({}, {"hflip": 0.5}, {**EVERYTHING, "noise": 0.1}, {**EVERYTHING, "targets_too": True}):
        changed = DeviceAugmenter(**strengths)(given, *KEY)
        for name in ("bg", "fg_bg", "mask", "depth"):
            new, old = getattr(changed, name), getattr(given, name)
            assert (new.shape, new.dtype, new.device) == (old.shape, old.dtype, old.device)
        assert changed.bg.is_contiguous(memory_format=torch.channels_last)
        assert changed.fg_bg.is_contiguous(memory_format=torch.channels_last)
        assert same(pictures_of(given), copy)
        assert same(pictures_of(changed), copy) == (strengths == {})


def test_auto_chooses_the_faster_side() -> None:
    """OpenCV on a CPU, kernels of the device on a GPU; an explicit choice is respected."""
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert [is_on_device("auto", device) for device in (cpu, gpu)] == [False, True]
    assert [is_on_device("cpu", device) for device in (cpu, gpu)] == [False, False]
    assert [is_on_device("device", device) for device in (cpu, gpu)] == [True, True]
