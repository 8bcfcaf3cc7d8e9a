"""Choose the portfolio: eight complementary configurations of the table of curves, as first trials of a search.

python tests/benchmarks/curves/portfolio.py       # writes trainable/recipes/portfolio/*.yaml

Tasks are simulated trainings of all configurations: for each data set and number of epochs, with the noise of many
seeds. The next configuration is the one that raises the mean over tasks of the best score of those chosen so far most
(greedy submodular maximisation, as in auto-sklearn 2; Feurer et al. 2022, section 3.1). `search_quality.py` measures
the portfolio on a data set that it was not chosen on.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[3]))

from data.atomic import replace_file
from tests.benchmarks.curves.surrogate import EPOCHS, CurveSurrogate
from tests.benchmarks.curves.table import Curve, read_curves
from trainable.recipes import PORTFOLIO

FILES = Path(__file__).parents[3] / "trainable/recipes/portfolio"
BUDGETS = (3, 9, EPOCHS)
"""Epochs after which a configuration should be among the best."""
SEEDS = 200
"""Simulated trainings of each configuration."""


def main() -> None:
    """Write a file for each configuration chosen on all data sets."""
    FILES.mkdir(exist_ok=True)
    curves = read_curves()
    sets = sorted({curve.data_set for curve in curves})
    for name, chosen in zip(PORTFOLIO, portfolio(*sets), strict=True):
        replace_file(FILES / f"{name}.yaml", as_text(name, chosen, curves))


@functools.cache
def portfolio(*data_sets: str) -> list[Curve]:
    """A training of each configuration of a portfolio that is chosen on these data sets, the best one first."""
    first = _first_trainings(data_sets[0])
    gains = np.concatenate([_tasks(data_set, [curve.values for curve in first], SEEDS) for data_set in data_sets])
    return [first[index] for index in greedy(gains, len(PORTFOLIO))]


def greedy(scores: NDArray[np.float64], count: int) -> list[int]:
    """The configurations that raise the mean over tasks of the best score most, one after the other.

    Args:
        scores: (tasks, configurations), comparable between tasks.
        count: number of configurations, at most that of all.
    """
    chosen: list[int] = []
    best = np.full(len(scores), -np.inf)
    for _ in range(count):
        means = np.maximum(scores, best[:, None]).mean(0)
        means[chosen] = -np.inf
        chosen.append(int(means.argmax()))
        best = np.maximum(best, scores[:, chosen[-1]])
    return chosen


def as_text(name: str, chosen: Curve, curves: Sequence[Curve]) -> str:
    """The file of a configuration, in the format of a recipe, with where it comes from."""
    mine = [curve for curve in curves if curve.configuration_id == chosen.configuration_id]
    found = {data_set: [curve.scores.max() for curve in mine if curve.data_set == data_set] for data_set in _sets(mine)}
    scores = ", ".join(f"{np.mean(values):.3f} on '{data_set}'" for data_set, values in found.items())
    origin = (
        f"# Configuration {chosen.configuration_id} of tests/benchmarks/curves, which were drawn at random from the\n"
        f"# default space: validation score {scores} after {EPOCHS} epochs of about 250 images.\n"
    )
    about = {"name": name, "source": "Twinhead's own learning curves"}
    return origin + yaml.safe_dump({**about, **chosen.values}, sort_keys=False)


def _sets(curves: Sequence[Curve]) -> list[str]:
    return sorted({curve.data_set for curve in curves})


def _first_trainings(data_set: str) -> list[Curve]:
    """One training of each configuration."""
    of_set = [curve for curve in read_curves() if curve.data_set == data_set]
    return list({curve.configuration_id: curve for curve in reversed(of_set)}.values())[::-1]


def _tasks(data_set: str, values: Sequence[Mapping[str, Any]], seeds: int) -> NDArray[np.float64]:
    """Best scores of simulated trainings, (seeds * budgets, n): 0 for the median, 1 for the best configurations."""
    surrogate, rng = CurveSurrogate(data_set), np.random.default_rng(0)
    means = surrogate.score_curves(values)
    curves = np.array([[surrogate.with_noise(mean, rng) for mean in means] for _ in range(seeds)])
    tasks = []
    for budget in BUDGETS:
        middle, top = np.quantile(means[:, :budget].max(1), [0.5, 0.99])
        tasks.append((curves[:, :, :budget].max(2) - middle) / (top - middle))
    return np.concatenate(tasks)


if __name__ == "__main__":
    main()
