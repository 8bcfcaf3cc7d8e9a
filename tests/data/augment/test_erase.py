"""Erasing: number, size, position and colour of the rectangles."""

from __future__ import annotations

import numpy as np
import pytest

from data.augment.cpu import Augmenter, SampleImages
from data.augment.erase import Erase
from data.schema import Pixels

HEIGHT, WIDTH = 80, 120
WHITE: Pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def draws(erase: Erase, count: int) -> list[SampleImages]:
    """Augment a white sample `count` times."""
    bg, mask = np.stack([WHITE] * count), np.stack([WHITE[:, :, 0]] * count)
    fg_bg, depth = bg.copy(), mask.copy()
    Augmenter(erase=erase).change((bg, fg_bg, mask, depth), 3)
    return [SampleImages(*sample) for sample in zip(bg, fg_bg, mask, depth, strict=True)]


def erased(erase: Erase, count: int) -> list[Pixels]:
    """The erased pixels (H, W) of `fg_bg`, for each draw."""
    return [drawn.fg_bg.max(axis=2) < 255 for drawn in draws(erase, count)]


def sides(hole: Pixels) -> tuple[int, int]:
    rows, columns = np.nonzero(hole.any(axis=1))[0], np.nonzero(hole.any(axis=0))[0]
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def test_area_and_ratio_are_within_their_ranges() -> None:
    """Both are searched or published values: shares of the image, and height over width."""
    holes = erased(Erase(p=1.0, area_low=0.05, area_high=0.20, ratio_low=0.5, ratio_high=1.5), 300)
    heights, widths = np.array([sides(hole) for hole in holes]).T
    areas, ratios = heights * widths / (HEIGHT * WIDTH), heights / widths
    assert all(hole.sum() == height * width for hole, height, width in zip(holes, heights, widths, strict=True))
    assert 0.048 < areas.min() < 0.06
    assert 0.19 < areas.max() < 0.205
    assert 0.47 < ratios.min() < 0.55
    assert 1.45 < ratios.max() < 1.56
    assert abs(np.corrcoef(areas, ratios)[0, 1]) < 0.2


def test_every_pixel_can_be_erased() -> None:
    """Every pixel must be erased sometimes: a network would rely on a corner that never is."""
    large = Erase(p=1.0, area_low=0.9, area_high=0.9, ratio_low=2 / 3, ratio_high=2 / 3)
    holes = np.stack(erased(large, 400))
    assert holes.any(axis=0).all()
    assert not holes.all(axis=(1, 2)).any()


def test_rectangle_is_clipped_at_the_border() -> None:
    """Its centre is uniform in the image, so that a share of the rectangles is smaller, as published."""
    whole = Erase(p=1.0, area_low=0.04, area_high=0.04, ratio_low=1.0, ratio_high=1.0)
    crossing = Erase(p=1.0, area_low=0.04, area_high=0.04, ratio_low=1.0, ratio_high=1.0, crosses_border=True)
    side = 20  # its square is about a 25th of the image's area
    assert {sides(hole) for hole in erased(whole, 100)} == {(side, side)}
    heights, widths = np.array([sides(hole) for hole in erased(crossing, 600)]).T
    assert heights.min() == widths.min() == side // 2
    assert heights.max() == widths.max() == side
    for cut, length in ((heights < side, HEIGHT), (widths < side, WIDTH)):
        assert abs(cut.mean() - (side - 1) / length) < 0.08


def test_number_of_rectangles_follows_the_configuration() -> None:
    """They may overlap, and then hide less."""
    hidden = np.array([hole.sum() for hole in erased(Erase(p=1.0, count=3, area_low=0.02, area_high=0.02), 100)])
    one = np.array([hole.sum() for hole in erased(Erase(p=1.0, area_low=0.02, area_high=0.02), 100)])
    assert 2.9 < hidden.max() / one.mean() < 3.1
    assert hidden.min() < 2.9 * one.mean()


@pytest.mark.parametrize("ratio", [0.1, 10.0])
def test_rectangle_is_not_larger_than_the_image(ratio: float) -> None:
    """The ranges of the spec allow rectangles that are longer than the image."""
    holes = erased(Erase(p=1.0, area_low=1.0, area_high=1.0, ratio_low=ratio, ratio_high=ratio), 5)
    assert all(sides(hole)[0 if ratio > 1 else 1] == (HEIGHT if ratio > 1 else WIDTH) for hole in holes)


def test_fill_colour_and_area_are_drawn_per_photograph() -> None:
    """Their means differ, and a published project hid less of the background."""
    erase = Erase(
        p=1.0, area_low=0.04, area_high=0.04, ratio_low=1.0, ratio_high=1.0, bg_scale=0.5,
        bg_fill=(10.4, 20.6, 30.0), fg_bg_fill=(1.0, 2.0, 3.0),
    )  # fmt: skip
    (drawn,) = draws(erase, 1)
    for photo, side, colour in ((drawn.bg, 10, (10, 21, 30)), (drawn.fg_bg, 20, (1, 2, 3))):
        hole = photo.max(axis=2) < 255
        assert sides(hole) == (side, side)
        assert (photo[hole] == colour).all()


def test_share_of_erased_photographs_follows_the_configuration() -> None:
    """The probability is a searched value."""
    hidden = [hole.any() for hole in erased(Erase(p=0.3), 1000)]
    assert 0.23 < np.mean(hidden) < 0.37
