"""Validity masks in stored data sets: sets without them stay as they were, sets with them keep each one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset import manifest
from data.dataset.dataset import Dataset, write_dataset
from data.dataset.verify import verify
from data.errors import InputError
from data.grids import INVALID_COLOUR, contact_sheet
from data.images import decode_plane, encode_jpeg, encode_png, encode_sample
from data.schema import SAMPLE_COLUMNS, EncodedSample, Pixels, Sample

HEIGHT, WIDTH = 12, 16


def noise(seed: int, *shape: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def holes(seed: int) -> Pixels:
    """A validity mask in which a quarter of the pixels is invalid."""
    return np.where(noise(seed, HEIGHT, WIDTH) < 64, 0, 255).astype(np.uint8)


def sample(number: int, valid: Pixels | None) -> EncodedSample:
    return encode_sample(
        Sample(
            sample_id=f"s{number}",
            bg_id=f"bg{number % 3}",
            fg_id="fg",
            bg=noise(number % 3, HEIGHT, WIDTH, 3),
            fg_bg=noise(100 + number, HEIGHT, WIDTH, 3),
            mask=noise(200 + number, HEIGHT, WIDTH),
            depth=noise(300 + number, HEIGHT, WIDTH),
            valid=valid,
        ),
        lossless=True,
    )


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(masked=st.lists(st.booleans(), min_size=1, max_size=9), part_bytes=st.sampled_from([1, 3000, 2**28]))
def test_each_sample_keeps_its_mask(
    tmp_path_factory: pytest.TempPathFactory, masked: list[bool], part_bytes: int
) -> None:
    """Also where only some have one, and those come first, last or between others."""
    samples = [sample(number, holes(number) if has else None) for number, has in enumerate(masked)]
    path = tmp_path_factory.mktemp("set") / "set"

    info = write_dataset(samples, path, source={}, part_bytes=part_bytes)

    assert list(Dataset.open(path).read_encoded()) == samples
    assert info.has_validity == any(masked)
    assert info.schema_version == 1 + any(masked)
    assert verify(path).pictures == min(3, len(masked)) + 3 * len(masked) + sum(masked)
    assert verify(path).is_whole


def test_parts_without_masks_have_no_column_for_them(tmp_path: Path) -> None:
    """The bytes, and so the checksums, of a data set without masks are those of earlier versions."""
    write_dataset([sample(number, None) for number in range(4)], tmp_path / "set", source={})
    stored = json.loads((tmp_path / "set" / "dataset.json").read_text())

    (part,) = (tmp_path / "set").glob("samples-*.parquet")
    assert pq.read_schema(part).names == SAMPLE_COLUMNS.names
    assert stored["schema_version"] == 1
    assert "valid_fraction" not in stored["statistics"]


def test_earlier_versions_refuse_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would train on depth that was never measured."""
    write_dataset([sample(0, holes(0))], tmp_path / "set", source={})
    monkeypatch.setattr(manifest, "SCHEMA_VERSION", 1)

    with pytest.raises(InputError, match=r"newer Twinhead .schema version 2; this version reads up to 1.*upgrade"):
        Dataset.open(tmp_path / "set")


def test_fingerprint_depends_on_the_masks_and_not_on_the_parts(tmp_path: Path) -> None:
    """A cache of the same images with another mask must not be used."""
    plain = [sample(number, None) for number in range(4)]
    masked = [plain[0], *(replace(each, valid=encode_png(holes(9))) for each in plain[1:])]
    other = [*masked[:3], replace(masked[3], valid=encode_png(holes(8)))]
    found = {
        name: write_dataset(samples, tmp_path / name, source={}, part_bytes=part_bytes).fingerprint
        for name, samples, part_bytes in (
            ("plain", plain, 2**28),
            ("masked", masked, 2**28),
            ("parts", masked, 1),
            ("other", other, 2**28),
        )
    }

    assert found["masked"] == found["parts"]
    assert len(set(found.values())) == 3


def test_depth_statistics_are_of_valid_pixels(tmp_path: Path) -> None:
    """The value stored where nothing was measured says nothing about the scene."""
    masks = [holes(1), None, holes(2)]
    samples = [sample(number, valid) for number, valid in enumerate(masks)]
    depths = [decode_plane(each.depth, "depth") for each in samples]
    measured = np.concatenate(
        [depth[valid > 0] if valid is not None else depth.ravel() for depth, valid in zip(depths, masks, strict=True)]
    )
    shares = [(valid > 0).mean() if valid is not None else 1.0 for valid in masks]

    statistics = write_dataset(samples, tmp_path / "set", source={}).statistics

    np.testing.assert_allclose(statistics.depth.mean, [(measured / 255).mean()])
    np.testing.assert_allclose(statistics.depth.std, [(measured / 255).std()])
    fraction = statistics.valid_fraction
    assert fraction is not None
    assert (fraction.mean, fraction.min, fraction.max) == pytest.approx((np.mean(shares), min(shares), 1.0))
    assert fraction.masks == 2
    assert Dataset.open(tmp_path / "set").info.statistics == statistics


def test_a_set_without_any_valid_depth_is_refused(tmp_path: Path) -> None:
    """Nothing could be learned from it, and its statistics would not be numbers."""
    black = np.zeros((HEIGHT, WIDTH), np.uint8)

    with pytest.raises(InputError, match="all validity masks are black"):
        write_dataset([sample(0, black), sample(1, black)], tmp_path / "set", source={})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("valid", "sentence"),
    [
        (
            encode_png(holes(1)[:, :-1]),
            "'valid' in sample 's0' is uint8 of shape .12, 15.*must be uint8 of shape .12, 16",
        ),
        (encode_jpeg(holes(1)), "valid of sample s0 .* has the level .* must have only 0 and 255"),
        (b"no image", "valid of sample s0 .* is not an image"),
    ],
)
def test_unusable_masks_are_refused(tmp_path: Path, valid: bytes, sentence: str) -> None:
    """A mask of another size, of soft levels or that cannot be decoded is named with its sample."""
    with pytest.raises(InputError, match=sentence):
        write_dataset([replace(sample(0, None), valid=valid)], tmp_path / "set", source={})


def test_verify_names_a_damaged_mask(tmp_path: Path) -> None:
    """A flipped byte in a mask would decide unseen which depths count."""
    mask = encode_png(holes(1))
    write_dataset([sample(0, None), replace(sample(1, None), valid=mask)], tmp_path / "set", source={})
    part = next(part for part in (tmp_path / "set").glob("samples-*.parquet") if mask in part.read_bytes())
    content = bytearray(part.read_bytes())
    content[content.index(mask) + len(mask) // 2] ^= 1
    part.write_bytes(content)

    faults = [fault for fault in verify(tmp_path / "set").faults if fault.picture]

    assert [(fault.sample_id, fault.picture) for fault in faults] == [("s1", "valid")]


def test_contact_sheet_marks_invalid_depth(tmp_path: Path) -> None:
    """A stored level that was never measured must not look like a depth."""
    write_dataset([sample(0, holes(0)), sample(1, None)], tmp_path / "set", source={})

    sheet = contact_sheet(Dataset.open(tmp_path / "set"), columns=["depth"], cell=WIDTH)

    marked = (sheet == INVALID_COLOUR).all(axis=2).sum()
    assert marked == (holes(0) == 0).sum()
