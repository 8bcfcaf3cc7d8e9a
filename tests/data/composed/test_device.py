"""Batches that are composed by torch are those that OpenCV composes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data.cache.cache import decoded
from data.cache.composed import ComposedSplit
from data.compose.compose import compose
from data.compose.composition import Composition
from data.compose.sources import open_sources
from data.composed.device import DeviceComposer, device_composer
from data.dataset.dataset import Dataset
from data.images import Resize
from data.loader import Loader
from data.schema import Batch
from tests.data.compose.compose_kit import SIZE, kit

CPU = torch.device("cpu")
FIELDS = ("bg", "fg_bg", "mask", "depth")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("device")
    composition = Composition(**kit(root, backgrounds=3) | {"placements": 4, "scale": (0.1, 0.9)}, flips=True)
    compose(composition, open_sources(composition), root / "set")
    return Dataset.open(root / "set")


def split_of(recipe: Dataset, root: Path, size: int, how: Resize = "area") -> ComposedSplit:
    split = decoded(recipe, [np.arange(recipe.info.counts.samples)], size, resize=how, root=root)
    assert isinstance(split, ComposedSplit)
    return split


def difference(found: Batch, wanted: Batch, name: str) -> torch.Tensor:
    return (getattr(found, name).int() - getattr(wanted, name).int()).abs()


@pytest.mark.parametrize(
    ("size", "how"), [(SIZE, "area"), (32, "area"), (48, "bilinear"), (48, "lanczos"), (80, "area"), (96, "lanczos")]
)
def test_batches_are_within_a_level(recipe: Dataset, tmp_path: Path, size: int, how: Resize) -> None:
    """At the size of the recipe and at others, smaller and larger, and most pixels the same."""
    split = split_of(recipe, tmp_path, size, how)
    rows = np.random.default_rng(0).permutation(len(split))
    wanted = Loader(split=split, batch_size=8, device=CPU).batch(rows)
    found = DeviceComposer(split, CPU)(rows)
    assert torch.equal(found.bg, wanted.bg)
    for name in FIELDS:
        apart = difference(found, wanted, name)
        assert getattr(found, name).dtype == torch.uint8
        assert apart.max() <= 1
        assert (apart > 0).float().mean() < 0.1  # ties of halves are rounded in another direction
    assert found.bg.is_contiguous(memory_format=torch.channels_last)


def test_loaders_of_the_same_sources_share_them(recipe: Dataset, tmp_path: Path) -> None:
    """Memory of the device: training, evaluation and each later trial copied all sources again."""
    parts = ((range(6), 32), (range(6, 8), 32), (range(6), 48))
    splits = [decoded(recipe, [np.array(rows)], size, root=tmp_path) for rows, size in parts]
    composers = [DeviceComposer(split, CPU) for split in splits if isinstance(split, ComposedSplit)]
    train, val, larger = (composer._sources for composer in composers)

    assert train is val
    assert train is not larger


def test_rectangles_are_composed(recipe: Dataset, tmp_path: Path) -> None:
    """One axis may grow while the other shrinks."""
    for sides in ((32, 48), (96, 48)):
        split = decoded(recipe, [np.arange(8)], sides, root=tmp_path)
        assert isinstance(split, ComposedSplit)
        wanted = Loader(split=split, batch_size=8, device=CPU).batch(np.arange(8))
        found = DeviceComposer(split, CPU)(np.arange(8))
        for name in FIELDS:
            assert difference(found, wanted, name).max() <= 1


def test_padded_images_are_composed_on_the_cpu(recipe: Dataset, tmp_path: Path) -> None:
    """They have a border, which the device does not know."""
    split = decoded(recipe, [np.arange(8)], (32, 48), fit="pad", root=tmp_path)
    assert isinstance(split, ComposedSplit)
    assert device_composer(split, torch.device("cuda")) is None
    with pytest.raises(ValueError, match="cropped or padded"):
        DeviceComposer(split, CPU)


def test_large_batches_are_composed_in_parts(recipe: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same images: memory is needed for one part only."""
    split = split_of(recipe, tmp_path, 32)
    composer, rows = DeviceComposer(split, CPU), np.arange(len(split))[::-1].copy()
    whole = composer(rows)
    monkeypatch.setattr("data.composed.device.MAX_PIXELS", 5 * SIZE**2)
    parts = composer(rows)
    for name in FIELDS:
        assert torch.equal(getattr(parts, name), getattr(whole, name))


def test_loader_composes_on_the_device(recipe: Dataset, tmp_path: Path) -> None:
    """With the order and the batches that it has without."""
    split = split_of(recipe, tmp_path, 32)
    options = {"split": split, "batch_size": 7, "device": CPU, "shuffle": True, "seed": 3}
    plain = Loader(**options).epoch(1)  # type: ignore[arg-type]
    composed = Loader(**options, composer=DeviceComposer(split, CPU)).epoch(1)  # type: ignore[arg-type]
    for wanted, found in zip(plain, composed, strict=True):
        for name in FIELDS:
            assert difference(found, wanted, name).max() <= 1


def test_unknown_row_is_refused(recipe: Dataset, tmp_path: Path) -> None:
    """An index out of range on a GPU ends the process."""
    split = split_of(recipe, tmp_path, 32)
    with pytest.raises(IndexError, match=r"0\.\."):
        DeviceComposer(split, CPU)(np.array([len(split)]))


def test_cpu_and_stored_sources_have_no_composer(
    recipe: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, OpenCV is faster; sources without room in the cache are not copied either."""
    assert device_composer(split_of(recipe, tmp_path, 32), CPU) is None
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    with pytest.warns(UserWarning, match="anew for every batch"):
        split = split_of(recipe, tmp_path / "none", 32)
    assert device_composer(split, torch.device("cuda")) is None
    with pytest.raises(TypeError, match="in the cache"):
        DeviceComposer(split, CPU)
