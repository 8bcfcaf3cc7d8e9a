"""A recipe is a data set like any other: its samples are those of the images, byte for byte."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.compose.compose import compose
from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset
from data.dataset.manifest import DatasetInfo
from data.dataset.parts import sha256
from data.dataset.storage import Location
from data.dataset.verify import verify
from data.errors import InputError
from data.grids import contact_sheet
from data.splits.splits import rows
from data.splits.subset import subset
from tests.data.compose.compose_kit import kit, photo, put
from tests.s3 import Store


def options(root: Path) -> Composition:
    return Composition(**kit(root, backgrounds=3), flips=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The same composition as a recipe and as images."""
    root = tmp_path_factory.mktemp("pair")
    composition = options(root)
    sources = open_sources(composition)
    compose(composition, sources, root / "recipe")
    materialise(composition, sources, root / "images", processes=1)
    return Dataset.open(root / "recipe", verify=True), Dataset.open(root / "images")


def copy(dataset: Dataset, path: Path) -> Path:
    shutil.copytree(Path(dataset.path), path)
    return path


def rewrite(path: Path, kind: str, **columns: Any) -> None:
    """Replace columns of a part, with a manifest that knows it: as if it had been written so."""
    (part,) = path.glob(f"{kind}-*.parquet")
    table = pq.read_table(part)
    for name, values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))
    pq.write_table(table, part)
    manifest = path / "dataset.json"
    values = json.loads(manifest.read_text())
    for entry in values["parts"]:
        if entry["path"] == part.name:
            entry |= {"bytes": part.stat().st_size, "sha256": sha256(Location.parse(part))}
    manifest.write_text(json.dumps(values))


def test_samples_are_those_of_the_images(pair: tuple[Dataset, Dataset]) -> None:
    """All ids and bytes, so that either form can take the place of the other."""
    recipe, images = pair
    assert list(recipe.read_encoded()) == list(images.read_encoded())
    assert recipe.ids == images.ids


def test_chosen_rows_are_composed(pair: tuple[Dataset, Dataset]) -> None:
    """In storage order, and nothing but these."""
    recipe, images = pair
    assert list(recipe.read_encoded([7, 2, 7])) == list(images.read_encoded([2, 7]))
    with pytest.raises(ValueError, match=r"0\.\.23"):
        list(recipe.read([24]))


