"""Fitting of images to the size of a network, and of planes back to the size of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cache.cache import decoded
from data.cache.mapped import decoded_bytes
from data.cache.on_the_fly import OnTheFlySplit
from data.dataset.dataset import Dataset, write_dataset
from data.fitting.fit import GREY, Fit, Fitting
from data.images import Resize, encode_sample, resize_depth, resize_to
from data.schema import PADDING, VALID, Pixels, Sample

SIDES = (32, 48)


def noise(*shape: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def holes(height: int, width: int) -> Pixels:
    coarse = np.random.default_rng(1).random((-(-height // 5), -(-width // 5))) < 0.3
    return np.where(np.kron(coarse, np.ones((5, 5))), 0, 255).astype(np.uint8)[:height, :width]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("sides", [(64, 96), (32, 48), (16, 24)])
def test_images_of_the_same_aspect_ratio_are_only_resized(fit: Fit, sides: tuple[int, int]) -> None:
    """Nothing is cut off or added, so the three agree."""
    photo, depth, valid = noise(*sides, 3), noise(*sides, seed=1), holes(*sides)
    fitting = Fitting(SIDES, "area", fit)

    np.testing.assert_array_equal(fitting.image(photo), resize_to(photo, *SIDES))
    found, kept = fitting.depth(depth, valid)
    expected, mask = resize_depth(depth, valid, *SIDES)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(kept, mask)


@pytest.mark.parametrize(
    ("sides", "rows", "columns"),
    [
        ((64, 192), slice(0, 64), slice(48, 144)),
        ((96, 48), slice(32, 64), slice(0, 48)),
        ((60, 30), slice(20, 40), slice(0, 30)),
    ],
)
def test_crop_is_the_largest_centred_rectangle(sides: tuple[int, int], rows: slice, columns: slice) -> None:
    """All images of a sample are cut at the same place."""
    photo, depth, valid = noise(*sides, 3), noise(*sides, seed=1), holes(*sides)
    fitting = Fitting(SIDES, "area", "crop")

    np.testing.assert_array_equal(fitting.image(photo), resize_to(photo[rows, columns].copy(), *SIDES))
    found = fitting.depth(depth, valid)
    for plane, expected in zip(found, resize_depth(depth[rows, columns], valid[rows, columns], *SIDES), strict=True):
        np.testing.assert_array_equal(plane, expected)
    assert fitting.depth(depth, None)[1] is None


@pytest.mark.parametrize(
    ("sides", "rows", "columns"),
    [
        ((64, 192), slice(8, 24), slice(0, 48)),
        ((96, 48), slice(0, 32), slice(16, 32)),
        ((20, 20), slice(0, 32), slice(8, 40)),
    ],
)
def test_padding_keeps_the_whole_image(sides: tuple[int, int], rows: slice, columns: slice) -> None:
    """The border is grey in photographs, background in the mask, and marked in the validity mask."""
    photo, mask, depth = noise(*sides, 3), noise(*sides, seed=1), noise(*sides, seed=2)
    fitting = Fitting(SIDES, "area", "pad")
    size = rows.stop - rows.start, columns.stop - columns.start
    border = np.ones(SIDES, np.bool_)
    border[rows, columns] = False

    for pixels, fill in ((photo, GREY), (mask, 0)):
        found = fitting.image(pixels)
        np.testing.assert_array_equal(found[rows, columns], resize_to(pixels, *size))
        assert (found[border] == fill).all()
    for valid in (None, holes(*sides)):
        plane, kept = fitting.depth(depth, valid)
        expected, known = resize_depth(depth, valid, *size)
        assert kept is not None
        np.testing.assert_array_equal(plane[rows, columns], expected)
        np.testing.assert_array_equal(kept[rows, columns], VALID if known is None else known)
        assert (kept[border] == PADDING).all()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(["stretch", "crop", "pad"]))
def test_any_size_is_fitted_and_restored(height: int, width: int, fit: Fit) -> None:
    """Also images of a few pixels, or of extreme aspect ratios."""
    fitting = Fitting(SIDES, "area", fit)

    assert fitting.image(noise(height, width, 3)).shape == (*SIDES, 3)
    assert fitting.depth(noise(height, width), None)[0].shape == SIDES
    whole = Fitting.of_whole_images(SIDES, "area", fit)
    assert whole.restore(noise(*SIDES), (height, width)).shape == (height, width)
    inner = whole.inner((height, width))
    assert inner.height >= 1
    assert inner.width >= 1


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_a_prediction_lies_where_the_object_is(fit: Fit) -> None:
    """Fitting and restoring a smooth plane gives it back: at the same place, with the same aspect ratio."""
    y, x = np.mgrid[:90, :240]
    plane = (np.hypot((y - 30) / 12, (x - 200) / 12) < 1).astype(np.uint8) * 255
    fitting = Fitting.of_whole_images((64, 96), "area", fit)

    restored = fitting.restore(fitting.image(plane), plane.shape)

    overlap = ((restored > 127) & (plane > 127)).sum() / ((restored > 127) | (plane > 127)).sum()
    assert overlap > 0.85
    assert fitting.fit == ("stretch" if fit == "stretch" else "pad")


def write(path: Path) -> Dataset:
    samples = []
    for number, (height, width) in enumerate([(40, 90), (90, 40), (50, 50), (64, 96)]):
        photos = noise(height, width, 3, seed=number), noise(height, width, 3, seed=10 + number)
        planes = noise(height, width, seed=20 + number), noise(height, width, seed=30 + number)
        sample = Sample(
            sample_id=f"s{number}",
            bg_id=f"bg{number}",
            fg_id="fg",
            bg=photos[0],
            fg_bg=photos[1],
            mask=planes[0],
            depth=planes[1],
        )
        samples.append(encode_sample(sample, lossless=True))
    write_dataset(samples, path, source={})
    return Dataset.open(path)


@pytest.mark.parametrize("how", ["area", "lanczos"])
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_cache_and_on_the_fly_have_fitted_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: Fit, how: Resize
) -> None:
    """Of a data set with several sizes, each sample by its own."""
    dataset, rows = write(tmp_path / "set"), np.arange(4)
    fitting = Fitting(SIDES, how, fit)

    mapped = decoded(dataset, [rows], SIDES, resize=how, fit=fit, root=tmp_path / "cache").gather(rows)
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    with pytest.warns(UserWarning, match="at 32 x 48 px are decoded anew"):
        split = decoded(dataset, [rows], SIDES, resize=how, fit=fit, root=tmp_path / "none")
    assert isinstance(split, OnTheFlySplit)

    for found in (mapped, split.gather(rows)):
        assert (found.valid is not None) == (fit == "pad")
        for index, sample in enumerate(dataset.read()):
            np.testing.assert_array_equal(found.bg[index], fitting.image(sample.bg))
            np.testing.assert_array_equal(found.mask[index], fitting.image(sample.mask))
            depth, valid = fitting.depth(sample.depth, None)
            np.testing.assert_array_equal(found.depth[index], depth)
            if found.valid is not None:
                np.testing.assert_array_equal(found.valid[index], valid)


def test_each_fit_has_its_own_entry(tmp_path: Path) -> None:
    """Stretched images have those of earlier versions."""
    dataset = write(tmp_path / "set")
    for fit in ("stretch", "crop", "pad"):
        decoded(dataset, [np.arange(4)], 32, fit=fit, root=tmp_path / "cache")

    names = [path.name.split("-") for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert sorted("-".join(name[3:-1]) for name in names) == ["32px-area", "32px-area-crop", "32px-area-pad"]
    assert decoded_bytes(4, 4, SIDES, has_validity=True) - decoded_bytes(4, 4, SIDES) == 4 * 32 * 48
