"""The cache of decoded images: it equals the stored data, is built once, and is never used half built."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data.cache.cache import cache_root, decoded
from data.cache.decoded import IMAGES, DecodedImages
from data.cache.mapped import decoded_bytes
from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.images import Resize, encode_sample, resize
from data.schema import EncodedSample, Sample

COUNT = 150
ROOMS = 7


def samples(count: int, seed: int) -> Iterator[EncodedSample]:
    """Noise of 20 x 28 pixels; the backgrounds take turns."""
    for number in range(count):
        room = np.random.default_rng((seed, number % ROOMS)).integers(0, 256, (20, 28, 3), np.uint8)
        rng = np.random.default_rng((seed, 1, number))
        yield encode_sample(
            Sample(
                sample_id=f"s{number}",
                bg_id=f"bg{number % ROOMS}",
                fg_id="figure",
                bg=room,
                fg_bg=rng.integers(0, 256, (20, 28, 3), np.uint8),
                mask=rng.integers(0, 256, (20, 28), np.uint8),
                depth=rng.integers(0, 256, (20, 28), np.uint8),
            ),
            lossless=True,
        )


def write(path: Path, *, count: int = 12, seed: int = 0, part_bytes: int = 2**20) -> Dataset:
    write_dataset(samples(count, seed), path, source={}, part_bytes=part_bytes)
    return Dataset.open(path)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write(tmp_path_factory.mktemp("noise") / "set", count=COUNT)


def expected(dataset: Dataset, rows: NDArray[np.int64], size: int, how: Resize = "area") -> DecodedImages:
    """Decoded and resized one by one, in the order of `rows`."""
    stored = list(dataset.read())
    names = IMAGES
    return DecodedImages(
        **{name: np.stack([resize(getattr(stored[row], name), size, how) for row in rows]) for name in names}
    )


def check(found: DecodedImages, wanted: DecodedImages) -> None:
    for name, left, right in zip(DecodedImages._fields, found, wanted, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def entries(root: Path) -> list[str]:
    """What is taken for an entry: the directories that are not hidden."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


@pytest.mark.parametrize("size", [16, 24, 32])
def test_gather_returns_the_stored_images(dataset: Dataset, tmp_path: Path, size: int) -> None:
    """A trial must get the images of the data set in the order of its rows, whatever that is."""
    rows = np.arange(3, COUNT, dtype=np.int64)
    split = decoded(dataset, [rows], size, root=tmp_path)
    order = np.random.default_rng(0).permutation(len(rows))[:100]
    order[7] = order[3]
    assert len(split) == len(rows)
    check(split.gather(order), expected(dataset, rows[order], size))


def test_gathered_arrays_are_writable(dataset: Dataset, tmp_path: Path) -> None:
    """Augmentation changes a batch in place; the entry itself must stay as it is."""
    rows = np.arange(10, dtype=np.int64)
    split = decoded(dataset, [rows], 16, root=tmp_path)
    for stack in split.gather(rows)[:4]:
        stack[:] = 0
    check(split.gather(rows), expected(dataset, rows, 16))


def test_batches_in_use_keep_their_images(dataset: Dataset, tmp_path: Path) -> None:
    """The memory of a batch is used again, but only when nobody looks at it any more: not even at a part of it."""
    rows = np.arange(40, dtype=np.int64)
    split = decoded(dataset, [rows], 16, root=tmp_path)
    wanted = expected(dataset, rows, 16)
    batches = [rows[first : first + 8] for first in (0, 8, 16, 24, 32)] * 3
    masks = [split.gather(batch).mask[2:] for batch in batches]
    for batch, mask in zip(batches, masks, strict=True):
        np.testing.assert_array_equal(mask, wanted.mask[batch[2:]])


@pytest.mark.parametrize("row", [-1, 10])
def test_unknown_row_is_refused(dataset: Dataset, tmp_path: Path, row: int) -> None:
    """The nearest sample in its place would be a wrong label that nobody notices."""
    split = decoded(dataset, [np.arange(10, dtype=np.int64)], 16, root=tmp_path)
    with pytest.raises(IndexError, match=r"0\.\.9"):
        split.gather(np.array([3, row]))


def test_threads_gather_independent_images(dataset: Dataset, tmp_path: Path) -> None:
    """Loaders make several batches at once."""
    rows = np.arange(40, dtype=np.int64)
    split = decoded(dataset, [rows], 16, root=tmp_path)
    wanted = expected(dataset, rows, 16)
    batches = [np.random.default_rng(seed).permutation(40)[:8] for seed in range(100)]
    with ThreadPoolExecutor(4) as pool:
        for batch, found in zip(batches, pool.map(split.gather, batches), strict=True):
            check(found, DecodedImages(*(stack[batch] for stack in wanted[:4])))


