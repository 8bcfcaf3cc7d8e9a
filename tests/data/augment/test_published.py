"""Augmentation of the five published projects: its rates and strengths, measured over many samples.

Probabilities are held to five standard deviations of their binomial count.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data.augment.cpu import Augmenter, SampleImages
from data.augment.erase import Erase
from data.schema import Pixels

Many = Sequence[Any] | NDArray[Any]

MID_GREY = (127.5, 127.5, 127.5)

RAGURAM: dict[str, Any] = {
    "hflip": 0.5,
    "erase": Erase(
        p=0.75, area_low=1 / 49, area_high=1 / 49, ratio_low=1.0, ratio_high=1.0, bg_scale=0.5, crosses_border=True,
        bg_fill=MID_GREY, fg_bg_fill=MID_GREY,
    ),
}  # fmt: skip
RAGURAM_SIDE = 112
BIRENDER: dict[str, Any] = {
    "jitter": 0.15,
    "hue": 0.15,
    "erase": Erase(
        p=0.5, area_low=0.02, area_high=0.10, ratio_low=0.8, ratio_high=1.2,
        bg_fill=(142.29, 130.05, 116.025), fg_bg_fill=(142.8, 130.05, 117.3),
    ),
}  # fmt: skip
RAMANA: dict[str, Any] = {
    "hflip": 0.5,
    "vflip": 0.3,
    "rotate": 15.0,
    "rotate_p": 0.7,
    "shift": 0.5,
    "noise": 0.0277,
    "noise_low": 0.0124,
    "noise_p": 0.5,
    "erase": Erase(p=0.5, count=2, area_low=1 / 12, area_high=1 / 12, ratio_low=4 / 3, ratio_high=4 / 3),
}
MONIMOYD: dict[str, Any] = {
    "jitter": 0.075, "hue": 0.075, "noise": 0.05, "noise_low": 0.05, "noise_p": 0.2,
    "noise_per_channel": False,
}  # fmt: skip


def draws(settings: dict[str, Any], pictures: SampleImages, count: int) -> list[SampleImages]:
    bg, fg_bg, mask, depth = (np.stack([pixels] * count) for pixels in pictures)
    Augmenter(**settings).change((bg, fg_bg, mask, depth), 4, 0, 0)
    return [SampleImages(*sample) for sample in zip(bg, fg_bg, mask, depth, strict=True)]


def flat(level: tuple[int, int, int], side: int) -> SampleImages:
    """Photographs of one colour; mask and depth of its first channel."""
    photo = np.full((side, side, 3), level, np.uint8)
    plane = np.full((side, side), level[0], np.uint8)
    return SampleImages(photo, photo, plane, plane)


def everywhere(plane: Pixels) -> SampleImages:
    photo = np.repeat(plane[:, :, None], 3, axis=2)
    return SampleImages(photo, photo, plane, plane)


def slope(side: int) -> Pixels:
    """Dark on the left, and never the grey of a hole."""
    return np.tile(np.linspace(10, 110, side).astype(np.uint8), (side, 1))


def is_flipped(pixels: Pixels) -> bool:
    """Whether `slope` is dark on the right; a hole does not hide that."""
    return bool(np.median(pixels[:, :8]) > np.median(pixels[:, -8:]))


def hole(photo: Pixels, fill: tuple[float, ...]) -> Pixels:
    return np.asarray((photo == np.rint(fill)).all(axis=2), np.uint8)


def hue(colour: NDArray[Any]) -> float:
    """Of a colour in 0..255, in -0.5..0.5 of the circle."""
    return (colorsys.rgb_to_hsv(*colour / 255)[0] + 0.5) % 1 - 0.5


def sides(hole: Pixels) -> tuple[int, int]:
    """Height and width of the smallest box around it."""
    _, _, width, height = cv2.boundingRect(hole)
    return height, width


def is_about(happened: Many, probability: float) -> bool:
    deviation = np.sqrt(probability * (1 - probability) / len(happened))
    return bool(abs(np.mean(happened) - probability) < 5 * deviation)


def are_independent(left: Many, right: Many) -> bool:
    return bool(abs(np.corrcoef(left, right)[0, 1]) < 5 / np.sqrt(len(left)))


def is_uniform(values: NDArray[Any], low: float, high: float, slack: float) -> bool:
    """Within the bounds up to `slack`, close to both, and with the mean of a uniform distribution."""
    near, spread = slack + (high - low) / 20, (high - low) / np.sqrt(12)
    return bool(
        low - slack <= values.min() < low + near
        and high - near < values.max() <= high + slack
        and abs(values.mean() - (low + high) / 2) < 5 * spread / np.sqrt(len(values)) + slack
        and abs(values.std() / spread - 1) < 0.15
    )


def test_raguram_flips_all_images_of_half_of_the_samples() -> None:
    """Corrected: what is to be predicted is flipped with its photographs."""
    flips = [[is_flipped(pixels) for pixels in drawn] for drawn in draws(RAGURAM, everywhere(slope(RAGURAM_SIDE)), 600)]
    assert all(len(set(sample)) == 1 for sample in flips)
    assert is_about([sample[0] for sample in flips], 0.5)


def test_raguram_as_published_flips_photographs_independently_and_never_targets() -> None:
    """The published error can be repeated, to see what it costs."""
    changed = draws({**RAGURAM, "flips_apart": True}, everywhere(slope(RAGURAM_SIDE)), 600)
    bg, fg_bg = ([is_flipped(getattr(drawn, name)) for drawn in changed] for name in ("bg", "fg_bg"))
    assert is_about(bg, 0.5)
    assert is_about(fg_bg, 0.5)
    assert are_independent(bg, fg_bg)
    assert not any(is_flipped(drawn.mask) or is_flipped(drawn.depth) for drawn in changed)


@pytest.mark.slow
def test_raguram_cuts_a_square_out_of_three_photographs_in_four() -> None:
    """Cutout: 16 pixels of 112 in fg_bg and 8 in bg, of the mean colour, cut where the border is."""
    changed = draws(RAGURAM, flat((255, 255, 255), RAGURAM_SIDE), 800)
    found = {name: [hole(getattr(drawn, name), MID_GREY) for drawn in changed] for name in ("bg", "fg_bg")}
    for name, side in (("bg", 8), ("fg_bg", 16)):
        cut = [sides(one) for one in found[name] if one.any()]
        whole = [sizes == (side, side) for sizes in cut]
        assert is_about([one.any() for one in found[name]], 0.75)
        assert is_about(whole, (1 - (side - 1) / RAGURAM_SIDE) ** 2)
        assert all(side // 2 <= length <= side for sizes in cut for length in sizes)
        assert all(
            (getattr(drawn, name)[one == 0] == 255).all() for drawn, one in zip(changed, found[name], strict=True)
        )
    assert are_independent([one.any() for one in found["bg"]], [one.any() for one in found["fg_bg"]])
    assert all((drawn.mask == 255).all() and (drawn.depth == 255).all() for drawn in changed)


@pytest.mark.parametrize("project", ["raguram at full size", "divyansh"])
def test_projects_without_augmentation_get_unchanged_images(project: str) -> None:
    """Nothing is changed by a level."""
    pictures = everywhere(slope(64))
    for drawn, original in zip(draws({}, pictures, 1)[0], pictures, strict=True):
        np.testing.assert_array_equal(drawn, original)


def test_birender_jitters_brightness_and_hue_of_each_photograph() -> None:
    """Brightness of 0.85 to 1.15; hue of 0.15 of the circle to either side, which the other changes leave alone."""
    greys, colours = (draws(BIRENDER, flat(level, 48), 600) for level in ((200, 200, 200), (200, 100, 100)))
    light = [np.array([np.median(drawn[index]) / 200 for drawn in greys]) for index in range(2)]
    turn = [np.array([hue(np.median(drawn[index], axis=(0, 1))) for drawn in colours]) for index in range(2)]
    assert all(is_uniform(one, 0.85, 1.15, 0.01) for one in light)
    assert all(is_uniform(one, -0.15, 0.15, 0.01) for one in turn)
    assert are_independent(*light)
    assert are_independent(*turn)
    assert all((drawn.mask == 200).all() and (drawn.depth == 200).all() for drawn in colours)


@pytest.mark.slow
def test_birender_erases_a_rectangle_of_half_of_the_photographs() -> None:
    """Random erasing of 0.02 to 0.10 of the area, 0.8 to 1.2 times as high as wide, with what becomes 0."""
    changed = draws(BIRENDER, flat((240, 240, 240), 192), 500)
    fills = (BIRENDER["erase"].bg_fill, BIRENDER["erase"].fg_bg_fill)
    bg, fg_bg = ([hole(drawn[index], fills[index]) for drawn in changed] for index in range(2))
    for holes in (bg, fg_bg):
        height, width = np.array([sides(one) for one in holes if one.any()]).T
        assert is_about([one.any() for one in holes], 0.5)
        assert all(one.sum() == np.prod(sides(one)) for one in holes)
        assert is_uniform(height * width / 192**2, 0.02, 0.10, 0.002)
        assert is_uniform(height / width, 0.8, 1.2, 0.05)
    assert are_independent([one.any() for one in bg], [one.any() for one in fg_bg])
    assert not any(np.array_equal(one, other) for one, other in zip(bg, fg_bg, strict=True) if one.any())


def marked(side: int) -> SampleImages:
    """A square right of the middle in all four images, and one below it, at other distances."""
    plane = np.zeros((side, side), np.uint8)
    half, right, below = side // 2, side // 2 + side // 3, side // 2 + side // 5
    plane[half - 5 : half + 5, right - 5 : right + 5] = 255
    plane[below - 5 : below + 5, half - 5 : half + 5] = 255
    return everywhere(plane)


def geometry(plane: Pixels) -> tuple[bool, bool, float]:
    """Whether `marked` is flipped left-right and upside down, and its rotation in degrees."""
    _, _, _, centres = cv2.connectedComponentsWithStats(np.asarray(plane > 127, np.uint8))
    apart = centres[1:] - (plane.shape[0] - 1) / 2
    (right_x, right_y), (_, below_y) = apart[np.argsort(-np.linalg.norm(apart, axis=1))][:2]
    return right_x < 0, below_y < 0, float(np.degrees(np.arctan(right_y / right_x)))


def test_ramana_applies_the_same_geometry_to_all_images() -> None:
    """One decision a sample, whatever light, noise and holes do to its photographs."""
    changed = draws({**RAMANA, "erase": None}, marked(96), 200)
    for drawn in changed:
        hflip, vflip, degrees = geometry(drawn.mask)
        for plane in (drawn.bg[:, :, 1], drawn.fg_bg[:, :, 1], drawn.depth):
            assert geometry(plane)[:2] == (hflip, vflip)
            assert abs(geometry(plane)[2] - degrees) < 1


def test_ramana_flips_and_rotates_as_often_as_published() -> None:
    """Left-right in 0.5, upside down in 0.3, by up to 15 degrees in 0.7 of the samples, each on its own."""
    original = marked(96)
    hflip, vflip, rotated, degrees = [], [], [], []
    for drawn in draws(RAMANA, original, 1000):
        is_hflip, is_vflip, angle = geometry(drawn.mask)
        flipped = original.mask[:: -1 if is_vflip else 1, :: -1 if is_hflip else 1]
        hflip.append(is_hflip)
        vflip.append(is_vflip)
        rotated.append(not np.array_equal(drawn.mask, flipped))
        if rotated[-1]:
            degrees.append(angle)
    assert is_about(hflip, 0.5)
    assert is_about(vflip, 0.3)
    assert is_about(rotated, 0.7)
    assert is_uniform(np.array(degrees), -15, 15, 0.5)
    assert are_independent(hflip, vflip)
    assert are_independent(hflip, rotated)


def test_ramana_shifts_half_of_the_photographs_in_one_of_two_ways() -> None:
    """A grey keeps its channels equal when its value is shifted, and does not when red, green and blue are."""
    changed = draws({**RAMANA, "noise": 0.0, "erase": None}, flat((128, 128, 128), 32), 800)
    shifted = {}
    for name in ("bg", "fg_bg"):
        seen = np.stack([getattr(drawn, name)[0, 0].astype(int) - 128 for drawn in changed])
        by_value = (np.ptp(seen, axis=1) == 0) & (seen[:, 0] != 0)
        by_channel = np.ptp(seen, axis=1) > 0
        shifted[name] = by_value | by_channel
        assert is_about(by_value, 0.25)
        assert is_about(by_channel, 0.25)
        assert np.abs(seen[by_value]).max() in (19, 20)
        assert np.abs(seen[by_channel]).max() in (19, 20)
    assert are_independent(shifted["bg"], shifted["fg_bg"])


def test_ramana_shifts_hue_and_saturation_too() -> None:
    """By up to 20 of 180 and 30 of 255; a shift of red, green and blue does not reach as far on this colour."""
    changed = draws({**RAMANA, "noise": 0.0, "erase": None}, flat((240, 60, 60), 32), 600)
    seen = np.stack([cv2.cvtColor(drawn.bg[:1, :1], cv2.COLOR_RGB2HSV)[0, 0].astype(int) for drawn in changed])
    hue, saturation = (seen[:, 0] + 90) % 180 - 90, seen[:, 1] - 191
    assert 17 <= np.abs(hue).max() <= 21
    assert 25 <= np.abs(saturation).max() <= 32


def test_ramana_adds_noise_of_the_published_strength_to_half_of_the_photographs() -> None:
    """A variance of 10 to 50 on the scale of 0 to 255, for each channel and photograph on its own."""
    spreads = {}
    for name in ("bg", "fg_bg"):
        photos = [getattr(drawn, name) for drawn in draws({**RAMANA, "erase": None}, flat((128, 128, 128), 48), 600)]
        spread = np.array([photo.std(axis=(0, 1)) / 255 for photo in photos])
        noisy = spread[:, 0] > 0.005
        spreads[name] = noisy
        assert is_about(noisy, 0.5)
        assert is_uniform(spread[noisy].mean(axis=1), 0.0124, 0.0277, 0.0006)
        channels = photos[int(np.argmax(noisy))].reshape(-1, 3).T
        assert all(are_independent(channels[one], channels[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
    assert are_independent(spreads["bg"], spreads["fg_bg"])


def test_ramana_drops_two_upright_holes_from_half_of_the_photographs() -> None:
    """Coarse dropout: a third of the height, a quarter of the width, black, never turned with the image."""
    changed = draws(RAMANA, flat((200, 200, 200), 96), 600)
    dropped = {}
    for name in ("bg", "fg_bg"):
        holes = [hole(getattr(drawn, name), (0, 0, 0)) for drawn in changed]
        dropped[name] = [one.any() for one in holes]
        assert is_about(dropped[name], 0.5)
        parts = [cv2.connectedComponentsWithStats(one, connectivity=4)[2][1:] for one in holes if one.any()]
        apart = [stats[:, 2:].tolist() for stats in parts if len(stats) == 2 and stats[:, 4].sum() == 2 * 32 * 24]
        assert len(apart) > len(parts) / 2
        assert all(sizes == [[24, 32, 32 * 24]] * 2 for sizes in apart)
        assert all(stats[:, 4].sum() <= 2 * 32 * 24 for stats in parts)
    assert are_independent(dropped["bg"], dropped["fg_bg"])
    assert all((drawn.mask == 200).all() and (drawn.depth == 200).all() for drawn in changed)


def spreads(pictures: list[SampleImages]) -> NDArray[Any]:
    """(4, draws) standard deviations, as shares of full scale."""
    return np.array([[drawn[index].std() / 255 for drawn in pictures] for index in range(4)])


def lights(pictures: list[SampleImages]) -> NDArray[Any]:
    """(4, draws) means, as shares of 200."""
    return np.array([[drawn[index].mean() / 200 for drawn in pictures] for index in range(4)])


def test_monimoyd_adds_noise_of_one_strength_to_a_fifth_of_the_photographs() -> None:
    """Corrected: to the photographs alone. They stay grey, as the project's images are."""
    drawn = draws(MONIMOYD, flat((128, 128, 128), 64), 800)
    assert not any(np.ptp(photo.astype(int), axis=2).any() for one in drawn for photo in one[:2])
    *photos, mask, depth = spreads(drawn)
    for spread in photos:
        noisy = spread > 0
        assert is_about(noisy, 0.2)
        assert np.abs(spread[noisy] / 0.05 - 1).max() < 0.05
    assert are_independent(photos[0] > 0, photos[1] > 0)
    assert not (mask.any() or depth.any())


def test_monimoyd_jitters_weakly() -> None:
    """By 0.075, hue too, which does nothing to the project's grey images."""
    light = lights(draws(MONIMOYD, flat((200, 200, 200), 32), 600))
    assert all(is_uniform(one, 0.925, 1.075, 0.01) for one in light[:2])
    assert are_independent(light[0], light[1])
    assert (light[2:] == 1).all()
    coloured = draws(MONIMOYD, flat((200, 100, 100), 32), 600)
    assert is_uniform(np.array([hue(drawn.bg.mean(axis=(0, 1))) for drawn in coloured]), -0.075, 0.075, 0.01)


def test_monimoyd_as_published_changes_mask_and_depth_as_well() -> None:
    """The published error can be repeated: light and noise of all four images, each on its own."""
    changed = draws({**MONIMOYD, "targets_too": True}, flat((200, 200, 200), 32), 800)
    noisy, light = spreads(changed) > 0, lights(changed)
    assert all(is_about(one, 0.2) for one in noisy)
    assert all(is_uniform(one, 0.925, 1.075, 0.01) for one in light)
    for one, other in itertools.combinations(range(4), 2):
        assert are_independent(noisy[one], noisy[other])
        assert are_independent(light[one], light[other])
