"""Augmentation on the CPU: one geometry for the four images, colours and noise for the photographs only."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest

from data.augment.cpu import Augmenter, SampleImages
from data.augment.erase import Erase
from data.schema import Pixels

SIDE = 64
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the grey level (ITU-R BT.601)."""


def everything() -> Augmenter:
    return Augmenter(
        hflip=0.5, vflip=0.5, rotate=10.0, zoom=0.3, jitter=0.3, hue=0.1, shift=0.5, noise=0.1, erase=Erase(p=0.5)
    )


def pattern(seed: int = 0) -> Pixels:
    """Smooth, so that interpolation changes little, and without symmetry."""
    noise = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE), np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.asarray(cv2.normalize(blurred, None, 20, 235, cv2.NORM_MINMAX), np.uint8)


def everywhere(plane: Pixels) -> SampleImages:
    """The same content in all four images."""
    photo = np.repeat(plane[:, :, None], 3, axis=2)
    return SampleImages(photo, photo.copy(), plane.copy(), plane.copy())


def different() -> SampleImages:
    rng = np.random.default_rng(5)
    photos = (rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8) for _ in range(2))
    planes = (rng.integers(0, 256, (SIDE, SIDE), np.uint8) for _ in range(2))
    return SampleImages(*photos, *planes)


def draws(augmenter: Augmenter, images: SampleImages, count: int, key: tuple[int, ...] = (1, 2)) -> list[SampleImages]:
    """A batch of `count` copies of a sample, augmented."""
    bg, fg_bg, mask, depth = (np.stack([pixels] * count) for pixels in images)
    augmenter.change((bg, fg_bg, mask, depth), *key)
    return [SampleImages(*sample) for sample in zip(bg, fg_bg, mask, depth, strict=True)]


def same(left: SampleImages, right: SampleImages) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize(
    "strengths",
    [
        {"hflip": 0.5},
        {"vflip": 0.5},
        {"rotate": 30.0},
        {"zoom": 0.5},
        {"hflip": 0.5, "vflip": 0.5, "rotate": 30.0, "zoom": 0.5},
    ],
)
def test_four_images_of_a_sample_stay_aligned(strengths: dict[str, Any]) -> None:
    """A mask that is a pixel off its photograph teaches the network to be a pixel off."""
    original = everywhere(pattern())
    changed = draws(Augmenter(**strengths), original, 20)
    for drawn in changed:
        for plane in (drawn.fg_bg.max(axis=2), drawn.mask, drawn.depth):
            np.testing.assert_allclose(plane.astype(int), drawn.bg.min(axis=2).astype(int), atol=2)
    moved = [np.abs(drawn.mask.astype(int) - original.mask).max() > 30 for drawn in changed]
    assert sum(moved) > 5


def test_a_flip_is_from_left_to_right() -> None:
    """Rooms are never photographed upside down."""
    original = different()
    (flipped,) = draws(Augmenter(hflip=1.0), original, 1)
    assert same(flipped, SampleImages(*(pixels[:, ::-1] for pixels in original)))


def test_both_flips_rotate_by_180_degrees() -> None:
    """The two flips are independent."""
    original = different()
    (flipped,) = draws(Augmenter(hflip=1.0, vflip=1.0), original, 1)
    assert same(flipped, SampleImages(*(pixels[::-1, ::-1] for pixels in original)))


