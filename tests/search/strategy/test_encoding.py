"""Encoding of configurations: every distribution of Optuna, conditions, and distances."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.stats import ks_2samp

from search.strategy.encoding import SampledTrial, SpaceEncoding

DISTRIBUTIONS: list[BaseDistribution] = [
    FloatDistribution(-1.0, 2.0),
    FloatDistribution(1e-5, 1e-1, log=True),
    FloatDistribution(0.0, 1.0, step=0.25),
    FloatDistribution(0.5, 0.5),
    IntDistribution(1, 5),
    IntDistribution(16, 512, log=True),
    IntDistribution(8, 64, step=8),
    IntDistribution(3, 3),
    CategoricalDistribution((2, True, "a", None)),
]


def suggest(trial: Any, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical("p", distribution.choices)
    method = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return method("p", distribution.low, distribution.high, step=distribution.step, log=distribution.log)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=str)
@given(seed=st.integers(0, 1000))
def test_encoding_round_trip(distribution: BaseDistribution, seed: int) -> None:
    """The model has rows, the study has parameters: the conversion must not lose any."""
    draw, points = SampledTrial(np.random.default_rng(seed)), SpaceEncoding()
    value = suggest(draw, distribution)
    points.extend(draw.distributions)
    row = points.row(draw.params, draw.distributions)
    again = SampledTrial(np.random.default_rng(seed + 1), points.wanted(row))

    assert distribution._contains(distribution.to_internal_repr(value))
    drawn = suggest(again, distribution)
    assert drawn == (pytest.approx(value) if isinstance(value, float) else value)
    assert type(drawn) is type(value)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS[:-1], ids=str)
def test_samples_are_distributed_as_optunas(distribution: BaseDistribution) -> None:
    """On the scale of the range, and with the first and last value as likely as the others."""
    rng = np.random.default_rng(0)
    ours = [suggest(SampledTrial(rng), distribution) for _ in range(2000)]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    theirs = [suggest(study.ask(), distribution) for _ in range(500)]

    assert ks_2samp(ours, theirs).pvalue > 0.01


def test_value_outside_the_range_is_clipped() -> None:
    """A range may depend on other parameters."""
    draw = SampledTrial(np.random.default_rng(0), {"x": 5.0, "n": 7, "absent": 1})

    assert draw.suggest_float("x", 0.0, 2.0) == 2.0
    assert draw.suggest_int("n", 2, 6, step=2) == 6
    assert set(draw.params) == {"x", "n"}


def test_steps_stay_in_the_space() -> None:
    """Whatever moves: numbers lie where the space has them, choices are among its own, what is absent stays so."""
    draw, points, rng = SampledTrial(np.random.default_rng(0)), SpaceEncoding(), np.random.default_rng(1)
    draw.suggest_int("n", 1, 5)
    draw.suggest_categorical("c", ["a", "b", "c"])
    draw.suggest_float("x", 0.0, 1.0)
    points.extend(draw.distributions)
    points.extend({"other": FloatDistribution(0.0, 1.0)})
    parent = points.row(draw.params, draw.distributions)[None]
    rows = points.neighbours(rng, parent, 300, 0.5)

    assert np.isnan(rows[:, 3]).all()
    assert {points.wanted(row)["n"] for row in rows} == {1, 2, 3, 4, 5}
    assert {points.wanted(row)["c"] for row in rows} == {0, 1, 2}
    assert (rows[:, 2] >= 0).all()
    assert (rows[:, 2] <= 1).all()
    assert len(np.unique(rows[:, 2])) > 100


def test_choices_are_equidistant() -> None:
    """Their order in the list means nothing."""
    points = SpaceEncoding()
    points.extend({"c": CategoricalDistribution(("a", "b", "c")), "x": FloatDistribution(0.0, 1.0)})
    features = points.features(np.array([[0, np.nan], [1, np.nan], [2, np.nan]]))
    distances = np.linalg.norm(features[:, None] - features, axis=2)

    assert distances == pytest.approx(1 - np.eye(3))
    assert points.owners().tolist() == [0, 0, 0, 1]


def test_numeric_choices_are_ordered() -> None:
    """Of 16, 32 and 64 units, what 32 are worth says something of the others."""
    points = SpaceEncoding()
    points.extend({"n": CategoricalDistribution((64, 16, 32))})

    assert points.features(np.array([[0], [1], [2], [np.nan]])).tolist() == [[1.0], [0.0], [0.5], [0.5]]
    assert points.owners().tolist() == [0]


def test_growing_range_is_reported() -> None:
    """Rows of before mean something else then."""
    points = SpaceEncoding()

    assert points.extend({"x": FloatDistribution(0.0, 1.0)})
    assert not points.extend({"x": FloatDistribution(0.2, 0.8)})
    assert points.extend({"x": FloatDistribution(0.0, 4.0)})
    assert points.row({"x": 1.0}, {"x": FloatDistribution(0.0, 1.0)}).tolist() == [0.25]
