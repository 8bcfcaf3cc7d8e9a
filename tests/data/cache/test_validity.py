"""Validity masks in the cache: they are resized with the depth, and cost nothing where there are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data.cache.cache import decoded
from data.cache.decoded import DecodedSplit
from data.cache.mapped import decoded_bytes
from data.cache.on_the_fly import OnTheFlySplit
from data.dataset.dataset import Dataset, write_dataset
from data.images import Resize, encode_mask, encode_sample, resize_depth, resize_to
from data.schema import EncodedSample, Pixels, Sample

HEIGHT, WIDTH, COUNT, SIZE, LARGE = 24, 36, 9, 16, 64
ROWS = np.arange(COUNT, dtype=np.int64)


def holes(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """A validity mask with invalid blocks."""
    coarse = np.random.default_rng(seed).random((height // 4, width // 4)) < 0.4
    return np.where(np.kron(coarse, np.ones((4, 4))), 0, 255).astype(np.uint8)


def samples(*, masked: bool, level: int | None = None) -> list[EncodedSample]:
    """Of the masked samples, every third has no mask; invalid depth is `level`, or noise."""
    found = []
    for number in range(COUNT):
        rng = np.random.default_rng((1, number))
        valid = holes(number) if masked and number % 3 else None
        depth = rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8)
        if valid is not None and level is not None:
            depth = np.where(valid, depth, level).astype(np.uint8)
        sample = Sample(
            sample_id=f"s{number}",
            bg_id=f"bg{number % 2}",
            fg_id="fg",
            bg=np.full((HEIGHT, WIDTH, 3), number % 2, np.uint8),
            fg_bg=rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8),
            mask=rng.integers(0, 256, (HEIGHT, WIDTH), np.uint8),
            depth=depth,
            valid=valid,
        )
        found.append(encode_sample(sample, lossless=True))
    return found


def write(path: Path, *, masked: bool = True) -> Dataset:
    write_dataset(samples(masked=masked), path, source={})
    return Dataset.open(path)


def averaged(depth: Pixels, valid: Pixels, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Averages over blocks in numpy, where sides are multiples of `size`: the valid share, and its mean depth."""
    rows, columns = depth.shape[0] // size, depth.shape[1] // size
    blocks = (size, rows, size, columns)
    known = (valid > 0).astype(float)
    share = known.reshape(blocks).mean(axis=(1, 3))
    total = (known * depth).reshape(blocks).mean(axis=(1, 3))
    return share, np.divide(total, share, out=np.zeros_like(total), where=share > 0)


def test_resized_depth_is_the_mean_of_its_valid_pixels() -> None:
    """The area average of numpy, weighted by validity; valid where at least half of the area is."""
    depth, valid = np.random.default_rng(0).integers(0, 256, (48, 96), np.uint8), holes(3, 48, 96)
    share, mean = averaged(depth, valid, 12)

    resized, kept = resize_depth(depth, valid, 12, 12)

    assert kept is not None
    assert 0 < kept.mean() < 255
    np.testing.assert_array_equal(kept, np.where(share >= 0.5, 255, 0))
    assert np.abs(resized - mean)[share >= 0.5].max() <= 0.5 + 1e-3


@pytest.mark.parametrize("how", ["area", "bilinear", "lanczos"])
@pytest.mark.parametrize("size", [16, 24, 50])
def test_invalid_levels_have_no_influence_on_valid_pixels(how: Resize, size: int) -> None:
    """A hole is often stored as 0, which would pull its surroundings towards the camera."""
    valid = holes(4)
    depth = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    found = [
        resize_depth(np.where(valid, depth, level).astype(np.uint8), valid, size, size, how=how) for level in (0, 255)
    ]

    (black, kept), (white, same) = found
    assert kept is not None
    np.testing.assert_array_equal(kept, same)
    np.testing.assert_array_equal(black[kept > 0], white[kept > 0])


