"""The budget of the cache: entries in use stay, the least recently used go, and images beyond it still train."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from data.cache.budget import growth_bytes
from data.cache.cache import decoded
from data.cache.decoded import DecodedImages
from data.cache.mapped import decoded_bytes
from data.cache.on_the_fly import OnTheFlySplit
from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.images import Resize, encode_sample
from data.schema import EncodedSample, Sample

COUNT = 60
ROOMS = 6
SIZE = 32
ENTRY = decoded_bytes(COUNT, ROOMS, SIZE)


def samples() -> Iterator[EncodedSample]:
    """Noise of 40 x 48 pixels, whose photographs take more than a page of a part together."""
    for number in range(COUNT):
        room = np.random.default_rng((5, number % ROOMS)).integers(0, 256, (40, 48, 3), np.uint8)
        rng = np.random.default_rng((6, number))
        yield encode_sample(
            Sample(
                sample_id=f"s{number}",
                bg_id=f"bg{number % ROOMS}",
                fg_id="figure",
                bg=room,
                fg_bg=rng.integers(0, 256, (40, 48, 3), np.uint8),
                mask=rng.integers(0, 2, (40, 48), np.uint8) * 255,
                depth=rng.integers(0, 256, (40, 48), np.uint8),
            ),
            lossless=number % 2 == 0,
        )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("noise") / "set"
    write_dataset(samples(), path, source={}, part_bytes=100_000)
    return Dataset.open(path)


def rows(start: int = 0, stop: int = COUNT) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(start, stop, dtype=np.int64)


def allow(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """Room for so many entries of the whole data set, and for what an entry takes beside its images."""
    monkeypatch.setenv("TWINHEAD_CACHE_GB", str(count * (ENTRY + 2**15) / 1e9))


def entries(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


def check(found: DecodedImages, wanted: DecodedImages) -> None:
    for name, left, right in zip(DecodedImages._fields, found, wanted, strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_least_recently_used_entry_is_evicted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of a node must not fill its disk, and what is read again and again is what should stay."""
    allow(monkeypatch, 2)
    ways: list[Resize] = ["area", "bilinear"]
    names = []
    for how in ways:
        decoded(dataset, [rows()], SIZE, resize=how, root=tmp_path)
        names += sorted(entries(tmp_path) - set(names))
    decoded(dataset, [rows()], SIZE, resize="area", root=tmp_path)
    decoded(dataset, [rows()], SIZE, resize="lanczos", root=tmp_path)
    assert len(entries(tmp_path)) == 2
    assert names[0] in entries(tmp_path)
    assert names[1] not in entries(tmp_path)


