"""Regressions from encoded configurations to curves, and their predictions of configurations that they have not seen.

With N configurations, F features and D targets, such as the epochs of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from search.strategy.surrogate import CurveModel, Observations

Floats = NDArray[np.float64]

COMPONENTS = 8
"""Principal components of the targets, each with a Gaussian process of its own."""
PARAMETERS = 30
"""About as many parameters of the default space does a configuration have."""
FOLDS = 8
NEIGHBOURS = 8
TREES = 200
TRIED = 20
"""Features that a split of a tree is chosen from, each with one random threshold."""
SMALLEST_LEAF = 2


class Regression(Protocol):
    """Predicts targets (n, D) from features (n, F)."""

    def fit(self, features: Floats, targets: Floats) -> None:
        """Fit to (N, F) and (N, D)."""

    def predict(self, features: Floats) -> Floats:
        """Targets (n, D) for features (n, F)."""

    def left_out(self, features: Floats, targets: Floats) -> Floats:
        """The targets of each of N configurations as predicted without it, (N, D)."""


class GaussianProcesses:
    """The project's Gaussian process for each principal component of the targets."""

    def fit(self, features: Floats, targets: Floats) -> None:
        """Find the components and the hyperparameters, and condition on all targets."""
        self._mean = targets.mean(0)
        _, _, axes = np.linalg.svd(targets - self._mean, full_matrices=False)
        self._axes = axes[:COMPONENTS]
        self._scales = ((targets - self._mean) @ self._axes.T).std(0)
        self._models = [CurveModel() for _ in self._axes]
        for model, known in zip(self._models, self._observations(features, targets), strict=True):
            model.shape(np.arange(features.shape[1]), PARAMETERS)
            model.fit(known)
            model.condition(known)

    def predict(self, features: Floats) -> Floats:
        """As in `Regression`."""
        found = np.stack([model.predict(features, 1.0)[0] for model in self._models], axis=1)
        return np.asarray(self._mean + (found * self._scales) @ self._axes)

    def left_out(self, features: Floats, targets: Floats) -> Floats:
        """Components and hyperparameters are those without the eighth to which the configuration belongs."""
        predicted, model = np.zeros_like(targets), GaussianProcesses()
        numbers = np.arange(len(features))
        for fold in range(FOLDS):
            is_held = numbers % FOLDS == fold
            model.fit(features[~is_held], targets[~is_held])
            for index in numbers[is_held]:
                model._condition(features[numbers != index], targets[numbers != index])
                predicted[index] = model.predict(features[index : index + 1])[0]
        return predicted

    def _condition(self, features: Floats, targets: Floats) -> None:
        for model, known in zip(self._models, self._observations(features, targets), strict=True):
            model.condition(known)

    def _observations(self, features: Floats, targets: Floats) -> list[Observations]:
        count = len(features)
        scores = (targets - self._mean) @ self._axes.T / self._scales
        return [
            Observations(
                features=features, time=np.ones(count), trial=np.arange(count), score=np.ascontiguousarray(one)
            )
            for one in scores.T
        ]


