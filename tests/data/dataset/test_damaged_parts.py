"""Damaged data sets: altered, truncated or lost files are named, and never read as something else."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.images import encode_png
from data.schema import EncodedSample


def written(path: Path, count: int = 10, part_bytes: int = 3000) -> Dataset:
    """A data set of noise, three backgrounds taking turns."""
    generator = np.random.default_rng(0)
    photos = [encode_png(generator.integers(0, 256, (12, 16, 3), np.uint8)) for _ in range(count)]
    planes = [encode_png(generator.integers(0, 256, (12, 16), np.uint8)) for _ in range(count)]
    samples = [
        EncodedSample(
            sample_id=f"s{number}",
            bg_id=f"bg{number % 3}",
            fg_id="fg",
            bg=photos[number % 3],
            fg_bg=photos[number],
            mask=planes[number],
            depth=planes[-number],
        )
        for number in range(count)
    ]
    write_dataset(samples, path, source={}, part_bytes=part_bytes)
    return Dataset.open(path)


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def test_missing_data_set_is_named(tmp_path: Path) -> None:
    """The commonest error is a wrong path."""
    with pytest.raises(InputError, match=r"'.*nowhere' does not exist"):
        Dataset.open(tmp_path / "nowhere")


def test_missing_part_is_named(tmp_path: Path) -> None:
    """An incomplete copy must be found before hours of training."""
    path = Path(written(tmp_path / "set").path)
    (path / "samples-00001.parquet").unlink()

    with pytest.raises(InputError, match=r"samples-00001\.parquet' of the data set is missing"):
        Dataset.open(path)


def test_cut_off_part_is_named(tmp_path: Path) -> None:
    """A copy that was broken off has a part of another size."""
    path = Path(written(tmp_path / "set").path)
    part = path / "samples-00000.parquet"
    part.write_bytes(part.read_bytes()[:-10])

    with pytest.raises(InputError, match=r"samples-00000\.parquet' was altered"):
        Dataset.open(path)


def test_verifying_names_the_altered_part(tmp_path: Path) -> None:
    """A flipped bit keeps the size; comparing checksums finds it wherever it is."""
    path = Path(written(tmp_path / "set").path)
    flip_byte(path / "samples-00001.parquet", 700)

    with pytest.raises(InputError, match=r"samples-00001\.parquet' was altered .*its SHA-256 differs"):
        Dataset.open(path, verify=True)


def test_verifying_an_intact_data_set_reports_its_bytes(tmp_path: Path) -> None:
    """The last count is the whole, so that a progress bar ends full."""
    dataset = written(tmp_path / "set")
    compared: list[int] = []

    Dataset.open(dataset.path, verify=True, on_bytes=compared.append)

    assert compared == list(itertools.accumulate(part.bytes for part in dataset.info.parts))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["samples", "backgrounds"])
def test_damage_anywhere_in_a_part_is_an_input_error(tmp_path: Path, kind: str) -> None:
    """Unverified, damage shows when it is read: never as the library's own error, never as wrong pixels."""
    path = Path(written(tmp_path / "set", count=2, part_bytes=2**28).path)
    part = path / f"{kind}-00000.parquet"
    intact = part.read_bytes()
    before = list(Dataset.open(path).read_encoded())
    errors = 0
    for place in range(0, len(intact), 9):
        flip_byte(part, place)
        try:
            assert list(Dataset.open(path).read_encoded()) == before
        except InputError as error:
            errors += 1
            assert part.name in str(error) or "has no background" in str(error)
        part.write_bytes(intact)

    assert errors > len(intact) / 9 / 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "does not describe a data set"),
        ("[]", "does not describe a data set"),
        ("{}", "does not describe a data set"),
        ('{"schema_version": 1}', "does not describe a data set .counts"),
        ('{"schema_version": 4}', "newer Twinhead .*upgrade Twinhead"),
    ],
)
def test_unusable_manifest_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """A file of another program, of another time, or an empty one each gets a sentence that says so."""
    (tmp_path / "dataset.json").write_text(text)

    with pytest.raises(InputError, match=sentence):
        Dataset.open(tmp_path)