@pytest.mark.parametrize("how", ["area", "bilinear", "lanczos"])
def test_a_white_mask_changes_nothing(how: Resize) -> None:
    """A sample without holes has the same depth in a data set with masks as in one without."""
    depth = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)

    resized, valid = resize_depth(depth, np.full_like(depth, 255), SIZE, SIZE, how=how)

    np.testing.assert_array_equal(resized, resize_to(depth, SIZE, SIZE, how=how))
    assert valid is not None
    assert valid.min() == 255


def check(split: DecodedSplit, dataset: Dataset, rows: NDArray[np.int64]) -> None:
    stored = list(dataset.read())
    found = split.gather(rows)
    assert found.valid is not None
    for index, row in enumerate(rows):
        sample = stored[row]
        full = np.full((HEIGHT, WIDTH), 255, np.uint8)
        given = full if sample.valid is None else sample.valid
        depth, valid = resize_depth(sample.depth, given, *split.sides)
        np.testing.assert_array_equal(found.depth[index], depth)
        np.testing.assert_array_equal(found.valid[index], valid)


def test_masks_come_from_one_or_more_entries(tmp_path: Path) -> None:
    """Training on train + val reads two entries as one."""
    dataset = write(tmp_path / "set")
    order = np.random.default_rng(0).permutation(COUNT)

    check(decoded(dataset, [ROWS], SIZE, root=tmp_path / "cache"), dataset, order)
    check(decoded(dataset, [ROWS[:4], ROWS[4:]], SIZE, root=tmp_path / "cache"), dataset, order)


@pytest.mark.parametrize("encoded_fit", [True, False])
def test_masks_are_the_same_on_the_fly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded_fit: bool) -> None:
    """From the cache of encoded images, and from the data set itself."""
    dataset = write(tmp_path / "set")
    encoded_bytes = sum(part.bytes for part in dataset.info.parts)
    assert 1.2 * encoded_bytes < decoded_bytes(COUNT, 2, LARGE, has_validity=True)
    monkeypatch.setenv("TWINHEAD_CACHE_GB", str(1.2 * encoded_bytes * encoded_fit / 1e9))

    with pytest.warns(UserWarning, match="decoded anew") as caught:
        split = decoded(dataset, [ROWS], LARGE, root=tmp_path / "cache")

    assert isinstance(split, OnTheFlySplit)
    assert any("do not fit either" in str(warning.message) for warning in caught) != encoded_fit
    order = np.random.default_rng(2).permutation(COUNT)
    split.prefetch(order[:3])
    check(split, dataset, order)


def test_sets_without_masks_have_the_entries_of_earlier_versions(tmp_path: Path) -> None:
    """No array is added to the cache, and none to a batch."""
    split = decoded(write(tmp_path / "set", masked=False), [ROWS], SIZE, root=tmp_path / "cache")

    (entry,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert sorted(path.stem for path in entry.glob("*.npy")) == ["bg", "depth", "fg_bg", "index", "mask"]
    batch = split.gather(ROWS)
    assert batch.valid is None
    assert batch.depth.base is not None
    assert batch.depth.base.nbytes == 8 * COUNT * SIZE**2


def test_masks_are_one_more_plane(tmp_path: Path) -> None:
    """What the plan of a search says about the disk."""
    decoded(write(tmp_path / "set"), [ROWS], SIZE, root=tmp_path / "cache")

    (entry,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
    arrays = [np.load(path, mmap_mode="r") for path in entry.glob("*.npy") if path.stem != "index"]
    assert sum(array.nbytes for array in arrays) == decoded_bytes(COUNT, 2, SIZE, has_validity=True)


def test_a_missing_mask_takes_no_bytes(tmp_path: Path) -> None:
    """Most samples of a data set may have none."""
    few = samples(masked=True)
    few = [*few[:2], *(EncodedSample(**{**vars(sample), "valid": None}) for sample in few[2:])]
    write_dataset(few, tmp_path / "few", source={})

    stored = list(Dataset.open(tmp_path / "few").read_encoded())

    assert [sample.valid for sample in stored] == [None, encode_mask(holes(1)), *[None] * 7]
