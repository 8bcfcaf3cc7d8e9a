"""Stored data sets: a round trip keeps all content, and an altered or partial data set is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset import publish
from data.dataset.dataset import Dataset, write_dataset
from data.dataset.manifest import DatasetInfo, StoredSplit
from data.dataset.storage import AnyPath
from data.errors import DiskError, InputError
from data.images import decode_sample, encode_png, encode_sample
from data.schema import EncodedSample, Pixels, Sample

HEIGHT, WIDTH = 12, 16


def noise(seed: int, *shape: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded_sample(number: int, backgrounds: int = 3) -> EncodedSample:
    """Sample `number`: the backgrounds take turns, so that storage order is not sorted by background."""
    room = number % backgrounds
    return encode_sample(
        Sample(
            sample_id=f"s{number}",
            bg_id=f"bg{room}",
            fg_id=f"fg{number % 4}",
            bg=noise(room, HEIGHT, WIDTH, 3),
            fg_bg=noise(100 + number, HEIGHT, WIDTH, 3),
            mask=noise(200 + number, HEIGHT, WIDTH),
            depth=noise(300 + number, HEIGHT, WIDTH),
        ),
        lossless=True,
    )


def samples(count: int, backgrounds: int = 3) -> list[EncodedSample]:
    return [encoded_sample(number, backgrounds) for number in range(count)]


def written(path: Path, count: int = 10, part_bytes: int = 3000) -> Dataset:
    write_dataset(samples(count), path, source={"kind": "test"}, part_bytes=part_bytes)
    return Dataset.open(path)


@pytest.mark.parametrize("part_bytes", [1, 3000, 2**28])
def test_round_trip(tmp_path: Path, part_bytes: int) -> None:
    """Every byte and id comes back in order, whether each sample is a part of its own or all are one."""
    dataset = written(tmp_path / "set", part_bytes=part_bytes)

    assert list(dataset.read_encoded()) == samples(10)


def test_decoded_samples_are_those_stored(tmp_path: Path) -> None:
    """A trial sees the pixels, so the decoded background must be the sample's own even where ids take turns."""
    dataset = written(tmp_path / "set")

    for read, encoded in zip(dataset.read(), samples(10), strict=True):
        expected = decode_sample(encoded)
        assert (read.sample_id, read.bg_id, read.fg_id) == (expected.sample_id, expected.bg_id, expected.fg_id)
        for name in ("bg", "fg_bg", "mask", "depth"):
            np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 9), max_size=12))
