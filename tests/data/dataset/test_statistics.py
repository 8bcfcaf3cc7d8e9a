"""Statistics: accumulated image by image, they equal those of numpy over all pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.dataset.statistics import ChannelMoments, StatisticsGatherer


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 3]),
)
def test_moments_equal_numpy(sizes: list[tuple[int, int]], seed: int, channels: int) -> None:
    """Pictures of different sizes weigh by their pixels, as in one large array."""
    generator = np.random.default_rng(seed)
    pictures = [generator.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
    moments = ChannelMoments(channels)
    for picture in pictures:
        moments.add(picture if channels == 3 else picture[:, :, 0])

    pixels = np.concatenate([picture.reshape(-1, channels) for picture in pictures]) / 255
    np.testing.assert_allclose(moments.result().mean, pixels.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(moments.result().std, pixels.std(axis=0), atol=1e-12)


def test_constant_image_has_no_deviation() -> None:
    """Taken as mean of squares less square of mean, this would be a small number or not a number at all."""
    moments = ChannelMoments(1)
    moments.add(np.full((50, 50), 77, np.uint8))

    assert moments.result().std == (0.0,)
    assert moments.result().mean == pytest.approx((77 / 255,))


def test_mask_fraction_counts_pixels_above_the_middle() -> None:
    """Soft edges count where they are more foreground than not."""
    gatherer = StatisticsGatherer()
    photo = np.zeros((2, 2, 3), np.uint8)
    gatherer.add_background(photo)
    for mask in ([[0, 127], [128, 255]], [[0, 0], [0, 255]]):
        gatherer.add_sample(photo, np.array(mask, np.uint8), photo[:, :, 0])

    fraction = gatherer.result().mask_fraction

    assert (fraction.mean, fraction.min, fraction.max) == (0.375, 0.25, 0.5)
