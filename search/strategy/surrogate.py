"""A Gaussian process over configurations and epochs, which predicts final scores from curves that were stopped early.

With N observations, F features and P parameters (see `search/strategy/encoding.py`):

    k((x, s), (x', s')) = a·m(x, x')·(1 - w + w·exp(-|s - s'| / l)) + r·[same trial] + n·[same observation] + mean

where m is a Matérn 5/2 kernel with one length scale per parameter and s is the logarithm of the epoch. The share w of
the
variance changes along the curve, so that curves may cross: how early and late scores correlate is learned. Trials are
missing at later epochs because of their earlier scores; a joint model accounts for that, a model per rung does not. The
hyperparameters maximise the posterior under weak priors (Rasmussen and Williams 2006, chapter 5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtri

Floats = NDArray[np.float64]

JITTER = 1e-6
"""Added to the variance of the scores, which is about 1, to keep the covariance positive definite."""
ITERATIONS = 30
"""Of the optimizer of the hyperparameters, which starts from the last optimum."""
TAIL = 4
"""Amplitude, share, decay, trial and noise follow the P length scales: this many follow the amplitude."""


@dataclass(frozen=True, kw_only=True)
class Observations:
    """N scores, each of a configuration at an epoch."""

    features: Floats
    """(N, F)"""
    time: Floats
    """(N,) logarithm of the epoch, 1 at the last one"""
    trial: NDArray[np.intp]
    """(N,)"""
    score: Floats
    """(N,) of about unit variance; the higher the better"""

    def joined(self, other: Observations) -> Observations:
        """Both, concatenated."""
        return Observations(
            features=np.concatenate([self.features, other.features]),
            time=np.concatenate([self.time, other.time]),
            trial=np.concatenate([self.trial, other.trial]),
            score=np.concatenate([self.score, other.score]),
        )


def warp(score: Floats) -> Floats:
    """Transform scores of any distribution for a Gaussian process, preserving their order.

    Scores below the median are replaced by normal quantiles of their rank, so that the size of a failure does not
    matter. Above it, a logarithm stretches differences near the best. The method and the constant 1.5 are those of
    Vizier (Song et al. 2024, section 3.2).

    Args:
        score: (N,), higher is better; -inf, a failed trial, counts as the worst.

    Returns:
        (N,), with mean 0 and standard deviation 1; all 0 if all scores are equal.
    """
    finite = score[np.isfinite(score)]
    score = np.where(np.isfinite(score), score, finite.min() if len(finite) else 0.0)
    median = float(np.median(score))
    above = score[score >= median] - median
    top = float(above.max())
    spread = top * math.sqrt(float(np.mean((above / top) ** 2))) if top > 0 else 1.0
    # Ties share a rank.
    ordered = np.sort(score)
    rank = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right")) / 2
    share = np.clip(rank / len(score), 0.5 / len(score), 0.5)
    score = np.where(score < median, median + spread * ndtri(share), score)
    reach = float(np.ptp(score))
    if reach <= 0:
        return np.zeros_like(score)
    score = -np.log1p((score.max() - score) / reach * 0.5) / math.log(1.5)
    return np.asarray((score - score.mean()) / score.std())


def log_expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Logarithm of E[max(f - best, 0)] for a normal f; (n,) for means and standard deviations of (n,).

    Far below the best, an expansion of the tail replaces the formula, which loses all digits (Ament et al. 2023).
    """
    z = (mean - best) / deviation
    near = np.maximum(z, -5.0)
    density = np.exp(-near * near / 2) / math.sqrt(2 * math.pi)
    inner = np.log(near * np.exp(log_ndtr(near)) + density)
    far = np.minimum(z, -5.0)
    outer = -far * far / 2 - 0.5 * math.log(2 * math.pi) - 2 * np.log(-far)
    return np.asarray(np.where(z > -5.0, inner, outer) + np.log(deviation))


