"""Whether early epochs on smaller images, or on fewer samples, rank configurations and save time.

python tests/benchmarks/curves/fidelity.py SETS DIRECTORY [--workers 2] [--json FILE]

SETS is the directory that `sets.py` made; DIRECTORY keeps the trainings, which go on there. Of the configurations that
the table has with three seeds, the cheaper ones are trained once more with early epochs of less work, some of them to
the end. Smaller images are `data.progression`; all are validated on the whole images, as in a search. Compared with
are the table's trainings with other seeds: by the rank correlation of an early score with the mean final one, which the
table's own first seed has, too, and by the final score. Times are those of the second epoch.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import bootstrap, spearmanr
from train import CONFIGURATIONS, REPEATED, SAMPLES

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[3]))

from results import Row, arguments, publish
from table import Curve, read_curves

from trainable.config import TrialConfig, build
from trainable.models import build_on_meta, multiply_adds

EPOCHS = 27
RUNGS = (3, 9)
AT_A_TIME = 14
"""Trainings in a way before those in the next one, so that all ways share what else the machine does."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the trainings differ from those of the table, whose images have 48 px."""

    stages: Sequence[Mapping[str, float]] = ()
    """Of `data.progression`."""
    samples: int = SAMPLES
    last: int
    """Epoch after which a training is ended."""
    most: float = 300e6
    """Multiply-adds of a network at most, at 48 px."""

    def configurations(self) -> dict[int, dict[str, Any]]:
        """The configurations to train, by their ID in the table."""
        return {
            number: values | {"data": values["data"] | {"progression": list(self.stages)}}
            for number, (values, cost) in _repeated().items()
            if cost <= self.most
        }


AT_32, AT_16 = ({"share": epochs / EPOCHS, "scale": side / 48} for epochs, side in ((9, 32), (3, 16)))
WHOLE = "as in the table"
WAYS = {
    WHOLE: Way(last=2),
    "3 epochs at 16 px": Way(stages=[AT_16], last=3),
    "9 epochs at 32 px": Way(stages=[AT_32], last=9),
    "3 epochs of half the samples": Way(samples=SAMPLES // 2, last=3),
    "9 epochs at 32 px, to the end": Way(stages=[AT_32], last=EPOCHS, most=60e6),
}


def main() -> None:
    """Train what DIRECTORY lacks, and print how well each way ranks and what it saves."""
    parser = arguments(__doc__)
    parser.add_argument("sets", type=Path)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--workers", type=int, default=1, help="trainings at the same time")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    sets = [each for each in options.sets.iterdir() if each.is_dir()]
    for _ in range(0, len(sets) * len(WAYS[WHOLE].configurations()), AT_A_TIME):
        for name in WAYS:
            train(name, options)
    curves = {name: trained(name, options) for name in WAYS}
    publish(rows(curves), ratios(curves), options.json)


def train(name: str, options: Any) -> None:
    """Train the next configurations in a way, or go on with them."""
    way, table = WAYS[name], table_of(name, options)
    listed = table.with_suffix(".json")
    listed.write_text(json.dumps(list(way.configurations().values())), encoding="utf-8")
    given = {
        "table": table,
        "work": table.with_suffix(""),
        "configurations": listed,
        "samples": way.samples,
        "last": way.last,
        "seeds": 1,
        "trainings": AT_A_TIME,
        "workers": options.workers,
        "device": "cpu",
    }
    words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    script = str(Path(__file__).with_name("train.py"))
    subprocess.run([sys.executable, script, str(options.sets), *words], check=True)


def table_of(name: str, options: Any) -> Path:
    """The table of the trainings in a way."""
    found: Path = options.directory / f"{list(WAYS).index(name)}.parquet"
    return found


def trained(name: str, options: Any) -> dict[tuple[str, int], Curve]:
    """The trainings in a way, by data set and ID of the configuration in the table."""
    numbers = list(WAYS[name].configurations())
    return {(curve.data_set, numbers[curve.configuration_id]): curve for curve in read_curves(table_of(name, options))}


Curves = Mapping[tuple[str, int], Curve]


def rows(curves: Mapping[str, Curves]) -> list[Row]:
    """A row for each way and data set."""
    listed = []
    for name, of_way in curves.items():
        for data_set in sorted({key[0] for key in of_way}):
            mine = {key: curve for key, curve in of_way.items() if key[0] == data_set}
            # The table's own training has all epochs.
            ranked = {key: SEEDS[key][0] for key in mine} if name == WHOLE else mine
            cells: dict[str, str | float | None] = {"way": name, "data set": data_set, "trainings": len(mine)}
            for epoch in RUNGS:
                reached = name == WHOLE or epoch <= WAYS[name].last
                cells[f"rank correlation at {epoch}"] = correlation(ranked, epoch) if reached else None
            cells["final score"] = gain(mine) if WAYS[name].last == EPOCHS else None
            listed.append(cells)
    return listed


def ratios(curves: Mapping[str, Curves]) -> dict[str, float]:
    """The time of an early epoch over that of a whole one of the same configuration: the median over trainings."""
    return {
        name: float(np.median([_seconds(curve) / _seconds(curves[WHOLE][key]) for key, curve in of_way.items()]))
        for name, of_way in curves.items()
        if name != WHOLE
    }


def correlation(trained: Curves, epoch: int) -> str:
    """The rank correlation of the best score up to an epoch with the final one, and its interval."""
    early = [float(curve.scores[:epoch].max()) for curve in trained.values()]
    final = [_final(key) for key in trained]
    found = bootstrap(
        (early, final), lambda a, b: spearmanr(a, b).statistic, paired=True, method="percentile", vectorized=False,
        n_resamples=RESAMPLES, rng=0,
    ).confidence_interval  # fmt: skip
    return f"{spearmanr(early, final).statistic:.2f} ({found.low:.2f} to {found.high:.2f})"


def gain(trained: Curves) -> str:
    """By how much the final score is above the table's, with its standard error."""
    apart = [float(curve.scores.max()) - _final(key) for key, curve in trained.items()]
    return f"{np.mean(apart):+.4f} ± {np.std(apart, ddof=1) / np.sqrt(len(apart)):.4f}"


def _final(key: tuple[str, int]) -> float:
    """Mean final score of the table's trainings with other seeds than the first, which is that of the new ones."""
    return float(np.mean([curve.scores.max() for curve in SEEDS[key][1:]]))


def _seconds(curve: Curve) -> float:
    return float(curve.numbers["seconds"][1])


@functools.cache
def _repeated() -> dict[int, tuple[dict[str, Any], int]]:
    """The configurations that the table has with three seeds, by ID, with the multiply-adds of their networks."""
    every = json.loads(CONFIGURATIONS.read_text(encoding="utf-8"))
    found = {}
    for number in range(0, len(every), REPEATED):
        config = build(TrialConfig, every[number], source=str(CONFIGURATIONS))
        cost = multiply_adds(build_on_meta(config.model), config.data.image_size)
        found[number] = every[number], cost
    return found


def _by_seed() -> dict[tuple[str, int], list[Curve]]:
    """The table's trainings of the repeated configurations, by seed."""
    found: dict[tuple[str, int], list[Curve]] = {}
    for curve in read_curves():
        if curve.configuration_id % REPEATED == 0:
            found.setdefault((curve.data_set, curve.configuration_id), []).append(curve)
    return found


SEEDS = _by_seed()


if __name__ == "__main__":
    main()