class Forest:
    """Extremely randomised trees (Geurts et al. 2006), each of a random seven eighths of the configurations.

    All trees lie in the same arrays; T is the number of nodes of all trees.
    """

    def fit(self, features: Floats, targets: Floats) -> None:
        """Grow the trees; their randomness is always the same."""
        rng, count = np.random.default_rng(0), len(features)
        self._seen = np.zeros((TREES, count), bool)
        nodes = _Nodes()
        self._roots = np.zeros(TREES, np.intp)
        for tree in range(TREES):
            chosen = rng.permutation(count)[: count - count // FOLDS]
            self._seen[tree, chosen] = True
            self._roots[tree] = nodes.grow(features[chosen], targets[chosen], rng)
        self._feature, self._threshold = np.array(nodes.feature), np.array(nodes.threshold)
        self._below, self._above = np.array(nodes.below), np.array(nodes.above)
        self._targets = np.array(nodes.targets)

    def predict(self, features: Floats) -> Floats:
        """As in `Regression`."""
        return np.stack([self._targets[leaves].mean(0) for leaves in self._leaves(features)])

    def left_out(self, features: Floats, targets: Floats) -> Floats:
        """Of the trees that were not grown with the configuration: about an eighth of all."""
        forest = Forest()
        forest.fit(features, targets)
        pairs = zip(forest._leaves(features), forest._seen.T, strict=True)
        return np.stack([forest._targets[leaves[~is_seen]].mean(0) for leaves, is_seen in pairs])

    def _leaves(self, features: Floats) -> NDArray[np.intp]:
        """The leaf of each configuration in each tree, (n, TREES)."""
        nodes = np.tile(self._roots, (len(features), 1))
        rows = np.arange(len(features))[:, None]
        while (is_inner := self._feature[nodes] >= 0).any():
            is_below = features[rows, self._feature[nodes]] <= self._threshold[nodes]
            nodes = np.where(is_inner, np.where(is_below, self._below[nodes], self._above[nodes]), nodes)
        return nodes


class _Nodes:
    """Nodes of trees, (T,) each and `targets` (T, D); a leaf has the feature -1."""

    def __init__(self) -> None:
        self.feature: list[int] = []
        self.threshold: list[float] = []
        self.below: list[int] = []
        self.above: list[int] = []
        self.targets: list[Floats] = []

    def grow(self, features: Floats, targets: Floats, rng: np.random.Generator) -> int:
        """Add a tree, and return its root."""
        number = len(self.feature)
        split = _split(features, targets, rng)
        self.feature.append(split[0] if split else -1)
        self.threshold.append(split[1] if split else 0.0)
        self.targets.append(targets.mean(0))
        self.below.append(-1)
        self.above.append(-1)
        if split:
            is_below = features[:, split[0]] <= split[1]
            self.below[number] = self.grow(features[is_below], targets[is_below], rng)
            self.above[number] = self.grow(features[~is_below], targets[~is_below], rng)
        return number


def _split(features: Floats, targets: Floats, rng: np.random.Generator) -> tuple[int, float] | None:
    """The feature and the threshold that reduce the variance of the targets most; None for a leaf."""
    low, high = features.min(0), features.max(0)
    varying = rng.permutation(np.flatnonzero(high > low))[:TRIED]
    thresholds = rng.uniform(low[varying], high[varying])
    is_below = (features[:, varying] <= thresholds).T.astype(float)
    below, total = is_below @ targets, targets.sum(0)
    count = is_below.sum(1)
    others = len(features) - count
    is_allowed = (count >= SMALLEST_LEAF) & (others >= SMALLEST_LEAF)
    if not is_allowed.any():
        return None
    kept = (below**2).sum(1) / np.maximum(count, 1) + ((total - below) ** 2).sum(1) / np.maximum(others, 1)
    best = int(np.argmax(np.where(is_allowed, kept, -np.inf)))
    return int(varying[best]), float(thresholds[best])


class NearestOfFamily:
    """The nearest configurations of the same family, weighted by the inverse of the squared distance.

    Args:
        families: the first so many features are the family, one-hot.
    """

    def __init__(self, families: int) -> None:
        self._families = families

    def fit(self, features: Floats, targets: Floats) -> None:
        """Keep the observations."""
        self._features, self._targets = features, targets

    def predict(self, features: Floats) -> Floats:
        """As in `Regression`."""
        return np.stack([self._of_one(row) for row in features])

    def left_out(self, features: Floats, targets: Floats) -> Floats:
        """As in `Regression`."""
        model, numbers, predicted = NearestOfFamily(self._families), np.arange(len(features)), np.zeros_like(targets)
        for index in numbers:
            model.fit(features[numbers != index], targets[numbers != index])
            predicted[index] = model._of_one(features[index])
        return predicted

    def _of_one(self, row: Floats) -> Floats:
        is_same = self._features[:, : self._families] @ row[: self._families] > 0
        squares = ((self._features[is_same] - row) ** 2).sum(1)
        nearest = np.argsort(squares)[:NEIGHBOURS]
        weights = 1 / (squares[nearest] + 1e-9)
        return np.asarray(weights @ self._targets[is_same][nearest] / weights.sum())


class Mean:
    """The mean of the predictions of several regressions."""

    def __init__(self, parts: Sequence[Regression]) -> None:
        self._parts = parts

    def fit(self, features: Floats, targets: Floats) -> None:
        """Fit each."""
        for part in self._parts:
            part.fit(features, targets)

    def predict(self, features: Floats) -> Floats:
        """As in `Regression`."""
        return np.mean([part.predict(features) for part in self._parts], axis=0)

    def left_out(self, features: Floats, targets: Floats) -> Floats:
        """As in `Regression`."""
        return np.mean([part.left_out(features, targets) for part in self._parts], axis=0)
