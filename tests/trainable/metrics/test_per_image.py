"""The table of images: its validation, and its round trip through a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from trainable.metrics.names import METRICS
from trainable.metrics.per_image import PUBLISHED, STATES, ImageFigures, figures


def table(images: int = 4) -> ImageFigures:
    columns = np.random.default_rng(0).uniform(1, 2, (images, len(STATES) + len(PUBLISHED)))
    for name in ("depth_invalid_pixels", "depth_invalid_images", "ssim50_invalid_images"):
        columns[:, (STATES + PUBLISHED).index(name)] = 0
    published = dict(zip(PUBLISHED, columns[:, len(STATES) :].T, strict=True))
    return ImageFigures(
        bg_ids=tuple(f"rööm {number}" for number in range(images)),
        states=columns[:, : len(STATES)],
        published=published,
    )


def test_table_round_trip(tmp_path: Path) -> None:
    """A resumed comparison does not measure again."""
    saved, path = table(), tmp_path / "new" / "figures.npz"
    saved.save(path)
    loaded = ImageFigures.load(path)
    assert loaded.bg_ids == saved.bg_ids
    assert np.array_equal(loaded.columns(), saved.columns())
    assert figures(loaded) == figures(saved)
    assert list(path.parent.iterdir()) == [path]


def test_per_image_metrics_have_the_names_of_reported_metrics() -> None:
    """A comparison shows both under one name."""
    assert tuple(figures(table()))[: len(METRICS)] == METRICS


def test_column_order_does_not_depend_on_mappings() -> None:
    """A published column under another name would be a plausible but wrong metric."""
    found = table()
    turned = ImageFigures(bg_ids=found.bg_ids, states=found.states, published=dict(reversed(found.published.items())))
    assert np.array_equal(turned.columns(), found.columns())


def test_files_of_earlier_versions_count_nothing_as_invalid(tmp_path: Path) -> None:
    """They have neither the last columns of the states nor the last published one."""
    found, path = table(), tmp_path / "figures.npz"
    published = {name: column for name, column in found.published.items() if name != "ssim50_invalid_images"}
    np.savez(path, bg_ids=np.asarray(found.bg_ids), states=found.states[:, :13], **published)

    assert figures(ImageFigures.load(path)) == figures(found)


@pytest.mark.parametrize("damage", ["empty", "cut", "altered"])
def test_damaged_file_is_an_input_error(tmp_path: Path, damage: str) -> None:
    """The error names the file and what to do with it."""
    path = tmp_path / "figures.npz"
    table().save(path)
    whole = path.read_bytes()
    middle = len(whole) // 4
    altered = whole[:middle] + bytes(255 - byte for byte in whole[middle : middle + 20]) + whole[middle + 20 :]
    path.write_bytes({"empty": b"", "cut": whole[:200], "altered": altered}[damage])
    with pytest.raises(InputError, match=r"figures\.npz' cannot be read .*; remove the file to measure them"):
        ImageFigures.load(path)


def test_pickled_content_is_refused(tmp_path: Path) -> None:
    """An untrusted file must not execute code."""
    path = tmp_path / "figures.npz"
    found = table()
    np.savez(path, bg_ids=np.asarray(found.bg_ids, dtype=object), states=found.states, **found.published)
    with pytest.raises(InputError, match="cannot be read"):
        ImageFigures.load(path)


def test_columns_of_wrong_length_or_name_are_refused() -> None:
    """Rows would belong to different images."""
    found = table()
    with pytest.raises(ValueError, match="states"):
        ImageFigures(bg_ids=found.bg_ids[1:], states=found.states, published=found.published)
    with pytest.raises(ValueError, match="states"):
        table(images=0)
    with pytest.raises(ValueError, match="iou75_mask"):
        ImageFigures(bg_ids=found.bg_ids, states=found.states, published={**found.published, "iou75_mask": np.zeros(3)})
