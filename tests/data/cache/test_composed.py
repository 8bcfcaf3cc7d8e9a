"""Batches that are composed from the sources of a recipe are those of the images of its samples."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data.cache.cache import cache_bytes, decoded
from data.cache.decoded import IMAGES, DecodedImages, DecodedSplit
from data.compose.compose import compose
from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.composed.rendering import compose as compose_images
from data.dataset.dataset import Dataset
from data.errors import InputError
from data.fitting.fit import Fit
from data.images import Resize, resize
from tests.data.compose.compose_kit import SIZE, kit, marker, photo, put

COUNT = 3 * 2 * 2 * 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe, and the images of the same samples."""
    root = tmp_path_factory.mktemp("composed")
    composition = Composition(**kit(root, backgrounds=3) | {"placements": 5, "scale": (0.1, 0.9)}, flips=True)
    sources = open_sources(composition)
    compose(composition, sources, root / "recipe")
    materialise(composition, sources, root / "images", processes=1)
    return root


@pytest.fixture
def recipe(root: Path) -> Dataset:
    return Dataset.open(root / "recipe")


def expected(dataset: Dataset, rows: NDArray[np.int64], size: int, how: Resize = "area") -> DecodedImages:
    """The images of `rows`, composed one by one, and resized as a whole."""
    recipe = dataset.recipe
    assert recipe is not None
    images = []
    for row in rows.tolist():
        placement = recipe.placements.row(row)
        bg, depth = recipe.background(placement.background), recipe.depth(placement.background)
        fg_bg, mask, depth = compose_images(bg, depth, recipe.cutout(placement.foreground), placement)
        images.append([resize(pixels, size, how) for pixels in (bg, fg_bg, mask, depth)])
    return DecodedImages(*(np.stack(column) for column in zip(*images, strict=True)))


def check(found: DecodedImages, wanted: DecodedImages) -> None:
    for name, left, right in zip(IMAGES, found.arrays(), wanted.arrays(), strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def split_of(dataset: Dataset, root: Path, size: int = SIZE, how: Resize = "area") -> DecodedSplit:
    return decoded(dataset, [np.arange(COUNT)], size, resize=how, root=root)


def test_batches_are_those_of_the_images(root: Path, recipe: Dataset, tmp_path: Path) -> None:
    """Of a data set of images: all but the photograph to the byte, and that up to the rounding of JPEG."""
    order = np.random.default_rng(0).permutation(COUNT)
    found = split_of(recipe, tmp_path).gather(order)
    images = split_of(Dataset.open(root / "images"), tmp_path).gather(order)
    for name in ("bg", "mask", "depth"):
        np.testing.assert_array_equal(getattr(found, name), getattr(images, name))
    difference = np.abs(found.fg_bg.astype(int) - images.fg_bg)
    assert difference.mean() < 1.5
    away = found.mask == 0
    np.testing.assert_array_equal(found.fg_bg[away], found.bg[away])


def test_composed_size_is_exact(recipe: Dataset, tmp_path: Path) -> None:
    """The samples are composed by the same function as those that are stored."""
    order = np.random.default_rng(1).permutation(COUNT)
    check(split_of(recipe, tmp_path).gather(order), expected(recipe, order, SIZE))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["area", "bilinear", "lanczos"])
@pytest.mark.parametrize("size", [16, 32, 48, 80, 128])
def test_other_sizes_are_within_a_level(recipe: Dataset, tmp_path: Path, size: int, how: Resize) -> None:
    """Only the area of the cutout is resized, to the pixels that resizing the whole image gives."""
    rows = np.arange(COUNT)
    found, wanted = split_of(recipe, tmp_path, size, how).gather(rows), expected(recipe, rows, size, how)
    for left, right in zip(found.arrays(), wanted.arrays(), strict=True):
        difference = np.abs(left.astype(int) - right)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(32, 48), (96, 48), (32, 32), (SIZE, SIZE)])
def test_images_are_fitted_as_those_that_are_stored(
    root: Path, recipe: Dataset, tmp_path: Path, size: tuple[int, int], fit: Fit
) -> None:
    """Rectangular, cropped and padded, with the same validity masks."""
    rows = np.arange(COUNT)
    found, wanted = (
        decoded(dataset, [rows], size, fit=fit, root=tmp_path).gather(rows)
        for dataset in (recipe, Dataset.open(root / "images"))
    )
    assert (found.valid is None) == (wanted.valid is None)
    for name in found._fields:
        left, right = getattr(found, name), getattr(wanted, name)
        if left is not None:
            difference = np.abs(left.astype(int) - right)
            assert difference.mean() < 1.5 if name == "fg_bg" else difference.max() <= 1