class CurveModel:
    """Predicts scores of configurations at an epoch, after `fit` and `condition`."""

    def __init__(self) -> None:
        self._theta = np.zeros(0)
        self._owners = np.zeros(0, np.intp)
        self._prior = np.zeros((0, 2))

    def shape(self, owners: NDArray[np.intp], dimensions: float) -> None:
        """Set the parameter of each feature, (F,), and the mean number of parameters of a trial.

        The prior mean of a length scale is 0.3 times the square root of that number, since the distance of random
        points grows with this root (Hvarfner et al. 2024).
        """
        count = int(owners.max()) + 1
        lengths = np.tile([math.log(0.3 * math.sqrt(max(dimensions, 1.0))), 1.0], (count, 1))
        # Mean and standard deviation: ln a, logit w, ln l, ln r, ln n.
        tail = [[0.0, 1.0], [-1.0, 1.5], [0.0, 1.0], [-4.0, 1.5], [-4.0, 1.5]]
        self._prior = np.concatenate([lengths, tail])
        self._owners = owners
        if len(self._theta) != len(self._prior):
            self._theta = self._prior[:, 0].copy()

    def fit(self, known: Observations) -> None:
        """Maximise the posterior of the hyperparameters."""
        spread = 3.5 * self._prior[:, 1]
        bounds = list(zip(self._prior[:, 0] - spread, self._prior[:, 0] + spread, strict=True))
        found = minimize(
            self.loss, self._theta, (known,), "L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": ITERATIONS}
        )
        if np.isfinite(found.fun):
            self._theta = found.x

    def condition(self, known: Observations) -> None:
        """Condition the predictions on these observations. Costs N³."""
        self._known = known
        covariance = self._between(known.features, known.time)
        covariance += math.exp(self._theta[-2]) * (known.trial[:, None] == known.trial)
        covariance[np.diag_indices(len(known.score))] += math.exp(self._theta[-1]) + JITTER
        self._root = cholesky(covariance, lower=True)
        self._weights = cho_solve((self._root, True), known.score)

    def predict(self, features: Floats, time: float) -> tuple[Floats, Floats]:
        """Mean and standard deviation, (n,) each, for features (n, F) at a time in [0, 1]. Costs n·N²."""
        across = self._between(features, np.array([time]))
        gain = solve_triangular(self._root, across.T, lower=True, check_finite=False)
        prior = math.exp(self._theta[-1 - TAIL]) + 2.0
        variance = np.maximum(prior - (gain * gain).sum(0), 1e-10)
        return across @ self._weights, np.sqrt(variance)

    def loss(self, theta: Floats, known: Observations) -> tuple[float, Floats]:
        """Negative log posterior of the hyperparameters, and its gradient."""
        p = len(theta) - 1 - TAIL
        count = len(known.score)
        amplitude, decay, trial, noise = np.exp(theta[[p, p + 2, p + 3, p + 4]])
        share = 1 / (1 + math.exp(-theta[p + 1]))
        scaled = known.features / np.exp(theta[self._owners])
        root = _root(scaled, scaled)
        falling = np.exp(-root)
        near = (1 + root + root * root / 3) * falling
        apart = np.abs(known.time[:, None] - known.time)
        fading = np.exp(-apart / decay)
        mixed = 1 - share + share * fading
        same = (known.trial[:, None] == known.trial).astype(float)
        covariance = amplitude * near * mixed + trial * same + _mean(apart)
        covariance[np.diag_indices(count)] += noise + JITTER
        try:
            lower = cholesky(covariance, lower=True)
        except LinAlgError:
            return 1e10, np.zeros_like(theta)
        half = solve_triangular(lower, np.eye(count), lower=True)
        inverse = half.T @ half
        weights = inverse @ known.score
        value = float(known.score @ weights) / 2 + float(np.log(np.diag(lower)).sum())

        slope = (inverse - np.outer(weights, weights)) / 2
        gradient = np.zeros_like(theta)
        # Derivative of Matérn 5/2 by the logarithm of a length scale: 5/3·(1 + root)·exp(-root)·(difference / length)².
        bent = slope * amplitude * mixed * (5 / 3) * (1 + root) * falling
        by_feature = 2 * (bent.sum(1) @ (scaled * scaled) - (scaled * (bent @ scaled)).sum(0))
        np.add.at(gradient, self._owners, by_feature)
        of_kernel = slope * amplitude * near
        gradient[p] = (of_kernel * mixed).sum()
        gradient[p + 1] = (of_kernel * (fading - 1)).sum() * share * (1 - share)
        gradient[p + 2] = (of_kernel * share * fading * apart).sum() / decay
        gradient[p + 3] = trial * (slope * same).sum()
        gradient[p + 4] = noise * np.trace(slope)
        off = (theta - self._prior[:, 0]) / self._prior[:, 1]
        return value + float(off @ off) / 2, gradient + off / self._prior[:, 1]

    def _between(self, features: Floats, time: Floats) -> Floats:
        """Covariance with the observations, (n, N), for features (n, F) and times (n,) or (1,)."""
        p = len(self._theta) - 1 - TAIL
        lengths = np.exp(self._theta[self._owners])
        root = _root(features / lengths, self._known.features / lengths)
        share = 1 / (1 + math.exp(-self._theta[p + 1]))
        apart = np.abs(time[:, None] - self._known.time)
        mixed = 1 - share + share * np.exp(-apart / math.exp(self._theta[p + 2]))
        near = (1 + root + root * root / 3) * np.exp(-root)
        return np.asarray(math.exp(self._theta[p]) * near * mixed + _mean(apart))


def _root(one: Floats, other: Floats) -> Floats:
    """√5 times the Euclidean distances of scaled features, (n, m)."""
    squares = (one * one).sum(1)[:, None] + (other * other).sum(1) - 2 * one @ other.T
    return np.asarray(np.sqrt(5 * np.maximum(squares, 0.0) + 1e-12))


def _mean(apart: Floats) -> Floats:
    """Covariance of the mean curve of all trials: a constant and a varying part, each of unit variance."""
    return np.asarray(1 + np.exp(-apart))