def test_chosen_rows_come_in_storage_order(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    """A split is a set of rows: each comes once, in storage order, however the rows are listed."""
    path = tmp_path_factory.getbasetemp() / "chosen-rows"
    dataset = Dataset.open(path) if path.exists() else written(path)

    assert [sample.sample_id for sample in dataset.read(rows)] == [f"s{row}" for row in sorted(set(rows))]


def test_reading_takes_only_the_row_groups_it_needs(tmp_path: Path) -> None:
    """A worker that reads a part of the rows must not need the other parts; here those are gone."""
    dataset = written(tmp_path / "set", part_bytes=1)
    keep = {"samples-00004.parquet", "backgrounds-00001.parquet"}
    assert [sample.sample_id for sample in dataset.read([4])] == ["s4"]  # the footers are known from here on
    for part in dataset.info.parts:
        if part.path not in keep:
            (Path(dataset.path) / part.path).unlink()

    assert [sample.sample_id for sample in dataset.read([4])] == ["s4"]


def test_row_out_of_range_is_an_error(tmp_path: Path) -> None:
    """A wrong row number must not silently read fewer samples."""
    with pytest.raises(ValueError, match=r"0\.\.9"):
        list(written(tmp_path / "set").read([3, 10]))


def test_ids_are_in_storage_order(tmp_path: Path) -> None:
    """Splits choose rows by these ids."""
    ids = written(tmp_path / "set").ids

    assert ids.sample_id == tuple(f"s{number}" for number in range(10))
    assert ids.bg_id == tuple(f"bg{number % 3}" for number in range(10))
    assert ids.fg_id == tuple(f"fg{number % 4}" for number in range(10))


def test_split_that_came_with_the_data_is_kept(tmp_path: Path) -> None:
    """In dataset.json, where data sets without one have no such entry, and with the ids."""
    samples, split = list(written(tmp_path / "set").read_encoded()), StoredSplit(train=7, val=2, test=1)
    write_dataset(samples, tmp_path / "split", source={}, split=split)

    dataset = Dataset.open(tmp_path / "split")

    assert dataset.info.split == dataset.ids.split == split
    assert '"split"' not in (tmp_path / "set" / "dataset.json").read_text()
    assert Dataset.open(tmp_path / "set").ids.split is None


def test_split_of_another_number_of_samples_is_an_error(tmp_path: Path) -> None:
    """Samples would be in no part."""
    samples = list(written(tmp_path / "set").read_encoded())
    with pytest.raises(ValueError, match="There are 10 samples, but the split is"):
        write_dataset(samples, tmp_path / "split", source={}, split=StoredSplit(train=7, val=2, test=2))
    assert not (tmp_path / "split").exists()


def test_backgrounds_are_stored_and_read_once(tmp_path: Path) -> None:
    """A background stands behind thousands of samples; storing it with each would double a data set."""
    dataset = written(tmp_path / "set")

    read = list(dataset.backgrounds())

    assert [bg_id for bg_id, _ in read] == ["bg0", "bg1", "bg2"]
    for room, (_, pixels) in enumerate(read):
        np.testing.assert_array_equal(pixels, noise(room, HEIGHT, WIDTH, 3))
    assert [bg_id for bg_id, _ in dataset.backgrounds(["bg2"])] == ["bg2"]


def test_unknown_background_is_refused(tmp_path: Path) -> None:
    """A misspelt id must not give an empty answer."""
    with pytest.raises(InputError, match="no background 'cellar'"):
        list(written(tmp_path / "set").backgrounds(["cellar"]))


def test_manifest_says_what_is_stored(tmp_path: Path) -> None:
    """People and tools read dataset.json alone, so it must agree with the parts and with numpy over all pixels."""
    dataset = written(tmp_path / "set")
    stored = json.loads((Path(dataset.path) / "dataset.json").read_text())
    decoded = [decode_sample(encoded) for encoded in samples(10)]
    rooms = np.stack([noise(room, HEIGHT, WIDTH, 3) for room in range(3)]) / 255
    depths = np.stack([sample.depth for sample in decoded]) / 255
    covered = [float((sample.mask > 127).mean()) for sample in decoded]

    assert stored["schema_version"] == 1
    assert stored["counts"] == {"samples": 10, "backgrounds": 3, "foregrounds": 4}
    assert stored["sizes"] == [{"height": HEIGHT, "width": WIDTH, "samples": 10}]
    assert stored["depth_polarity"] == "far-bright"
    assert stored["source"] == {"kind": "test"}
    statistics = stored["statistics"]
    np.testing.assert_allclose(statistics["bg"]["mean"], rooms.mean(axis=(0, 1, 2)))
    np.testing.assert_allclose(statistics["bg"]["std"], rooms.std(axis=(0, 1, 2)))
    np.testing.assert_allclose(statistics["depth"]["mean"], [depths.mean()])
    np.testing.assert_allclose(statistics["depth"]["std"], [depths.std()])
    expected = {"mean": np.mean(covered), "min": min(covered), "max": max(covered)}
    assert statistics["mask_fraction"] == pytest.approx(expected)
    for part in stored["parts"]:
        content = (Path(dataset.path) / part["path"]).read_bytes()
        assert part["bytes"] == len(content)
        assert part["sha256"] == hashlib.sha256(content).hexdigest()
        assert part["rows"] == pq.read_metadata(Path(dataset.path) / part["path"]).num_rows


def test_manifest_round_trip(tmp_path: Path) -> None:
    """What is read back equals what the writer returned."""
    info = write_dataset(samples(4), tmp_path / "set", source={"seed": 1, "names": ["a"]})

    assert Dataset.open(tmp_path / "set").info == info
    assert DatasetInfo.from_json(info.to_json(), "here") == info


def test_fingerprint_depends_on_the_content_alone(tmp_path: Path) -> None:
    """A cache is keyed by it: the same rows in other parts are the same, other rows or another order are not."""
    whole = write_dataset(samples(6), tmp_path / "whole", source={}).fingerprint
    split = write_dataset(samples(6), tmp_path / "split", source={"other": 1}, part_bytes=1).fingerprint
    turned = write_dataset(samples(6)[::-1], tmp_path / "turned", source={}).fingerprint
    changed = [replace(samples(6)[0], depth=encode_png(noise(9, HEIGHT, WIDTH))), *samples(6)[1:]]
    other = write_dataset(changed, tmp_path / "other", source={}).fingerprint

    assert whole == split
    assert len({whole, turned, other}) == 3


def test_fingerprint_depends_on_the_split_that_came_with_the_samples(tmp_path: Path) -> None:
    """Scores on other validation images cannot be compared: a search must not resume with them."""
    splits = (None, StoredSplit(train=3, val=2, test=1), StoredSplit(train=4, val=1, test=1))
    fingerprints = {
        write_dataset(samples(6), tmp_path / str(number), source={}, split=split).fingerprint
        for number, split in enumerate(splits)
    }

    assert len(fingerprints) == 3


def test_fingerprint_follows_its_definition(tmp_path: Path) -> None:
    """Written out a second time here, so that it cannot change unseen and throw away every cache."""
    dataset = written(tmp_path / "set")
    rows, rooms = hashlib.sha256(), hashlib.sha256()
    seen = set()
    for sample in samples(10):
        texts = [sample.sample_id.encode(), sample.bg_id.encode(), sample.fg_id.encode()]
        for value in (*texts, sample.fg_bg, sample.mask, sample.depth):
            rows.update(len(value).to_bytes(8, "big") + value)
        if sample.bg_id not in seen:
            seen.add(sample.bg_id)
            for value in (sample.bg_id.encode(), sample.bg):
                rooms.update(len(value).to_bytes(8, "big") + value)

    expected = hashlib.sha256(rows.digest() + rooms.digest()).hexdigest()

    assert dataset.info.fingerprint == expected


def test_writer_streams(tmp_path: Path) -> None:
    """A data set larger than memory can be written only if earlier parts are on disk before later samples come."""
    parts_seen: list[int] = []

    def source() -> Iterator[EncodedSample]:
        for number in range(20):
            parts_seen.append(len(list(tmp_path.glob(".set.partial-*/set/samples-*.parquet"))))
            yield encoded_sample(number)

    write_dataset(source(), tmp_path / "set", source={}, part_bytes=5000)

    assert parts_seen[0] == 0
    assert parts_seen[-1] >= 3


def test_writer_reports_each_sample(tmp_path: Path) -> None:
    """A progress bar counts what was taken so far."""
    counts: list[int] = []

    write_dataset(samples(4), tmp_path / "set", source={}, on_sample=counts.append)

    assert counts == [1, 2, 3, 4]


def test_dataset_can_be_pickled(tmp_path: Path) -> None:
    """Workers are given the data set; it holds no open file."""
    dataset = written(tmp_path / "set")

    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - it was made in the line itself

    assert copy.ids == dataset.ids


def interrupted(error: BaseException) -> Iterator[EncodedSample]:
    yield from samples(5)
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("lost"), InputError("bad")])
def test_interrupted_write_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    """Half a data set must not be found by the next run, nor fill the disk."""
    with pytest.raises(type(error)):
        write_dataset(interrupted(error), tmp_path / "set", source={}, part_bytes=2000)

    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_a_dead_writer_are_not_a_data_set(tmp_path: Path) -> None:
    """A killed process cannot clean up: what it leaves is hidden, incomplete, and in nobody's way."""
    leftover = tmp_path / ".set.partial-1"
    leftover.mkdir()
    (leftover / "samples-00000.parquet").write_bytes(b"PAR1")

    with pytest.raises(InputError, match=r"has no dataset\.json"):
        Dataset.open(leftover)
    assert len(list(written(tmp_path / "set").read())) == 10