def test_entry_in_use_is_not_evicted(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed under a trial that has it mapped, it would free nothing, and the next trial would decode it again."""
    allow(monkeypatch, 1)
    used = decoded(dataset, [rows()], SIZE, root=tmp_path)
    kept = entries(tmp_path)
    with pytest.warns(UserWarning, match="decoded anew"):
        decoded(dataset, [rows()], SIZE, resize="bilinear", root=tmp_path)
    assert entries(tmp_path) == kept
    assert used.gather(rows()).mask.any()
    del used
    decoded(dataset, [rows()], SIZE, resize="bilinear", root=tmp_path)
    assert not entries(tmp_path) & kept


READS = """
import sys, time
from pathlib import Path
import numpy as np
from data.cache.cache import decoded
from data.dataset.dataset import Dataset
split = decoded(Dataset.open(Path(sys.argv[1])), [np.arange(60)], 32, root=Path(sys.argv[2]))
print("mapped", flush=True)
time.sleep(600)
"""


def test_entry_used_by_another_process_is_kept_until_it_dies(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trials are processes of their own; one that is killed cannot say that it does not need its entry any more."""
    allow(monkeypatch, 1)
    command = [sys.executable, "-c", READS, str(dataset.path), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as trial:
        assert trial.stdout
        assert trial.stdout.readline() == b"mapped\n"
        with pytest.warns(UserWarning, match="decoded anew"):
            decoded(dataset, [rows()], SIZE, resize="bilinear", root=tmp_path)
        trial.kill()
    kept = entries(tmp_path)
    decoded(dataset, [rows()], SIZE, resize="bilinear", root=tmp_path)
    assert not entries(tmp_path) & kept


def test_nothing_is_evicted_for_an_entry_that_cannot_fit(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A split of 100 GB must not empty the cache of a node with 80 GB."""
    allow(monkeypatch, 1)
    decoded(dataset, [rows()], SIZE, root=tmp_path)
    kept = entries(tmp_path)
    with pytest.warns(UserWarning, match="decoded anew"):
        decoded(dataset, [rows()], 2 * SIZE, root=tmp_path)
    assert entries(tmp_path) == kept


def test_eviction_leaves_other_directories_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's directory is the user's choice, and may hold what others wrote."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x" * ENTRY)
    allow(monkeypatch, 1)
    for how in ("area", "bilinear"):
        decoded(dataset, [rows()], SIZE, resize=how, root=tmp_path)
    assert (tmp_path / "thesis" / "chapter.txt").exists()
    assert len(entries(tmp_path)) == 2


def build_together(path: Path, root: Path, how: Resize) -> tuple[int, str]:
    """The most bytes that the cache took while this process built, and whether it fitted, with another building."""
    most = 0
    (root / f"ready-{how}").touch()
    while len(list(root.glob("ready-*"))) < 2:
        time.sleep(0.01)

    def measure(_: int) -> None:
        nonlocal most
        time.sleep(0.005)
        with suppress(FileNotFoundError):  # renamed at this moment
            most = max(most, sum(file.stat().st_size for file in root.rglob("*.npy")))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        split = decoded(Dataset.open(path), [rows()], SIZE, resize=how, root=root, on_samples=measure)
    time.sleep(0.5)
    return most, type(split).__name__


@pytest.mark.slow
def test_concurrent_builders_share_the_budget(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would fit alone: a builder that checks the free space before the other writes would fill the disk."""
    allow(monkeypatch, 1.5)
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        ways: list[Resize] = ["area", "bilinear"]
        futures = [pool.submit(build_together, dataset.path, tmp_path, how) for how in ways]
        results = [future.result(timeout=300) for future in futures]
    assert max(most for most, _ in results) <= 1.5 * (ENTRY + 2**15)
    assert sorted(kind for _, kind in results) == ["MappedSplit", "OnTheFlySplit"]


@pytest.mark.parametrize("how", ["area", "bilinear", "lanczos"])
@pytest.mark.parametrize("size", [24, 48])
def test_images_beyond_the_budget_are_decoded_identically(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Resize, size: int
) -> None:
    """The size of a node's disk must not change the result of a trial."""
    parts = [rows(0, 40), rows(45, COUNT)]
    cached = decoded(dataset, parts, size, resize=how, root=tmp_path / "large")
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    with pytest.warns(UserWarning, match="decoded anew"):
        split = decoded(dataset, parts, size, resize=how, root=tmp_path / "small")
    assert (len(split), split.sides) == (len(cached), (size, size))
    for seed in range(3):  # the first time, row groups are read whole; then, images alone
        order = np.random.default_rng(seed).permutation(len(split))[:30]
        order[4] = order[9]
        split.prefetch(order[:7])
        check(split.gather(order), cached.gather(order))
    assert entries(tmp_path / "small") == set()


def test_row_groups_read_again_give_the_same_images(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a large data set, few row groups stay in memory; each image must be that of its sample all the same."""
    cached = decoded(dataset, [rows()], SIZE, root=tmp_path / "large")
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    monkeypatch.setattr("data.cache.encoded._MAX_GROUP_BYTES", 0)
    with pytest.warns(UserWarning, match="do not fit either"):
        split = decoded(dataset, [rows()], SIZE, root=tmp_path / "small")
    for seed in range(2):
        order = np.random.default_rng(seed).permutation(COUNT)
        check(split.gather(order), cached.gather(order))


def test_the_warning_says_how_much_is_missing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow trials on a full disk are a riddle otherwise."""
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0.00002")
    told: list[int] = []
    with pytest.warns(UserWarning) as caught:
        decoded(dataset, [rows()], SIZE, root=tmp_path, on_samples=told.append)
    (warning,) = caught
    assert "60 samples at 32 px" in str(warning.message)
    assert "they need 331 kB" in str(warning.message)
    assert "has 20.0 kB for them" in str(warning.message)
    assert "TWINHEAD_CACHE_GB" in str(warning.message)
    assert sum(told) == COUNT


def test_full_disk_falls_back_to_decoding_on_the_fly(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may fill it after we looked; a trial must not end for that, least of all by a signal."""

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.warns(UserWarning, match="decoded anew"):
        split = decoded(dataset, [rows()], SIZE, root=tmp_path)
    assert split.gather(rows(0, 3)).mask.shape == (3, SIZE, SIZE)
    assert list(tmp_path.glob(".*.building")) == []


def test_disk_full_during_writing_falls_back_to_decoding_on_the_fly(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems do not keep what they allocated; the trial continues, and no partial file stays."""

    def full(descriptor: int, content: bytes, offset: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with pytest.warns(UserWarning, match="decoded anew"):
        split = decoded(dataset, [rows()], SIZE, root=tmp_path)
    assert split.gather(rows(0, 3)).mask.any()
    assert entries(tmp_path) == set()


def old_entry(root: Path, count: int) -> Path:
    """An entry as version 1 wrote it."""
    entry = root / "0123456789abcdef-32px-0123456789abcdef"
    entry.mkdir(parents=True)
    (entry / "samples.arrow").write_bytes(b"x" * count)
    return entry


def test_entries_of_an_earlier_version_are_counted_and_evicted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing reads them any more: they must neither fill the disk beside the budget nor stay for ever."""
    old = old_entry(tmp_path, ENTRY)
    allow(monkeypatch, 1.5)
    decoded(dataset, [rows()], SIZE, root=tmp_path)
    assert not old.exists()
    assert len(entries(tmp_path)) == 1


def test_entry_used_by_an_earlier_version_is_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search that was started before an upgrade keeps its mapped files."""
    old = old_entry(tmp_path, ENTRY)
    allow(monkeypatch, 1.5)
    with (old / "samples.arrow").open("rb") as mapped:
        fcntl.flock(mapped, fcntl.LOCK_SH)
        with pytest.warns(UserWarning, match="decoded anew"):
            decoded(dataset, [rows()], SIZE, root=tmp_path)
    assert old.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_during_decoding_leaves_no_files(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Some file systems promise room and do not have it: the images are the same, decoded on the fly."""

    def refuse(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.warns(UserWarning, match="decoded anew"):
        split = decoded(dataset, [rows()], SIZE, root=tmp_path)

    assert isinstance(split, OnTheFlySplit)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_growth_of_the_cache_is_known_in_advance(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search sees to it that its checkpoints fit beside; what lies there already takes no further room."""
    fingerprint = dataset.info.fingerprint
    allow(monkeypatch, 2)
    assert growth_bytes(tmp_path, fingerprint, ENTRY) == ENTRY
    assert growth_bytes(tmp_path, fingerprint, 10 * ENTRY) == pytest.approx(2 * (ENTRY + 2**15))
    decoded(dataset, [rows()], SIZE, root=tmp_path)
    assert growth_bytes(tmp_path, fingerprint, ENTRY) == 0
    assert growth_bytes(tmp_path, "another", ENTRY) == ENTRY
    assert growth_bytes(tmp_path, fingerprint, 10 * ENTRY) < 1.2 * ENTRY


def test_errors_while_decoding_on_the_fly_are_reported(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is gone in the middle of a trial ends it with a sentence, and not with a hanging loader."""
    path = tmp_path / "set"
    write_dataset(samples(), path, source={}, part_bytes=100_000)
    monkeypatch.setenv("TWINHEAD_CACHE_GB", "0")
    with pytest.warns(UserWarning, match="decoded anew"):
        split = decoded(Dataset.open(path), [rows()], SIZE, root=tmp_path / "cache")
    for part in path.glob("samples-*"):
        part.unlink()
    with pytest.raises(InputError, match=r"samples-\d+\.parquet"):
        split.gather(rows())


@pytest.mark.parametrize("text", ["lots", "", "-1", "nan", "inf"])
def test_budget_must_be_a_number(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Taken for zero, it would make every trial slow; taken for all, it would fill the disk."""
    monkeypatch.setenv("TWINHEAD_CACHE_GB", text)
    with pytest.raises(InputError, match=f"The value of 'TWINHEAD_CACHE_GB' is '{text}', but must be a number"):
        decoded(dataset, [rows()], SIZE, root=tmp_path)
