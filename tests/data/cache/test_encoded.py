"""The cache of encoded images: images beyond the budget of decoded ones are read from the data set once."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.cache.cache import decoded
from data.cache.decoded import IMAGES, DecodedImages, DecodedSplit
from data.cache.mapped import decoded_bytes
from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.images import Resize, encode_sample, resize
from data.schema import EncodedSample, Sample

COUNT, ROOMS, SIZE = 30, 4, 128
ALL = np.arange(COUNT, dtype=np.int64)


def samples() -> Iterator[EncodedSample]:
    """Noise of 24 x 32 pixels: encoded it is smaller than decoded at `SIZE`."""
    rooms = np.random.default_rng(1).integers(0, 256, (ROOMS, 24, 32, 3), np.uint8)
    for number in range(COUNT):
        rng = np.random.default_rng((2, number))
        sample = Sample(
            sample_id=f"s{number}",
            bg_id=f"bg{number % ROOMS}",
            fg_id="figure",
            bg=rooms[number % ROOMS],
            fg_bg=rng.integers(0, 256, (24, 32, 3), np.uint8),
            mask=rng.integers(0, 256, (24, 32), np.uint8),
            depth=rng.integers(0, 256, (24, 32), np.uint8),
        )
        yield encode_sample(sample, lossless=number % 2 == 0)


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A data set of several parts, and a budget for its encoded images."""
    write_dataset(samples(), tmp_path / "set", source={}, part_bytes=30_000)
    monkeypatch.setenv("TWINHEAD_CACHE_GB", str(decoded_bytes(COUNT, ROOMS, SIZE) / 2e9))
    return Dataset.open(tmp_path / "set")


def on_the_fly(
    dataset: Dataset,
    root: Path,
    parts: list[np.ndarray[tuple[int], np.dtype[np.int64]]] | None = None,
    size: int = SIZE,
    how: Resize = "area",
    told: list[int] | None = None,
) -> DecodedSplit:
    report = None if told is None else told.append
    with pytest.warns(UserWarning, match="decoded anew") as caught:
        split = decoded(dataset, parts or [ALL], size, resize=how, root=root, on_samples=report)
    assert not any("do not fit either" in str(warning.message) for warning in caught)
    return split


def directly(dataset: Dataset, how: Resize = "area", size: int = SIZE) -> DecodedImages:
    stored = list(dataset.read())
    names = IMAGES
    return DecodedImages(
        **{name: np.stack([resize(getattr(sample, name), size, how) for sample in stored]) for name in names}
    )


def check(split: DecodedSplit, wanted: DecodedImages, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Compare the images of the split, which are those of `rows`, in another order than they are stored in."""
    order = np.random.default_rng(0).permutation(len(rows))
    split.prefetch(order[:7])
    for name, left, right in zip(IMAGES, split.gather(order)[:4], wanted[:4], strict=True):
        np.testing.assert_array_equal(left, right[rows[order]], err_msg=name)


def entries(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


@pytest.mark.parametrize("how", ["area", "bilinear", "lanczos"])
def test_pixels_are_those_of_direct_decoding(dataset: Dataset, tmp_path: Path, how: Resize) -> None:
    """The size of a node's disk must not change the result of a trial."""
    parts = [ALL[5:20], ALL[22:]]
    split = on_the_fly(dataset, tmp_path / "cache", parts, how=how)
    check(split, directly(dataset, how), np.concatenate(parts))


def test_the_data_set_is_read_once(dataset: Dataset, tmp_path: Path) -> None:
    """From an object store, each epoch would fetch all images again: here the data set is gone."""
    wanted = directly(dataset)
    first = on_the_fly(dataset, tmp_path / "cache")
    shutil.rmtree(tmp_path / "set")
    for split in (first, on_the_fly(dataset, tmp_path / "cache")):
        check(split, wanted, ALL)


def test_splits_and_sizes_share_the_encoded_images(dataset: Dataset, tmp_path: Path) -> None:
    """They are those of the whole data set, whatever is decoded from them."""
    for rows, size in ((ALL, SIZE), (ALL[3:], SIZE), (ALL, 144)):
        check(on_the_fly(dataset, tmp_path / "cache", [rows], size), directly(dataset, size=size), rows)
    assert len(entries(tmp_path / "cache")) == 1


def test_encoded_images_take_the_bytes_of_the_data_set(dataset: Dataset, tmp_path: Path) -> None:
    """Each background is stored once: nothing of the 10 to 20 times is lost."""
    on_the_fly(dataset, tmp_path / "cache")
    taken = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    assert taken < 1.1 * sum(part.bytes for part in dataset.info.parts)


def test_progress_counts_every_sample(dataset: Dataset, tmp_path: Path) -> None:
    """A bar that does not move while a large data set is copied looks like a search that hangs."""
    first: list[int] = []
    second: list[int] = []
    parts = [ALL[:20], ALL[20:28]]
    on_the_fly(dataset, tmp_path / "cache", parts, told=first)
    on_the_fly(dataset, tmp_path / "cache", parts, told=second)
    assert (sum(first), sum(second)) == (28, 28)
    assert len(first) > len(second) == 2


def test_damaged_entry_is_rebuilt(dataset: Dataset, tmp_path: Path) -> None:
    """As one of decoded images is."""
    on_the_fly(dataset, tmp_path / "cache")
    for name in ("bytes.npy", "index.npy"):
        (entry,) = entries(tmp_path / "cache")
        (entry / name).write_bytes((entry / name).read_bytes()[:-100])
        check(on_the_fly(dataset, tmp_path / "cache"), directly(dataset), ALL)


def test_encoded_images_in_use_are_not_evicted(dataset: Dataset, tmp_path: Path) -> None:
    """Evicted under a trial that reads them, they would free nothing, and the next trial would copy them again."""
    split = on_the_fly(dataset, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    decoded(dataset, [ALL], 16, root=tmp_path / "cache")
    assert entry.exists()
    with pytest.warns(UserWarning, match="decoded anew"):
        decoded(dataset, [ALL], 88, root=tmp_path / "cache")
    assert entry.exists()
    del split
    decoded(dataset, [ALL], 88, root=tmp_path / "cache")
    assert not entry.exists()


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, dataset: Dataset) -> None:
    """A damaged cache file ends the trial with a sentence that names the sample, not with a hanging loader."""
    split = on_the_fly(dataset, tmp_path / "cache")
    (entry,) = entries(tmp_path / "cache")
    content = (entry / "bytes.npy").read_bytes()
    (entry / "bytes.npy").write_bytes(content[:128] + b"\0" * (len(content) - 128))
    with pytest.raises(InputError, match=r"of sample s0 in .*set' is not an image"):
        split.gather(ALL[:1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_process_decodes_in_threads_of_its_own(dataset: Dataset, tmp_path: Path) -> None:
    """As a worker of torch's DataLoader, after a look at the first sample: those of its parent do not run in it."""
    split = on_the_fly(dataset, tmp_path / "cache")
    expected = split.gather(ALL)
    split.prefetch(ALL[:5])
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(split.gather(ALL).fg_bg))
    process.start()
    try:
        assert receiver.poll(20)
        np.testing.assert_array_equal(receiver.recv(), expected.fg_bg)
    finally:
        process.kill()
        process.join()