def test_rotation_is_symmetric_and_bounded() -> None:
    """The strength is a searched value, in degrees."""
    plane = np.zeros((SIDE, SIDE), np.uint8)
    cv2.circle(plane, (SIDE // 2 + 20, SIDE // 2), 3, 255, -1)
    angles = []
    for drawn in draws(Augmenter(rotate=20.0), everywhere(plane), 60):
        y, x = np.argwhere(drawn.mask > 127).mean(axis=0) - (SIDE - 1) / 2
        angles.append(np.degrees(np.arctan2(y - 0.5, x - 0.5)))
    assert -21.5 < min(angles) < -10
    assert 10 < max(angles) < 21.5


def test_zoom_shows_a_bounded_part_of_the_side() -> None:
    """The strength is a share of the side: a linear ramp becomes flatter by the share that remains."""
    slope = np.tile(np.arange(SIDE, dtype=np.uint8) * 3, (SIDE, 1))
    drawn = draws(Augmenter(zoom=0.5), everywhere(slope), 60)
    ends = np.array([zoomed.depth[5, [16, 48]] for zoomed in drawn], np.float64)
    shares = (ends[:, 1] - ends[:, 0]) / (3 * 32)
    assert 0.48 <= shares.min() < 0.6
    assert 0.9 < shares.max() <= 1.0
    assert len(set(ends[:, 0].tolist())) > 20  # the part is from anywhere


@pytest.mark.parametrize("strengths", [{"jitter": 0.5}, {"shift": 1.0}, {"noise": 0.2}, {"erase": Erase(p=0.5)}])
def test_jitter_noise_and_erasing_change_each_photograph_independently(strengths: dict[str, Any]) -> None:
    """The targets must not change with colours, and the two photographs must change independently."""
    original = everywhere(pattern())
    changed = draws(Augmenter(**strengths), original, 20)
    for drawn in changed:
        assert np.array_equal(drawn.mask, original.mask)
        assert np.array_equal(drawn.depth, original.depth)
    untouched = original.bg
    for left, right in (("bg", "fg_bg"), ("bg", None), ("fg_bg", None)):
        others = [getattr(drawn, right) if right else untouched for drawn in changed]
        apart = [not np.array_equal(getattr(drawn, left), other) for drawn, other in zip(changed, others, strict=True)]
        assert sum(apart) > 3


def test_brightness_contrast_and_saturation_share_a_range() -> None:
    """Each factor is measured in an image that is half grey and half coloured."""
    photo = np.full((SIDE, SIDE, 3), 60, np.uint8)
    photo[:, SIDE // 2 :] = (190, 150, 110)
    jittered = draws(Augmenter(jitter=0.15), everywhere(pattern())._replace(bg=photo), 200)
    grey, coloured = (
        np.stack([drawn.bg[0, column].astype(float) for drawn in jittered]) for column in (0, SIDE - 1)
    )  # fmt: skip
    dark, light = grey.mean(axis=1), coloured @ LUMA
    mean = (60 + np.array([190, 150, 110]) @ LUMA) / 2
    brightness = (dark + light) / 2 / mean
    contrast = (light - dark) / (2 * (mean - 60)) / brightness
    saturation = np.ptp(coloured, axis=1) / 80 / brightness / contrast
    for factor in (brightness, contrast, saturation):
        assert 0.83 < factor.min() < 0.88
        assert 1.12 < factor.max() < 1.17
    for one, other in ((brightness, contrast), (brightness, saturation), (contrast, saturation)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.3


def test_hue_shift_preserves_lightness() -> None:
    """Grey pixels do not change, and a colour keeps its largest and smallest channel."""
    photo = np.full((SIDE, SIDE, 3), 90, np.uint8)
    photo[:, SIDE // 2 :] = (200, 80, 80)
    turned = draws(Augmenter(hue=0.5), everywhere(pattern())._replace(bg=photo), 100)
    colours = np.stack([drawn.bg[0, -1] for drawn in turned])
    assert all((drawn.bg[:, 0] == 90).all() for drawn in turned)
    assert (colours.max(axis=1) == 200).all()
    assert (colours.min(axis=1) == 80).all()
    assert len(np.unique(colours, axis=0)) > 50


def test_half_of_the_photographs_get_noise_of_up_to_its_strength() -> None:
    """The strength is a searched value, as a share of full scale."""
    grey = everywhere(np.full((SIDE, SIDE), 128, np.uint8))
    spreads = np.array([float(drawn.bg.std()) / 255 for drawn in draws(Augmenter(noise=0.1), grey, 80)])
    assert 20 < np.count_nonzero(spreads) < 60
    assert 0.08 < spreads.max() < 0.105


def test_noise_is_independent_per_channel_and_photograph() -> None:
    """A network could learn to remove noise that repeats."""
    grey = everywhere(np.full((SIDE, SIDE), 128, np.uint8))
    drawn = draws(Augmenter(noise=0.1, noise_low=0.1, noise_p=1.0), grey, 2)
    planes = [photo[:, :, channel].ravel() for one in drawn for photo in one[:2] for channel in range(3)]
    related = np.corrcoef(planes) - np.eye(len(planes))
    assert np.abs(related).max() < 5 / SIDE


def test_key_determines_the_augmentation() -> None:
    """A resumed trial gets the same images as an uninterrupted one; other epochs and workers get different ones."""
    change = everything()
    first = draws(change, different(), 5, key=(0, 1))
    again = draws(change, different(), 5, key=(0, 1))
    elsewhere = draws(everything(), different(), 5, key=(0, 1))
    other = draws(change, different(), 5, key=(1, 0))
    assert all(map(same, first, again))
    assert all(map(same, first, elsewhere))
    assert not any(map(same, first, other))
    assert not same(first[0], first[1])


def test_augmentation_keeps_shapes_and_dtypes() -> None:
    """The cache's arrays are written over in place."""
    wide = SampleImages(*(np.ascontiguousarray(pixels[:48]) for pixels in different()))
    for drawn in draws(everything(), wide, 20):
        assert [pixels.shape for pixels in drawn] == [(48, SIDE, 3), (48, SIDE, 3), (48, SIDE), (48, SIDE)]
        assert {pixels.dtype for pixels in drawn} == {np.dtype(np.uint8)}


def test_zero_strengths_change_nothing() -> None:
    """The search space includes 0, which must turn a transform off."""
    original = different()
    off = Augmenter(rotate_p=1.0, noise_low=0.1, noise_p=1.0, erase=Erase(p=0.0))
    for change in (Augmenter(), off):
        assert all(same(drawn, original) for drawn in draws(change, original, 5))


ASKS_FOR_NEWS = """
import socket
def getaddrinfo(*args, **kwargs):
    print("asked", flush=True)
    raise OSError
socket.getaddrinfo = getaddrinfo
from data.augment.cpu import Augmenter
Augmenter(hflip=0.5, rotate=1.0, zoom=0.1, jitter=0.1, noise=0.1)
print("built")
"""


def test_albumentations_makes_no_network_request() -> None:
    """albumentations looks for a newer version when it is imported, which hangs on nodes without a way out."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if "ALBUMENTATIONS" not in name and "proxy" not in name.lower()
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASKS_FOR_NEWS],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["built"]