def test_two_entries_are_read_as_one(dataset: Dataset, tmp_path: Path) -> None:
    """Retraining on train + val does not decode anything again, and rooms in both parts keep their images."""
    train, val = np.arange(0, COUNT, 2, dtype=np.int64), np.arange(1, COUNT, 2, dtype=np.int64)
    for part in (train, val):
        decoded(dataset, [part], 16, root=tmp_path)
    told: list[int] = []
    both = decoded(dataset, [train, val], 16, root=tmp_path, on_samples=told.append)
    order = np.random.default_rng(1).permutation(COUNT)
    check(both.gather(order), expected(dataset, np.concatenate([train, val])[order], 16))
    assert told == [len(train), len(val)]
    assert len(entries(tmp_path)) == 2


def test_entry_is_built_once(tmp_path: Path) -> None:
    """From the second trial on the data set is not read any more: here it is gone."""
    dataset = write(tmp_path / "set")
    rows = np.arange(12, dtype=np.int64)
    wanted = expected(dataset, rows, 16)
    decoded(dataset, [rows], 16, root=tmp_path / "cache")
    for part in (tmp_path / "set").iterdir():
        part.unlink()
    check(decoded(dataset, [rows], 16, root=tmp_path / "cache").gather(rows), wanted)


def test_progress_counts_every_sample(dataset: Dataset, tmp_path: Path) -> None:
    """A bar that does not reach its end looks like a search that hangs."""
    rows = np.arange(20, dtype=np.int64)
    first: list[int] = []
    second: list[int] = []
    decoded(dataset, [rows], 16, root=tmp_path, on_samples=first.append)
    decoded(dataset, [rows], 16, root=tmp_path, on_samples=second.append)
    assert (sum(first), second) == (20, [20])


def test_size_rows_and_data_identify_an_entry(tmp_path: Path) -> None:
    """Two searches share a cache; one must never see the other's images."""
    one, other = write(tmp_path / "one", seed=1), write(tmp_path / "other", seed=2)
    root, rows = tmp_path / "cache", np.arange(12, dtype=np.int64)
    for count, (dataset, chosen, size) in enumerate(
        [(one, rows, 16), (one, rows, 32), (one, rows[1:], 16), (other, rows, 16)], start=1
    ):
        split = decoded(dataset, [chosen], size, root=root)
        check(split.gather(np.arange(len(chosen))), expected(dataset, chosen, size))
        assert len(entries(root)) == count


def test_resize_method_identifies_an_entry(dataset: Dataset, tmp_path: Path) -> None:
    """Trials that differ in it share a cache; one must never see the other's images."""
    rows = np.arange(12, dtype=np.int64)
    ways: list[Resize] = ["area", "bilinear", "lanczos"]
    for count, how in enumerate(ways, start=1):
        split = decoded(dataset, [rows], 16, resize=how, root=tmp_path)
        check(split.gather(rows), expected(dataset, rows, 16, how))
        assert len(entries(tmp_path)) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bg", "fg_bg", "mask", "depth", "index"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "without a header"])
