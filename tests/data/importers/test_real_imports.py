"""Importers on published images, and on images composed from real ones; skipped without TWINHEAD_REAL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data.dataset.dataset import Dataset, write_dataset
from data.errors import InputError
from data.images import decode_photo, decode_plane, encode_png, resize_to
from data.importers.conversion import Import
from data.importers.importers import import_source

ROLES = ("bg", "fg_bg", "mask", "depth")


def real(*parts: str) -> Path:
    root = os.environ.get("TWINHEAD_REAL")
    if root is None:
        pytest.skip("TWINHEAD_REAL does not name a folder of real images")
    return Path(root).joinpath(*parts)


def write(found: Import, path: Path) -> Dataset:
    write_dataset(found.samples(), path, source=found.source)
    return Dataset.open(path)


def akshatjaipuria() -> list[tuple[bytes, ...]]:
    """Ten samples: background N belongs to image 10 N."""
    root = real("eva4_quads", "akshatjaipuria")
    folders = ("fg_bg", "fg_bg_mask", "fg_bg_depth")
    samples = []
    for number in range(5, 55, 5):
        others = (root / folder / f"img_{10 * number:04d}.jpg" for folder in folders)
        samples.append(tuple(path.read_bytes() for path in (root / f"bg/bg_{number:03d}.jpg", *others)))
    return samples


def deepjyotisaha85() -> list[tuple[bytes, ...]]:
    """Five samples, whose backgrounds were resized from 256 to 220 pixels before they were composed."""
    root = real("eva4_quads", "deepjyotisaha85")
    samples = []
    for bg, number in ((1, 638), (1, 3173), (7, 26682), (10, 37898), (10, 39553)):
        pixels = decode_photo((root / f"bg/bg_{bg}.jpg").read_bytes(), "")
        others = (f"fg_bg/fg_bg_{number}", f"fg_bg_mask/fg_bg_mask_{number}", f"depthmap/depth_{number}")
        encoded = [(root / f"{name}.jpg").read_bytes() for name in others]
        samples.append((encode_png(resize_to(pixels, 220, 220)), *encoded))
    return samples


def as_raguram(root: Path, number: int) -> tuple[str, tuple[Path, ...]]:
    """A sample's id, and its four files."""
    key = f"{number}_3_{20 * number}"
    folders = ("fg_bg", "fg_bg_mask", "fg_bg_depth")
    return key, (
        root / f"bg_images/Image_{number}.JPEG",
        *(root / folder / f"Image_{key}.JPEG" for folder in folders),
    )


def as_ramana(root: Path, number: int) -> tuple[str, tuple[Path, ...]]:
    """A sample's id, and its four files."""
    bg = f"bg_{number:02d}"
    key = f"{bg}_fg_07_F_{20 * number:06d}"
    folders = ("fg_bg", "fg_bg_masks", "fg_bg_depth")
    return key, (root / f"bg/{bg}.jpg", *(root / folder / bg / f"{key}.jpg" for folder in folders))


@pytest.mark.slow
def test_real_composed_scenes_are_imported(tmp_path: Path) -> None:
    """All 600 samples are stored, with every background once, and depth is recognised as far-bright."""
    found = import_source(real("nyu_composed"))
    dataset = write(found, tmp_path / "set")

    assert (found.layout, found.depth_polarity) == ("birender", "far-bright")
    assert found.measured.agreement > 0.9
    assert (dataset.info.counts.samples, dataset.info.counts.backgrounds) == (600, 150)
    assert sum(1 for _ in dataset.read()) == 600


def test_real_monimoyd_sample_needs_an_explicit_polarity(tmp_path: Path) -> None:
    """The published depth does not show the foreground: with an explicit polarity, it is imported at 160 pixels."""
    source = real("eva4_quads", "monimoyd")

    with pytest.raises(InputError, match="not clear"):
        import_source(source)
    (sample,) = write(import_source(source, depth_polarity="far-bright"), tmp_path / "set").read()

    assert sample.sample_id == "batch1_9_51_1_2"
    assert sample.depth.shape == (160, 160)


@pytest.mark.parametrize("is_archived", [False, True])
@pytest.mark.parametrize(
    ("project", "named", "layout", "polarity"),
    [(akshatjaipuria, as_raguram, "raguram", None), (deepjyotisaha85, as_ramana, "ramana", "far-bright")],
)
def test_real_images_make_a_round_trip(
    tmp_path: Path,
    project: Callable[[], list[tuple[bytes, ...]]],
    named: Callable[[Path, int], tuple[str, tuple[Path, ...]]],
    layout: str,
    polarity: str | None,
    is_archived: bool,
) -> None:
    """Pictures of two more projects, put under published names: each sample has its own four, unchanged.

    What is inside the mask differs from the background by more than what is beside it: they belong together.
    """
    source, expected = tmp_path / "real", {}
    for number, encoded in enumerate(project()):
        sample_id, paths = named(source, number)
        expected[sample_id] = encoded
        for path, content in zip(paths, encoded, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if is_archived:
        source = Path(shutil.make_archive(str(tmp_path / "real"), "zip", source))

    found = import_source(source, depth_polarity=polarity)
    dataset = write(found, tmp_path / "set")

    assert (found.layout, found.depth_polarity) == (layout, "far-bright")
    assert set(dataset.ids.sample_id) == set(expected)
    for sample in dataset.read():
        for role, picture in zip(ROLES, expected[sample.sample_id], strict=True):
            pixels = decode_plane(picture, role) if role in ("mask", "depth") else decode_photo(picture, role)
            np.testing.assert_array_equal(getattr(sample, role), pixels)
        differs = np.abs(sample.bg.astype(int) - sample.fg_bg).mean(axis=2)
        assert differs[sample.mask > 127].mean() > 2 * differs[sample.mask < 10].mean()