def test_pixels_are_those_of_the_images(pair: tuple[Dataset, Dataset]) -> None:
    """Decoded samples, backgrounds and the contact sheet."""
    recipe, images = pair
    for one, other in zip(recipe.read(), images.read(), strict=True):
        for name in ("bg", "fg_bg", "mask", "depth"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for (one_id, bg), (other_id, other_bg) in zip(recipe.backgrounds(), images.backgrounds(), strict=True):
        assert one_id == other_id
        np.testing.assert_array_equal(bg, other_bg)
    np.testing.assert_array_equal(contact_sheet(recipe, 4), contact_sheet(images, 4))


def test_parts_of_a_split_are_those_of_the_images(pair: tuple[Dataset, Dataset]) -> None:
    """By any id, and in subsets."""
    recipe, images = pair
    for key in ("background", "foreground", "sample", "shuffled", "pairs"):
        found, expected = (rows(dataset.ids, "train", key, (0.6, 0.2, 0.2)) for dataset in pair)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(
            subset(recipe.ids, found, 5, split_by=key), subset(images.ids, expected, 5, split_by=key)
        )


def test_manifest_describes_the_samples(pair: tuple[Dataset, Dataset]) -> None:
    """Counts, sizes and origin; statistics before the rounding of JPEG, and all others the same."""
    recipe, images = (dataset.info for dataset in pair)
    assert (recipe.counts, recipe.sizes, recipe.source) == (images.counts, images.sizes, images.source)
    assert (recipe.schema_version, images.schema_version) == (3, 1)
    for name in ("bg", "mask", "depth", "mask_fraction"):
        assert getattr(recipe.statistics, name) == getattr(images.statistics, name)
    np.testing.assert_allclose(recipe.statistics.fg_bg.mean, images.statistics.fg_bg.mean, atol=0.002)
    assert recipe.statistics_samples is None
    assert DatasetInfo.from_json(recipe.to_json(), "here") == recipe


def test_statistics_of_many_samples_are_from_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest says of how many; they are near those of all."""
    composition = options(tmp_path)
    sources = open_sources(composition)
    whole = compose(composition, sources, tmp_path / "whole")
    monkeypatch.setattr("data.composed.writing.STATISTICS_SAMPLES", 12)
    some = compose(composition, sources, tmp_path / "some")
    assert some.statistics_samples == 12
    assert DatasetInfo.from_json(some.to_json(), "here") == some
    assert some.statistics != whole.statistics
    assert some.statistics.bg == whole.statistics.bg
    assert some.statistics.mask_fraction.mean == pytest.approx(whole.statistics.mask_fraction.mean, rel=0.5)
    assert some.fingerprint == whole.fingerprint


def test_fingerprint_follows_the_samples(tmp_path: Path, pair: tuple[Dataset, Dataset]) -> None:
    """The cache and the study know a data set by it: another seed, source or form is another one."""
    composition = options(tmp_path)
    found = {dataset.info.fingerprint for dataset in pair}
    found.add(compose(composition, open_sources(composition), tmp_path / "again").fingerprint)
    assert len(found) == 2
    other = Composition(**kit(tmp_path, backgrounds=3), flips=True, seed=1)
    found.add(compose(other, open_sources(other), tmp_path / "seed").fingerprint)
    put(tmp_path / "bg/room1.png", photo(9))
    found.add(compose(composition, open_sources(composition), tmp_path / "source").fingerprint)
    assert len(found) == 4


@pytest.mark.slow
def test_processes_and_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are the same from one process, and from two that place foregrounds in one background at a time."""
    composition = options(tmp_path)
    sources = open_sources(composition)
    compose(composition, sources, tmp_path / "one")
    monkeypatch.setattr("data.compose.compose.MIN_SAMPLES_PER_PROCESS", 1)
    monkeypatch.setattr("data.compose.compose.MAX_BLOCK_PIXELS", 1)
    told: list[int] = []
    info = compose(composition, sources, tmp_path / "two", processes=2, on_samples=told.append)
    assert sum(told) == info.counts.samples
    assert info.fingerprint == Dataset.open(tmp_path / "one").info.fingerprint
    one, two = (list(Dataset.open(tmp_path / name).read_encoded()) for name in ("one", "two"))
    assert one == two


def test_recipe_can_be_pickled(pair: tuple[Dataset, Dataset]) -> None:
    """Workers are given the data set, also after it was read."""
    copied = pickle.loads(pickle.dumps(pair[0]))  # noqa: S301 - it was made in the line itself
    assert copied.ids == pair[1].ids
    assert next(copied.read_encoded([3])) == next(pair[1].read_encoded([3]))


def test_unfinished_images_are_not_left_behind(tmp_path: Path) -> None:
    """A run that wrote images, and is now given again without --materialise, must not leave them unseen."""
    composition = options(tmp_path)
    sources = open_sources(composition)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        materialise(composition, sources, tmp_path / "set", processes=1, on_sample=stop)
    with pytest.raises(InputError, match="give --materialise to resume it"):
        compose(composition, sources, tmp_path / "set")


def test_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    """Nor does a source that is changed meanwhile."""
    composition = options(tmp_path)
    sources = open_sources(composition)

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        compose(composition, sources, tmp_path / "set", on_samples=stop)
    put(tmp_path / "bg/room2.png", photo(9))
    with pytest.raises(InputError, match=r"room2.png' was changed while"):
        compose(composition, sources, tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.slow
def test_recipe_is_written_to_an_address(store: Store, tmp_path: Path, pair: tuple[Dataset, Dataset]) -> None:
    """And read from there."""
    composition = options(tmp_path)
    info = compose(composition, open_sources(composition), store.address("recipe"))
    dataset = Dataset.open(store.address("recipe"), verify=True)
    assert dataset.info.fingerprint == info.fingerprint == pair[0].info.fingerprint
    assert list(dataset.read_encoded([5, 20])) == list(pair[1].read_encoded([5, 20]))
    assert verify(store.address("recipe")).is_whole


def test_intact_recipe_is_whole(pair: tuple[Dataset, Dataset]) -> None:
    """Backgrounds, depths and cutouts are decoded."""
    found = verify(pair[0].path)
    assert (found.faults, found.samples, found.pictures) == ((), 24, 3 + 3 + 2)


@pytest.mark.parametrize("kind", ["placements", "backgrounds", "depths", "cutouts"])
def test_altered_part_is_named(pair: tuple[Dataset, Dataset], tmp_path: Path, kind: str) -> None:
    """By the checksum of the file, whatever else can still be read."""
    (part,) = copy(pair[0], tmp_path / "set").glob(f"{kind}-*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 0xFF
    part.write_bytes(content)
    assert f"{part.name}: its SHA-256 differs: it was altered since it was written" in map(
        str, verify(tmp_path / "set").faults
    )
    with pytest.raises(InputError, match=part.name):
        Dataset.open(tmp_path / "set", verify=True)


def test_unusable_image_is_named(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    """With the id of its background or foreground."""
    path = copy(pair[0], tmp_path / "set")
    (depths,) = path.glob("depths-*.parquet")
    images = pq.read_table(depths)["depth"].to_pylist()
    rewrite(path, "depths", depth=[images[0], b"nothing", images[2]])
    (fault,) = verify(path).faults
    assert (fault.bg_id, fault.picture) == ("room1", "depth")
    with pytest.raises(InputError, match="depth of room1 in"):
        list(Dataset.open(path).read())


@pytest.mark.parametrize(("column", "value"), [("background", 3), ("foreground", 2), ("left", 60), ("height", 0)])
def test_row_that_does_not_fit_is_named(pair: tuple[Dataset, Dataset], tmp_path: Path, column: str, value: int) -> None:
    """A cutout must not be written outside of an image."""
    path = copy(pair[0], tmp_path / "set")
    (part,) = path.glob("placements-*.parquet")
    values = pq.read_table(part)[column].to_pylist()
    values[5] = value
    rewrite(path, "placements", **{column: values})
    (fault,) = verify(path).faults
    assert "row 5 does not fit the backgrounds, the cutouts or images of 64 px" in str(fault)
    with pytest.raises(InputError, match="Row 5 of the placements"):
        _ = Dataset.open(path).ids


def test_missing_rows_are_counted(pair: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    """The manifest and the parts must agree."""
    path = copy(pair[0], tmp_path / "set")
    manifest = path / "dataset.json"
    values = json.loads(manifest.read_text())
    values["counts"]["foregrounds"] = 3
    manifest.write_text(json.dumps(values))
    assert "dataset.json: it counts 3 foregrounds, but its parts have 2" in map(str, verify(path).faults)
