"""What is measured while samples are composed is what decoding their files gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.composed.columns import Placement
from data.composed.measuring import SampleMeasure
from data.composed.rendering import compose, encode_composed
from data.dataset.dataset import Dataset, write_checked, write_dataset
from data.dataset.intake import CheckedSamples
from data.dataset.statistics import StatisticsGatherer
from data.errors import InputError
from data.images import decode_photo, decode_plane, encode_jpeg
from tests.data.compose.compose_kit import kit, put

if TYPE_CHECKING:
    from data.schema import EncodedSample, Pixels


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("size", [64, 61])
def test_files_are_those_of_decoded_samples(tmp_path: Path, size: int) -> None:
    """Images, ids, checksums, fingerprint and statistics: `write_dataset` decodes every image of the same samples."""
    options = kit(tmp_path, backgrounds=3) | {"size": size, "placements": 9, "flips": True}
    rng = np.random.default_rng(0)
    put(tmp_path / "fg/ragged.png", rng.integers(0, 256, (50, 41, 4), dtype=np.uint8))
    put(tmp_path / "bg/room2.png", rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    composition = Composition(**options)
    info = materialise(composition, open_sources(composition), tmp_path / "composed", processes=1)
    samples = Dataset.open(tmp_path / "composed").read_encoded()
    decoded = write_dataset(samples, tmp_path / "decoded", source=info.source)
    assert info.statistics == decoded.statistics
    assert contents(tmp_path / "composed") == contents(tmp_path / "decoded")


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(8, 90), seed=st.integers(0, 2**32 - 1))
def test_levels_are_those_of_the_decoded_files(data: st.DataObject, size: int, seed: int) -> None:
    """Wherever the cutout is: across blocks of JPEG, in the last, cut-off ones, over the whole image, or a pixel."""
    rng = np.random.default_rng(seed)
    bg = decode_photo(encode_jpeg(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)), "")
    depth = rng.integers(0, 256, (size, size), dtype=np.uint8)
    measure, expected = SampleMeasure(bg, depth), StatisticsGatherer()
    expected.add_background(bg)
    for number in range(3):
        height, width = data.draw(st.tuples(st.integers(1, size), st.integers(1, size)))
        top, left = data.draw(st.tuples(st.integers(0, size - height), st.integers(0, size - width)))
        placement = Placement(0, 0, bool(number % 2), number, height, width, top, left, int(rng.integers(256)))
        images = compose(bg, depth, cutout(rng, height, width), placement)
        measure.add(*images, placement)
        stored = encode_composed(("bg", "fg"), b"", images, placement)
        expected.add_sample(
            decode_photo(stored.fg_bg, ""), decode_plane(stored.mask, ""), decode_plane(stored.depth, "")
        )
    found = StatisticsGatherer()
    found.add_background(bg)
    found.add_measured(measure.take())
    assert found.result() == expected.result()
    assert measure.take().levels.sum() == 0


def cutout(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """RGBA (height, width, 4) with colours multiplied by alpha."""
    rgba = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
    rgba[:, :, :3] = rgba[:, :, :3].astype(int) * rgba[:, :, 3:] // 255
    return rgba


@pytest.fixture
def batch(tmp_path: Path) -> CheckedSamples:
    """The samples of a small composition, measured."""
    composition = Composition(**kit(tmp_path))
    materialise(composition, open_sources(composition), tmp_path / "set", processes=1)
    samples = list(Dataset.open(tmp_path / "set").read_encoded())
    return checked(samples)


def checked(samples: list[EncodedSample]) -> CheckedSamples:
    nothing = np.zeros((64, 64), np.uint8)
    measured = SampleMeasure(np.dstack([nothing] * 3), nothing).take()
    return CheckedSamples(samples=samples, height=64, width=64, measured=measured)


def test_ids_of_checked_samples_are_checked(tmp_path: Path, batch: CheckedSamples) -> None:
    """They cannot be checked where a part of the samples is composed."""
    twice = replace(batch, samples=[batch.samples[0], batch.samples[0]])
    with pytest.raises(InputError, match="occurs twice"):
        write_checked([twice], tmp_path / "out", source={})
    other = replace(batch.samples[1], bg=batch.samples[-1].bg)
    with pytest.raises(InputError, match="is used for another image already"):
        write_checked([replace(batch, samples=[batch.samples[0], other])], tmp_path / "out", source={})
    with pytest.raises(InputError, match="is 64 x 64 pixels, but the samples in front of it are 64 x 32"):
        write_checked([replace(batch, width=32)], tmp_path / "out", source={})
    with pytest.raises(InputError, match="no samples to write"):
        write_checked([], tmp_path / "out", source={})
    assert not (tmp_path / "out").exists()
