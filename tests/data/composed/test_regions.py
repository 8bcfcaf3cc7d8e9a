"""A resized part of an image is a part of the resized image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.composed.regions import Axis, resize_region
from data.images import Resize, resize


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.sampled_from([(224, 128), (224, 96), (224, 64), (96, 224), (60, 97), (97, 64), (64, 64), (33, 16)]),
    how=st.sampled_from(["area", "bilinear", "lanczos"]),
    data=st.data(),
)
def test_changed_pixels_are_those_of_the_whole(sizes: tuple[int, int], how: Resize, data: st.DataObject) -> None:
    """Noise in any rectangle: nothing outside of the region changes, and what is inside is within one level."""
    source, target = sizes
    top, left = data.draw(st.integers(0, source - 1)), data.draw(st.integers(0, source - 1))
    bottom, right = data.draw(st.integers(top + 1, source)), data.draw(st.integers(left + 1, source))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    before = rng.integers(0, 256, (source, source, 3), dtype=np.uint8)
    after = before.copy()
    after[top:bottom, left:right] = rng.integers(0, 256, (bottom - top, right - left, 3), dtype=np.uint8)

    axis = Axis(source, target, how, grows=target > source)
    rows, columns = axis.changed_by(top, bottom), axis.changed_by(left, right)
    found = resize(before, target, how)
    found = found.copy()
    found[rows.target, columns.target] = resize_region(after[rows.source, columns.source], rows, columns, how)

    difference = np.abs(found.astype(int) - resize(after, target, how))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize(("source", "target", "unit"), [(224, 128, 7), (224, 64, 7), (224, 96, 7), (96, 224, 3)])
def test_regions_are_small(source: int, target: int, unit: int) -> None:
    """A region that is the whole image would be right, and slow."""
    span = Axis(source, target, "area", grows=False).changed_by(unit, 2 * unit)
    assert (span.source.start, span.source.stop) == (unit, 2 * unit)