def test_existing_destination_is_refused(tmp_path: Path) -> None:
    """A data set that trials were run on must not be overwritten."""
    (tmp_path / "set").mkdir()

    with pytest.raises(InputError, match=r"The destination '.*/set' exists already"):
        write_dataset(samples(2), tmp_path / "set", source={})


def test_destination_that_appears_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that write to it at the same time, the later one keeps the first, and says what is there."""
    refuse = publish.refuse_existing

    def refuse_and_be_overtaken(destination: AnyPath) -> None:
        refuse(destination)
        if any(tmp_path.glob(".set.partial-*/set/*.parquet")):
            monkeypatch.setattr(publish, "refuse_existing", refuse)
            written(tmp_path / "set", count=3)

    monkeypatch.setattr(publish, "refuse_existing", refuse_and_be_overtaken)
    with pytest.raises(InputError, match=r"The destination '.*/set' exists already"):
        written(tmp_path / "set")
    assert Dataset.open(tmp_path / "set").info.counts.samples == 3


def test_destination_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    """The sentence names the place rather than showing a traceback."""
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match=r"cannot be written to '.*/file'"):
        write_dataset(samples(2), tmp_path / "file" / "set", source={})


def test_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing may fail after hours: the sentence says what to do, and the space that was taken is given back."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(DiskError, match=rf"is full .* free\), so '{tmp_path}' cannot be written; make room there"):
        write_dataset(samples(2), tmp_path / "set", source={})
    assert list(tmp_path.iterdir()) == []


def test_no_samples_are_refused(tmp_path: Path) -> None:
    """An empty data set would fail far from its cause."""
    with pytest.raises(InputError, match="There are no samples"):
        write_dataset([], tmp_path / "set", source={})


def test_duplicate_sample_id_is_refused(tmp_path: Path) -> None:
    """With two samples of one id, a split by sample would look like a leak."""
    with pytest.raises(InputError, match="'s1' occurs twice"):
        write_dataset([*samples(3), encoded_sample(1)], tmp_path / "set", source={})


def test_one_background_id_for_two_images_is_refused(tmp_path: Path) -> None:
    """The second image would be lost, and its samples shown before a wrong room."""
    other = replace(encoded_sample(3), bg=encode_png(noise(50, HEIGHT, WIDTH, 3)))

    with pytest.raises(InputError, match="'bg0' of sample 's3' is used for another image already"):
        write_dataset([*samples(3), other], tmp_path / "set", source={})


@pytest.mark.parametrize("role", ["bg", "fg_bg", "mask", "depth"])
@pytest.mark.parametrize("encoded", [b"nothing", encode_png(noise(1, 5, 5))], ids=["no-image", "other-size"])
def test_unusable_sample_is_refused(tmp_path: Path, role: str, encoded: bytes) -> None:
    """What is wrong must be found once when writing, by the sample's id, not in every trial."""
    with pytest.raises(InputError, match="s0"):
        write_dataset([replace(encoded_sample(0), **{role: encoded})], tmp_path / "set", source={})
