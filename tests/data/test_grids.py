"""Image grids: every cell shows the data at its position, under its title."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from data.dataset.dataset import Dataset, write_dataset
from data.grids import COLUMNS, MARGIN, contact_sheet, image_grid, overlay, save_png
from data.images import decode_photo, encode_sample
from data.schema import Pixels, Sample


def flat(level: int, side: int = 20) -> Pixels:
    return np.full((side, side), level, np.uint8)


def sample(number: int, room: int) -> Sample:
    """A sample with a grey level of its own: that of the room in `bg`, that of the sample in `fg_bg`."""
    mask = flat(0)
    mask[5:15, 5:15] = 255
    return Sample(
        sample_id=f"s{number}",
        bg_id=f"bg{room}",
        fg_id="fg",
        bg=np.full((20, 20, 3), 10 * room, np.uint8),
        fg_bg=np.full((20, 20, 3), 10 * number, np.uint8),
        mask=mask,
        depth=flat(200),
    )


def dataset(path: Path, rooms: list[int]) -> Dataset:
    samples = [encode_sample(sample(number, room), lossless=True) for number, room in enumerate(rooms)]
    write_dataset(samples, path, source={})
    return Dataset.open(path)


def test_grid_places_each_image_under_its_title() -> None:
    """Rows are samples and columns are kinds; a transposed grid would show predictions as targets."""
    grid = image_grid([[flat(10), flat(60)], [flat(110), flat(160)]], ["mask", "depth"], cell=64)

    for row, levels in enumerate(((10, 60), (110, 160))):
        for column, level in enumerate(levels):
            y = len(grid) - (2 - row) * (64 + MARGIN) + 32
            x = MARGIN + column * (64 + MARGIN) + 32
            assert grid[y, x].tolist() == [level] * 3


def test_grid_keeps_colours() -> None:
    """Channels in the wrong order would turn every room blue."""
    red = np.zeros((8, 8, 3), np.uint8)
    red[:, :, 0] = 255

    grid = image_grid([[red]], ["bg"], cell=32)

    assert grid[-MARGIN - 16, MARGIN + 16].tolist() == [255, 0, 0]


def test_grid_keeps_the_aspect_ratio() -> None:
    """A wide image is not stretched, and no empty space is left above and below it."""
    grid = image_grid([[np.zeros((10, 40), np.uint8)], [np.zeros((40, 10), np.uint8)]], ["wide"], cell=80)
    black = (grid[:, MARGIN : MARGIN + 80] == 0).all(axis=2)

    rows = black.sum(axis=1)
    body = len(grid) - 2 * MARGIN - 80 - 20

    assert rows[body : body + 20].tolist() == [80] * 20
    assert rows[body + 20 + MARGIN : -MARGIN].tolist() == [20] * 80


@pytest.mark.parametrize("row_titles", [None, ["a first sample", "a second one"]])
def test_grid_has_titles(row_titles: list[str] | None) -> None:
    """Ink stands above every column, and left of every row if rows have titles."""
    grid = image_grid([[flat(255)], [flat(255)]], ["depth"], row_titles=row_titles, cell=48)
    ink = (grid < 128).all(axis=2)
    body = len(grid) - 2 * (48 + MARGIN)

    assert ink[:body].any()
    for row in range(2):
        y = body + row * (48 + MARGIN)
        assert ink[y : y + 48].any() == (row_titles is not None)


def test_long_titles_stay_in_their_columns() -> None:
    """Titles that run into each other cannot be read."""
    grid = image_grid([[flat(255), flat(255)]], ["a title that is much too long", ""], cell=64)

    ink = (grid < 200).any(axis=2)

    assert ink[:, MARGIN : MARGIN + 64].any()
    assert not ink[:, MARGIN + 64 :].any()


@pytest.mark.parametrize(("rows", "row_titles"), [([], None), ([[flat(0)]], None), ([[flat(0)] * 2], ["a", "b"])])
def test_grid_of_uneven_rows_is_refused(rows: list[list[Pixels]], row_titles: list[str] | None) -> None:
    """An image without a title, or a title without an image, is a mistake of the caller."""
    with pytest.raises(ValueError, match="title"):
        image_grid(rows, ["bg", "mask"], row_titles=row_titles)


def test_overlay_tints_the_mask_alone() -> None:
    """Outside of the mask and its outline the photograph must be unchanged: there one judges the fit."""
    photo = np.full((40, 40, 3), 100, np.uint8)
    mask = flat(0, 40)
    mask[10:30, 10:30] = 255

    shown = overlay(photo, mask, (200, 0, 0))

    outside = np.ones((40, 40), bool)
    outside[9:31, 9:31] = False
    assert (shown[outside] == 100).all()
    np.testing.assert_allclose(shown[20, 20], [145, 55, 55], atol=1)
    assert shown[10, 20].tolist() == [200, 0, 0]


def test_overlay_does_not_change_its_input() -> None:
    """The same photograph is shown beside the overlay."""
    photo = np.full((20, 20, 3), 100, np.uint8)

    overlay(photo, flat(255))

    assert (photo == 100).all()


def test_contact_sheet_shows_as_many_backgrounds_as_it_can(tmp_path: Path) -> None:
    """The first rows of a sorted data set are all of one room; the sheet takes each room before any second sample."""
    sheet = contact_sheet(dataset(tmp_path / "set", [1, 1, 1, 2, 2, 3]), samples=3, cell=40)

    levels = {int(level) for level in (10, 20, 30) if (sheet == level).all(axis=2).sum() > 1000}

    assert levels == {10, 20, 30}


def test_contact_sheet_shows_different_samples_of_each_background(tmp_path: Path) -> None:
    """The first sample of every background of a composed set has the same foreground."""
    stored = dataset(tmp_path / "set", [room for room in range(4) for _ in range(6)])

    sheet = contact_sheet(stored, samples=4, columns=["fg_bg"], cell=40)
    shown = [number for number in range(24) if (sheet == 10 * number).all(axis=2).sum() > 1000]

    assert [number // 6 for number in shown] == [0, 1, 2, 3]
    assert len({number % 6 for number in shown}) >= 3


def test_contact_sheet_is_as_long_as_its_samples(tmp_path: Path) -> None:
    """More rows than samples are not filled with repeats."""
    stored = dataset(tmp_path / "set", [1, 2])

    two, many = contact_sheet(stored, samples=2, cell=40), contact_sheet(stored, samples=9, cell=40)

    np.testing.assert_array_equal(two, many)


def test_contact_sheet_takes_columns(tmp_path: Path) -> None:
    """A page may show targets alone; a column that does not exist is refused."""
    stored = dataset(tmp_path / "set", [1, 2])

    narrow = contact_sheet(stored, columns=["mask", "depth"], cell=40)

    assert contact_sheet(stored, cell=40).shape[1] - narrow.shape[1] == (len(COLUMNS) - 2) * (40 + MARGIN)
    with pytest.raises(ValueError, match="one of bg, fg_bg"):
        contact_sheet(stored, columns=["normals"])


def test_saved_png_equals_the_image(tmp_path: Path) -> None:
    """Folders are made, an older image is replaced, and nothing else is left beside it."""
    path = tmp_path / "pictures" / "sheet.png"
    save_png(flat(1), path)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)

    save_png(pixels, path)

    np.testing.assert_array_equal(decode_photo(path.read_bytes(), "sheet"), pixels)
    assert list(path.parent.iterdir()) == [path]


def test_text_is_dark_on_white(tmp_path: Path) -> None:
    """Titles must be readable in print: full contrast somewhere in each letter."""
    grid = image_grid([[flat(255)]], ["mask"], cell=128)

    title = cv2.cvtColor(grid[: len(grid) - 128 - MARGIN], cv2.COLOR_RGB2GRAY)

    assert title.min() < 80
    assert title.max() == 255
