"""Draw the configurations of the table of curves from the default search space.

python tests/benchmarks/curves/draw.py            # writes configurations.json beside this file

They are drawn at random, but each run of eight has all families, in random order: a table that is cut off after any
number of configurations has them evenly. The file travels to machines without Optuna.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
from sets import SIZE

from data.atomic import replace_file
from search.spec.domains import Choices, Domain
from search.spec.spec import SearchSpec, check_spec
from search.strategy.space import define_space
from trainable.config import ConfigError, TrialConfig, build
from trainable.config.settings import Value, flatten, nest

COUNT = 256
EPOCHS = 27
SEED = 15
FILE = Path(__file__).with_name("configurations.json")


def main() -> None:
    """Write one configuration a line; its number is its place."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    drawn = draw(COUNT, SEED)
    lines = ",\n".join(json.dumps(values) for values in (next(drawn) for _ in range(COUNT)))
    replace_file(FILE, f"[\n{lines}\n]\n")


def draw(count: int, seed: int) -> Iterator[dict[str, Value]]:
    """Yield at least `count` configurations: the values that are searched, and those that the benchmark fixes."""
    fixed = {"data": {"image_size": SIZE}, "scheduler": {"max_epochs": EPOCHS}, "search": {"start_from": []}}
    spec = check_spec(fixed, source="this benchmark", data_path="nowhere")
    space, study = define_space(spec), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    families = spec.space["model.family"]
    assert isinstance(families, Choices)
    rng = np.random.default_rng(seed)
    for _ in range(0, count, len(families.values)):
        for index in rng.permutation(len(families.values)).tolist():
            values = None
            while values is None:
                study.enqueue_trial(families.parameters("model.family", families.values[index]))
                values = _buildable(spec, flatten(space(study.ask())))
            yield values


def _buildable(spec: SearchSpec, sampled: dict[str, Value]) -> dict[str, Value] | None:
    """The values of a configuration to keep; None if they do not go together, such as mask weights that are all 0."""
    settings: dict[str, Value] = {"epochs": EPOCHS, "data.image_size": SIZE}
    for key, leaf in spec.space.items():
        if isinstance(leaf, Domain) and (value := sampled.get(key)) is not None:
            # Six digits keep the file small; a range's ends have fewer, so that no value leaves its range.
            settings[key] = float(f"{value:.6g}") if isinstance(value, float) else value
    values = nest(settings)
    try:
        build(TrialConfig, values, source="this benchmark")
    except ConfigError:
        return None
    return values


if __name__ == "__main__":
    main()