def test_damaged_entry_is_rebuilt(dataset: Dataset, tmp_path: Path, name: str, damage: str) -> None:
    """A disk that was full elsewhere, or a careless deletion, must not end every later search on the node."""
    rows = np.arange(12, dtype=np.int64)
    decoded(dataset, [rows], 16, root=tmp_path)
    (file,) = tmp_path.glob(f"*/{name}.npy")
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(content[:-8] if damage == "truncated" else b"\0" * len(content))
    check(decoded(dataset, [rows], 16, root=tmp_path).gather(rows), expected(dataset, rows, 16))
    assert file.read_bytes() == content
    assert len(entries(tmp_path)) == 1


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_pages_are_requested_for_splits_of_any_size(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Of a split that is larger than memory, other pages are read, but never other images."""
    monkeypatch.setattr("data.cache.mapped._IN_MEMORY", share)
    rows = np.arange(COUNT, dtype=np.int64)
    split = decoded(dataset, [rows[:70], rows[70:]], 32, root=tmp_path)
    wanted = expected(dataset, rows, 32)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(COUNT)
        split.prefetch(order[:20])
        check(split.gather(order), DecodedImages(*(stack[order] for stack in wanted[:4])))


def test_rows_must_be_in_storage_order(dataset: Dataset, tmp_path: Path) -> None:
    """They are read in that order: others would get each other's images."""
    for rows in ([2, 1], [1, 1, 2]):
        with pytest.raises(ValueError, match="ascending"):
            decoded(dataset, [np.array(rows)], 16, root=tmp_path)


def test_leftovers_of_a_dead_builder_are_not_used(dataset: Dataset, tmp_path: Path) -> None:
    """It died before the rename: its files may be cut off anywhere."""
    rows = np.arange(12, dtype=np.int64)
    decoded(dataset, [rows], 16, root=tmp_path / "elsewhere")
    (name,) = entries(tmp_path / "elsewhere")
    left = tmp_path / "cache" / f".{name}.building"
    left.mkdir(parents=True)
    (left / "index.npy").write_bytes(b"\x93NUMPY")
    (left / "stray").write_text("")
    check(decoded(dataset, [rows], 16, root=tmp_path / "cache").gather(rows), expected(dataset, rows, 16))
    assert not left.exists()
    assert sorted(path.name for path in (tmp_path / "cache" / name).iterdir()) == [
        "bg.npy",
        "depth.npy",
        "fg_bg.npy",
        "index.npy",
        "mask.npy",
    ]


WAITS_HALF_WAY = """
import sys, time
from pathlib import Path
import numpy as np
from data.cache.cache import decoded
from data.dataset.dataset import Dataset
ready = []
def count(samples):
    ready.append(samples)
    if len(ready) == 100:
        Path(sys.argv[3]).touch()
        time.sleep(600)
decoded(Dataset.open(Path(sys.argv[1])), [np.arange(150)], 16, root=Path(sys.argv[2]), on_samples=count)
"""


@pytest.fixture
def killed(dataset: Dataset, tmp_path: Path) -> Path:
    """A cache whose only builder was killed when it had two samples of three."""
    root, half_way = tmp_path / "cache", tmp_path / "half-way"
    builder = subprocess.Popen([sys.executable, "-c", WAITS_HALF_WAY, str(dataset.path), str(root), str(half_way)])
    while not half_way.exists():
        assert builder.poll() is None
        time.sleep(0.01)
    assert len(list(root.glob(".*.building"))) == 1
    os.kill(builder.pid, signal.SIGKILL)
    builder.wait()
    return root


@pytest.mark.slow
def test_leftovers_of_a_killed_builder_are_not_used(dataset: Dataset, killed: Path) -> None:
    """Nodes are taken away in the middle of it; the next trial there has to build the entry anew, and can."""
    assert entries(killed) == []
    rows = np.arange(COUNT, dtype=np.int64)
    check(decoded(dataset, [rows], 16, root=killed).gather(rows), expected(dataset, rows, 16))
    assert list(killed.glob(".*.building")) == []


@pytest.mark.slow
def test_leftovers_of_a_killed_builder_are_removed_by_any_next_build(dataset: Dataset, killed: Path) -> None:
    """It has the size of an entry, and nobody may ever ask for that entry again."""
    decoded(dataset, [np.arange(3, dtype=np.int64)], 16, root=killed)
    assert list(killed.glob(".*.building")) == []
    assert len(entries(killed)) == 1


def build_together(path: Path, root: Path, number: int, count: int = 20) -> list[int]:
    """The calls of `on_samples` in one of two processes that start at the same time."""
    dataset, told = Dataset.open(path), []
    (root / f"ready{number}").touch()
    while len(list(root.glob("ready*"))) < 2:
        time.sleep(0.01)

    def slowly(ready: int) -> None:
        time.sleep(0.02)
        told.append(ready)

    decoded(dataset, [np.arange(count, dtype=np.int64)], 16, root=root, on_samples=slowly)
    return told


@pytest.mark.slow
def test_concurrent_processes_build_an_entry_once(dataset: Dataset, tmp_path: Path) -> None:
    """All trials of a node start at the same time, and want the same entry."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(build_together, dataset.path, tmp_path, number) for number in range(2)]
        waited, built = sorted((future.result(timeout=300) for future in futures), key=len)
    assert built == [1] * 20
    assert sum(waited) == 20


@pytest.mark.slow
def test_waiting_process_shows_the_builders_progress(dataset: Dataset, tmp_path: Path) -> None:
    """To a trial's user, a bar that stands still while another process decodes is a search that hangs."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(build_together, dataset.path, tmp_path, number, 60) for number in range(2)]
        waited, built = sorted((future.result(timeout=300) for future in futures), key=len)
    assert sum(waited) == sum(built) == 60
    assert 2 < len(waited) < 60


def test_failed_build_leaves_no_entry(tmp_path: Path) -> None:
    """A damaged part must stop every trial that needs it, not the first one only."""
    dataset = write(tmp_path / "set", count=40, part_bytes=20_000)
    assert len(dataset.ids) == 40
    parts = [part.path for part in dataset.info.parts if part.kind == "samples"]
    assert len(parts) > 2
    (tmp_path / "set" / parts[-1]).unlink()
    rows, root = np.arange(40, dtype=np.int64), tmp_path / "cache"
    for _ in range(2):
        told: list[int] = []
        with pytest.raises(InputError, match=parts[-1]):
            decoded(dataset, [rows], 16, root=root, on_samples=told.append)
        assert 0 < len(told) < 40
        assert [path.name for path in root.iterdir() if path.is_dir()] == []


def test_size_on_disk_is_known_in_advance(dataset: Dataset, tmp_path: Path) -> None:
    """A search says what its cache will take before it fills a disk."""
    decoded(dataset, [np.arange(COUNT, dtype=np.int64)], 32, root=tmp_path)
    taken = sum(path.stat().st_size for path in tmp_path.rglob("*.npy"))
    assert decoded_bytes(COUNT, ROOMS, 32) <= taken <= 1.02 * decoded_bytes(COUNT, ROOMS, 32)


def test_cache_directory_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Home directories of clusters are small and slow: the place must be the user's to choose."""
    monkeypatch.setenv("TWINHEAD_CACHE", "/fast/disk")
    assert cache_root() == Path("/fast/disk")
    monkeypatch.delenv("TWINHEAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_root() == Path("/somewhere/twinhead")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_root() == Path("/home/somebody/.cache/twinhead")
