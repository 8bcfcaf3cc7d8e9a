"""The surrogate of learning curves: its formulas against references, and its predictions for crossing curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

from search.strategy.surrogate import CurveModel, Observations, log_expected_improvement, warp

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50).map(np.array)


def observations(count: int, parameters: int = 3) -> Observations:
    rng = np.random.default_rng(count)
    return Observations(
        features=rng.random((count, parameters)),
        time=rng.choice([0.25, 0.5, 1.0], count),
        trial=np.arange(count) // 2,
        score=rng.normal(size=count),
    )


def shaped(parameters: int = 3) -> CurveModel:
    model = CurveModel()
    model.shape(np.arange(parameters), parameters)
    return model


def test_loss_gradient_agrees_with_finite_differences() -> None:
    """A wrong gradient is not seen in any result, only in worse lengths; finite differences know nothing of ours."""
    known = observations(30)
    theta = np.random.default_rng(1).normal(-0.5, 0.5, 3 + 5)
    _, gradient = shaped().loss(theta, known)

    numeric = approx_fprime(theta, lambda at: shaped().loss(at, known)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_columns_of_a_choice_share_one_length_scale() -> None:
    """The gradient of such a length is that of all its columns together."""
    model, known = CurveModel(), observations(20)
    model.shape(np.array([0, 0, 1]), 2)
    theta = np.random.default_rng(1).normal(-0.5, 0.5, 2 + 5)
    _, gradient = model.loss(theta, known)

    numeric = approx_fprime(theta, lambda at: model.loss(at, known)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_loss_agrees_with_the_normal_density() -> None:
    """Differences of the loss are those of scipy's normal density, with the covariance read from predictions."""
    known = observations(8)
    model = shaped()
    other = Observations(features=known.features, time=known.time, trial=known.trial, score=known.score + 0.1)
    theta = model._prior[:, 0]
    lengths, (amplitude, share, decay, trial, noise) = np.exp(theta[:3]), np.exp(theta[3:])
    share /= 1 + share
    distance = np.linalg.norm((known.features[:, None] - known.features) / lengths, axis=2) * math.sqrt(5)
    apart = np.abs(known.time[:, None] - known.time)
    covariance = amplitude * (1 + distance + distance**2 / 3) * np.exp(-distance)
    covariance = covariance * (1 - share + share * np.exp(-apart / decay)) + 1 + np.exp(-apart)
    covariance += trial * (known.trial[:, None] == known.trial) + (noise + 1e-6) * np.eye(8)
    density = multivariate_normal(np.zeros(8), covariance)

    difference = model.loss(theta, other)[0] - model.loss(theta, known)[0]
    assert difference == pytest.approx(density.logpdf(known.score) - density.logpdf(other.score), rel=1e-4)


def test_observed_scores_are_predicted() -> None:
    """With little noise, a smooth function is reproduced, and the uncertainty grows away from it."""
    line = np.linspace(0, 0.5, 12)[:, None]
    known = Observations(features=line, time=np.ones(12), trial=np.arange(12), score=warp(np.sin(6 * line[:, 0])))
    model = shaped(1)
    model.fit(known)
    model.condition(known)
    mean, near = model.predict(line, 1.0)

    assert mean == pytest.approx(known.score, abs=0.25)
    assert near.max() < model.predict(np.array([[1.0]]), 1.0)[1][0]


def test_curves_that_cross_are_learned() -> None:
    """What starts well may end badly: after twelve whole curves, a start of a high score alone misleads no more."""
    x = np.linspace(0, 1, 12)
    known = Observations(
        features=np.tile(x, 2)[:, None],
        time=np.repeat([0.3, 1.0], 12),
        trial=np.tile(np.arange(12), 2),
        score=np.concatenate([-x, x]),
    )
    model = shaped(1)
    model.fit(known)
    model.condition(known)
    start = model.predict(np.array([[0.1], [0.9]]), 0.3)[0]
    end = model.predict(np.array([[0.1], [0.9]]), 1.0)[0]

    assert start[0] > start[1] + 0.5
    assert end[1] > end[0] + 0.5


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-2.0, 0.5), (3.0, 0.1), (-4.9, 1.0), (-5.1, 1.0)])
def test_the_expected_improvement_is_an_integral(mean: float, deviation: float) -> None:
    """Of how much better than the best a normal variable is."""
    value, _ = quad(lambda f: f * norm.pdf(f, mean, deviation), 0, 20, points=[max(mean, 0.0)], epsabs=1e-14)

    [found] = log_expected_improvement(np.array([mean]), np.array([deviation]), 0.0)
    assert found == pytest.approx(math.log(value), abs=0.15 if mean < -5 else 1e-4)


def test_acquisition_distinguishes_poor_candidates() -> None:
    """Far below the best the improvement is 0 in floating point, but one of two is still the less bad."""
    values = log_expected_improvement(np.array([-100.0, -60.0]), np.ones(2), 0.0)

    assert np.isfinite(values).all()
    assert values[1] > values[0]


@given(SCORES)
def test_warped_scores_keep_their_order(scores: np.ndarray) -> None:
    """Better stays better, whatever the distribution."""
    order = np.argsort(scores)

    assert np.isfinite(warp(scores)).all()
    assert (np.diff(warp(scores)[order]) >= -1e-9).all()


def test_size_of_a_diverged_loss_has_no_effect() -> None:
    """One score of -1e30 would leave no difference between all others; a trial that failed has none at all."""
    scores = np.linspace(0, 1, 11)
    worst, failed = scores.copy(), scores.copy()
    worst[0], failed[0] = -1e30, -np.inf

    assert warp(worst) == pytest.approx(warp(scores))
    assert warp(failed)[1:].argsort().tolist() == list(range(10))
    assert np.ptp(warp(failed)[1:]) > 1