def test_parts_are_read_as_one(recipe: Dataset, tmp_path: Path) -> None:
    """In the order of the parts, from the same entry."""
    train, val = np.arange(0, COUNT, 2), np.arange(1, COUNT, 2)
    told: list[int] = []
    both = decoded(recipe, [train, val], 32, root=tmp_path, on_samples=told.append)
    rows = np.concatenate([train, val])
    assert (len(both), sum(told)) == (COUNT, COUNT)
    order = np.random.default_rng(2).permutation(COUNT)
    check(both.gather(order), split_of(recipe, tmp_path, 32).gather(rows[order]))


def test_entries_are_shared_by_all_trials(root: Path, recipe: Dataset, tmp_path: Path) -> None:
    """One has the sources, and one for each other size and method their backgrounds; whatever the split is."""
    for size, how in ((SIZE, "area"), (32, "area"), (32, "bilinear")):
        for rows in (np.arange(COUNT), np.arange(7)):
            decoded(recipe, [rows], size, resize=how, root=tmp_path)  # type: ignore[arg-type]
    names = sorted(path.name[17:] for path in tmp_path.iterdir() if path.is_dir())
    assert names == ["v2-composed-32px-area", "v2-composed-32px-bilinear", "v2-composed-sources"]


def test_data_set_is_read_once(root: Path, tmp_path: Path) -> None:
    """From the second trial on, only the rows are: here the images of the sources are gone."""
    path = tmp_path / "set"
    path.mkdir()
    for file in (root / "recipe").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    wanted = split_of(Dataset.open(path), tmp_path / "cache", 32).gather(np.arange(COUNT))
    dataset = Dataset.open(path)
    for kind in ("backgrounds", "depths", "cutouts"):
        for part in path.glob(f"{kind}-*"):
            part.unlink()
    check(split_of(dataset, tmp_path / "cache", 32).gather(np.arange(COUNT)), wanted)


@pytest.mark.parametrize("size", [SIZE, 32])
def test_sources_without_room_are_read_from_the_data_set(
    recipe: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """To the same pixels, with a warning that says what they need."""
    rows = np.arange(COUNT)
    wanted = split_of(recipe, tmp_path / "cache", size).gather(rows)
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    with pytest.warns(UserWarning, match="decoded and resized anew for every batch"):
        split = split_of(recipe, tmp_path / "none", size)
    check(split.gather(rows), wanted)


def test_size_in_the_cache_is_known_in_advance(recipe: Dataset, tmp_path: Path) -> None:
    """A search says what its cache will take before it fills a disk."""
    split_of(recipe, tmp_path, 32)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    assert cache_bytes(recipe, 32) <= taken <= cache_bytes(recipe, 32) + 8 * 1024


@pytest.mark.parametrize("row", [-1, COUNT])
def test_unknown_row_is_refused(recipe: Dataset, tmp_path: Path, row: int) -> None:
    """As for the images of samples."""
    with pytest.raises(IndexError, match=rf"0\.\.{COUNT - 1}"):
        split_of(recipe, tmp_path).gather(np.array([3, row]))


def test_batches_are_independent(recipe: Dataset, tmp_path: Path) -> None:
    """Augmentation changes a batch in place, and loaders make several at once: the sources must stay as they are."""
    split = split_of(recipe, tmp_path)
    wanted = expected(recipe, np.arange(COUNT), SIZE)
    for stack in split.gather(np.arange(COUNT)).arrays():
        stack[:] = 0
    batches = [np.random.default_rng(seed).permutation(COUNT)[:8] for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for batch, found in zip(batches, pool.map(split.gather, batches), strict=True):
            check(found, DecodedImages(*(stack[batch] for stack in wanted.arrays())))


def test_damaged_sources_stop_the_trial(root: Path, tmp_path: Path) -> None:
    """With the name of the part."""
    path = tmp_path / "set"
    path.mkdir()
    for file in (root / "recipe").iterdir():
        (path / file.name).write_bytes(file.read_bytes())
    dataset = Dataset.open(path)
    (part,) = path.glob("cutouts-*")
    content = bytearray(part.read_bytes())
    content[200] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(InputError, match=part.name):
        split_of(dataset, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []


def test_one_pixel_cutouts_are_composed(tmp_path: Path) -> None:
    """The smallest cutouts, which may lose their opaque pixels, at a size without common units."""
    put(tmp_path / "fg/line.png", marker(60, 8))
    options = kit(tmp_path, backgrounds=1, foregrounds=1) | {"size": 41, "scale": (0.05, 0.07)}
    put(tmp_path / "bg/room0.png", photo(3))
    composition = Composition(**options)
    compose(composition, open_sources(composition), tmp_path / "set")
    dataset, rows = Dataset.open(tmp_path / "set"), np.arange(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = decoded(dataset, [rows], 32, root=tmp_path / "cache").gather(rows)
    for left, right in zip(found.arrays(), expected(dataset, rows, 32).arrays(), strict=True):
        assert np.abs(left.astype(int) - right).max() <= 1
