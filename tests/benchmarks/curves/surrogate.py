"""A surrogate of the table of curves: the curve of any configuration of the default space, with the noise of a seed.

python tests/benchmarks/curves/surrogate.py       # its error for configurations that it was not fitted to

`score_curves` gives mean curves, `observed` adds the residual curve of a repeated training. Of the kinds of models,
`mixed` has the smallest error. Its Gaussian processes are of the kind that our searcher uses, which may favour
that searcher; `forest` does without them, and is there to see whether a result depends on them.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

sys.path.append(str(Path(__file__).parents[3]))

from search.spec.default_space import DEFAULT_SPACE
from search.spec.domains import Choices, Per, Range
from tests.benchmarks.curves.regressions import Forest, GaussianProcesses, Mean, NearestOfFamily, Regression
from tests.benchmarks.curves.table import Curve, read_curves
from trainable.config.settings import Settings, Value, flatten

Floats = NDArray[np.float64]
Values = Mapping[str, Any]
"""Nested values of a `TrialConfig`."""

_FAMILIES = DEFAULT_SPACE["model.family"].values  # type: ignore[union-attr]
EPOCHS = 27
NOISE_POOL = 8
"""A residual curve is of one of so many repeated configurations: those with the nearest final score."""
REPORTED = (3, 9, 27)
"""Epochs for which the error is reported."""


KINDS: dict[str, Callable[[], Regression]] = {
    "mixed": lambda: Mean([GaussianProcesses(), Forest()]),
    "gp": GaussianProcesses,
    "forest": Forest,
    "nearest": lambda: NearestOfFamily(len(_FAMILIES)),
}


DEFAULT_KIND = "mixed"


@dataclass(frozen=True, kw_only=True)
class Table:
    """The trainings of one data set: N configurations, R of which were trained with several seeds."""

    features: Floats
    """(N, F)"""
    scores: Floats
    """(N, EPOCHS) means over seeds"""
    seconds: Floats
    """(N,) mean seconds of an epoch"""
    repeated: NDArray[np.intp]
    """(R,) indices of the configurations with several seeds"""
    residuals: Floats
    """(R, seeds, EPOCHS) differences from the mean over seeds, scaled to the variance of a single training"""
    best: Floats
    """(EPOCHS,) the best score of any training until each epoch"""

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> Table:
        """The table of all trainings of one data set."""
        by_id: dict[int, list[Curve]] = {}
        for curve in curves:
            by_id.setdefault(curve.configuration_id, []).append(curve)
        groups = list(by_id.values())
        scores = [np.stack([curve.scores for curve in group]).astype(float) for group in groups]
        repeated = [index for index, of_seeds in enumerate(scores) if len(of_seeds) > 1]
        seeds = {len(scores[index]) for index in repeated}
        if len(seeds) != 1:
            raise ValueError(f"the repeated configurations must have the same number of seeds, but have {seeds}")
        count = seeds.pop()
        # The mean of `count` seeds takes a part of their variance.
        scale = np.sqrt(count / (count - 1))
        return cls(
            features=np.stack([features(group[0].values) for group in groups]),
            scores=np.stack([of_seeds.mean(0) for of_seeds in scores]),
            seconds=np.array([np.mean([curve.numbers["seconds"] for curve in group]) for group in groups], float),
            repeated=np.array(repeated),
            residuals=np.stack([(scores[index] - scores[index].mean(0)) * scale for index in repeated]),
            best=np.maximum.accumulate(np.concatenate(scores).max(0)),
        )


class CurveSurrogate:
    """The curves of one data set.

    Args:
        data_set: its name in the table.
        kind: one of `KINDS`.
        curves: of the table; that beside this file by default.
    """

    def __init__(self, data_set: str, kind: str = DEFAULT_KIND, curves: Sequence[Curve] | None = None) -> None:
        self._table = Table.of([curve for curve in curves or read_curves() if curve.data_set == data_set])
        self._scores, self._seconds = KINDS[kind](), GaussianProcesses()
        self._scores.fit(self._table.features, self._table.scores)
        self._seconds.fit(self._table.features, np.log(self._table.seconds)[:, None])

    def score_curves(self, configurations: Sequence[Values]) -> Floats:
        """The mean curve of each configuration without noise, (n, EPOCHS), in 0..1."""
        return np.clip(self._scores.predict(np.stack([features(values) for values in configurations])), 0, 1)

    def seconds(self, configuration: Values) -> float:
        """Seconds of an epoch of a configuration, on the GPU of the table, which 18 trainings shared."""
        return float(np.exp(self._seconds.predict(features(configuration)[None]))[0, 0])

    def observed(self, configuration: Values, seed: int) -> Floats:
        """The curve of a training, (EPOCHS,) in 0..1: the same for the same configuration and seed."""
        described = hashlib.blake2b(features(configuration).tobytes(), digest_size=8).digest()
        rng = np.random.default_rng([seed, int.from_bytes(described, "little")])
        return self.with_noise(self.score_curves([configuration])[0], rng)

    def with_noise(self, mean: Floats, rng: np.random.Generator) -> Floats:
        """A mean curve with the noise of one training, (EPOCHS,) in 0..1.

        The noise is a whole residual curve of one of the repeated configurations with the nearest final scores, since
        the noise of good configurations is smaller. It is scaled down by as much as the mean is nearer to the best
        score of any training: unscaled, simulated trainings would reach 0.94 where the best of the table has 0.73.
        """
        table = self._table
        nearest = np.argsort(np.abs(table.scores[table.repeated, -1] - mean[-1]), kind="stable")[:NOISE_POOL]
        chosen = rng.choice(nearest)
        of_one = table.residuals[chosen]
        headroom = np.maximum(table.best - table.scores[table.repeated[chosen]], 1e-9)
        scale = np.clip((table.best - mean) / headroom, 0, 1)
        return np.clip(mean + scale * of_one[rng.integers(len(of_one))], 0, 1)


def features(configuration: Values) -> Floats:
    """Encode a configuration of the default space, (F,): numbers scaled to 0..1, one-hot columns for each choice.

    What a configuration has not is 0.5, or 0 in the columns of a choice. Values outside the space, such as those that
    recipes have beside it, are clipped or left out.
    """
    settings = flatten(configuration)
    columns = _one_hot(DEFAULT_SPACE["model.family"], settings["model.family"])
    for key, leaf in DEFAULT_SPACE.items():
        domain = leaf.for_value(settings[leaf.key]) if isinstance(leaf, Per) else leaf
        if key != "model.family":
            columns += _columns(domain, settings.get(key), is_per=isinstance(leaf, Per))
    width = settings["model.width"]
    columns.append(float(np.log2(float(width) / 8) / 3))  # type: ignore[arg-type]
    columns.append(_balance(settings))
    return np.array(columns)


def _columns(domain: Value, value: Value, *, is_per: bool) -> list[float]:
    if isinstance(domain, Range):
        return _of_range(domain, value)
    assert isinstance(domain, Choices)
    numbers = [each for each in domain.values if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) < len(domain.values):
        return _one_hot(domain, value)
    if value not in numbers or len(numbers) == 1:
        return [0.0 if is_per else 0.5]
    return [numbers.index(value) / (len(numbers) - 1)]  # type: ignore[arg-type]


def _of_range(domain: Range, value: Value) -> list[float]:
    known = float(value) if isinstance(value, int | float) else None
    if domain.or_zero:
        return [0.5, 0.5] if known is None else [min(known / domain.high, 1.0), float(known > 0)]
    if known is None:
        return [0.5]
    scale = np.log if domain.log else float
    unit = (scale(max(known, domain.low)) - scale(domain.low)) / (scale(domain.high) - scale(domain.low))
    return [float(np.clip(unit, 0, 1))]


def _one_hot(domain: object, value: Value) -> list[float]:
    assert isinstance(domain, Choices)
    return [float(value == each) for each in domain.values]


def _balance(settings: Settings) -> float:
    """Logarithm of the weights of the mask over those of the depth."""
    sums = [
        sum(float(settings.get(f"loss.{key}") or 0.0) for key in keys)  # type: ignore[arg-type]
        for keys in (("mask.bce", "mask.dice", "mask.l1"), ("depth.l1", "depth.ssim", "depth.edge"))
    ]
    return float(np.log((sums[0] + 0.05) / (sums[1] + 0.05)) / 4)


def noise(table: Table) -> Floats:
    """Standard deviation of the score over seeds at each epoch, (EPOCHS,): the root of the mean variance."""
    return np.asarray(np.sqrt((table.residuals**2).mean((0, 1))))


def main() -> None:
    """Print error and rank correlation of each kind for both data sets, and the noise that no model can explain."""
    curves = read_curves()
    for data_set in sorted({curve.data_set for curve in curves}):
        table = Table.of([curve for curve in curves if curve.data_set == data_set])
        for kind in KINDS:
            predicted = np.clip(KINDS[kind]().left_out(table.features, table.scores), 0, 1)
            for epoch in REPORTED:
                found, true = predicted[:, epoch - 1], table.scores[:, epoch - 1]
                error, rank = np.sqrt(np.mean((found - true) ** 2)), spearmanr(found, true).statistic
                sys.stdout.write(
                    f"{data_set:6s} {kind:8s} epoch {epoch:2d}: RMSE {error:.3f}, rank correlation {rank:.2f}; "
                    f"standard deviation of the scores {true.std():.3f}, of seeds {noise(table)[epoch - 1]:.3f}\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
