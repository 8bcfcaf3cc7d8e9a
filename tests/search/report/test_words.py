"""Intervals in sentences."""

from __future__ import annotations

import math

import pytest

from search.report.words import verdict_on, with_interval
from trainable.metrics.bootstrap import Interval
from trainable.metrics.objective import SCORE


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((-0.029, -0.063, -0.001), "-0.029 (-0.063 to -0.001)"),
        ((-0.029, -0.063, -0.0004), "-0.0290 (-0.0630 to -0.0004)"),
        ((0.0003, -0.02, 0.02), "+0.0003 (-0.0200 to +0.0200)"),
        ((0.004, 0.00003, 0.008), "+0.00400 (+0.00003 to +0.00800)"),
        ((0.02, 1e-17, 0.04), "+0.020 (+0.000 to +0.040)"),
        ((0.02, 0.0, 0.04), "+0.020 (+0.000 to +0.040)"),
        ((0.02, math.nan, math.nan), "+0.020"),
        ((math.nan, math.nan, math.nan), "unknown"),
    ],
)
def test_an_end_beside_0_is_not_printed_as_0(ends: tuple[float, float, float], text: str) -> None:
    """The sentence says whether the interval contains 0, and must not contradict what it shows."""
    value, low, high = ends
    assert with_interval(Interval(value=value, low=low, high=high), signed=True) == text.replace("-", "\N{MINUS SIGN}")


def test_the_verdict_is_that_of_the_ends() -> None:
    assert "a real loss" in verdict_on(Interval(value=-0.03, low=-0.06, high=-0.0004), SCORE)
    assert "no difference" in verdict_on(Interval(value=-0.03, low=-0.06, high=0.0), SCORE)
