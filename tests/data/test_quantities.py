"""Counts as text: those of bytes are never rounded to zero, and nouns are in the plural."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.quantities import UNITS, byte_size, counted


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (61_788_992, "61.8 MB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (14e9, "14.0 GB"),
        (2.5e12, "2.50 TB"),
        (0.3, "1 byte"),
    ],
)
def test_a_size_has_three_digits_and_a_unit(count: float, text: str) -> None:
    """'0.0 GB are needed, but 0.0 GB are free' says nothing."""
    assert byte_size(count) == text


@given(st.floats(min_value=1, max_value=1e15))
def test_a_size_is_right_to_half_a_percent_and_never_zero(count: float) -> None:
    """Whatever its magnitude."""
    number, unit = byte_size(count).split()
    power = UNITS.index("bytes" if unit == "byte" else unit)

    assert float(number) * 1000**power == pytest.approx(count, rel=0.0051, abs=1)
    assert 1 <= float(number) < 1000


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 trials"), (1, "1 trial"), (1.0, "1 trial"), (1200, "1,200 trials"), (0.5, "0.5 trials")]
)
def test_a_count_has_its_noun_in_the_right_number(count: float, text: str) -> None:
    """Ray counts CPUs and GPUs as floats."""
    assert counted(count, "trial") == text
