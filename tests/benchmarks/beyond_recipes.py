"""Whether a search beats the best recipe on other backgrounds: both configurations, trained again with several seeds.

python tests/benchmarks/beyond_recipes.py [DATA] [--trials 24] [--epochs 27] [--size 64] [--seeds 3] [--json FILE]

DATA is a data set; without it, $TWINHEAD_REAL/nyu_composed is imported. `twinhead search` runs with its defaults. The
configuration that it chose and the recipe that was best on the validation images, as the search ran them, are then
trained by `twinhead compare` with other seeds, for as many epochs, and measured on the test images. The differences are
paired; their intervals resample the backgrounds, each with all its images and seeds. --directory keeps everything, and
goes on there after an interruption.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from results import Row, arguments, publish, write
from wait import dataset

from search.study.experiment import Experiment
from search.study.summary import Summary
from trainable.metrics.bootstrap import COMPARED, difference, intervals
from trainable.metrics.per_image import PUBLISHED, ImageFigures, figures

SEARCH, CHOSEN, RECIPE = "search", "chosen", "recipe"
TWINHEAD = (sys.executable, "-m", "search.cli.main")


def main() -> None:
    """Search, train again, and print both sides and their differences."""
    parser = arguments(__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the trainings after the search, from 1 on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the search")
    parser.add_argument("--directory", type=Path, help="of all results; a temporary one when left out")
    options = parser.parse_args()
    place = nullcontext(options.directory) if options.directory else tempfile.TemporaryDirectory()
    with dataset(options.data) as data, place as directory:
        storage = Path(directory)
        summary = search(str(data.path), storage, options)
        found = [train(str(data.path), storage, seed, options) for seed in range(1, options.seeds + 1)]
    sides = {name: joined([tables[name] for tables in found]) for name in (CHOSEN, RECIPE)}
    assert summary.best is not None
    assert summary.recipe is not None
    write(
        f"{summary.trials} trials, {summary.epochs} epochs, {summary.seconds:.0f} s; trial {summary.best.trial} "
        f"against {summary.recipe.recipe}; on validation {summary.best.metrics['score']:.4f} and "
        f"{summary.recipe.metrics['score']:.4f}"
    )
    publish(rows(sides, found), ratios(sides), options.json)


def search(data: str, storage: Path, options: Any) -> Summary:
    """Run the search, or go on with it, and write both configurations as recipes."""
    experiment = Experiment(storage=storage, name=SEARCH)
    settings = {
        "data.image_size": options.size,
        "scheduler.max_epochs": options.epochs,
        "search.seed": options.seed,
        "retrain.enabled": False,
    }
    if experiment.spec_file.is_file():
        twinhead("search", "--resume", SEARCH, storage=storage)
    else:
        given = ["--data", data, "--name", SEARCH, "--trials", str(options.trials)]
        twinhead("search", *given, storage=storage, settings=settings)
    summary = experiment.summary()
    for name, trial in ((CHOSEN, summary.best), (RECIPE, summary.recipe)):
        if trial is None:
            sys.exit(f"The search has no {name} that ran for all epochs; give it more --trials.")
        about = {"name": name, "source": f"trial {trial.trial} of a search"}
        (storage / f"{name}.yaml").write_text(yaml.safe_dump({**about, **trial.config}, sort_keys=False))
    return summary


def train(data: str, storage: Path, seed: int, options: Any) -> dict[str, ImageFigures]:
    """Train both configurations with a seed, unless that was done, and return what they measured on test."""
    experiment = Experiment(storage=storage, name=f"seed-{seed}")
    files = ",".join(str(storage / f"{name}.yaml") for name in (CHOSEN, RECIPE))
    if not experiment.root.is_dir():
        settings = {"data.image_size": options.size, "seed": seed}
        given = [data, "--recipes", files, "--epochs", str(options.epochs), "--name", experiment.name]
        twinhead("compare", *given, storage=storage, settings=settings)
    elif not all(experiment.measured(name).is_file() for name in (CHOSEN, RECIPE)):
        twinhead("compare", "--resume", experiment.name, storage=storage)
    return {name: ImageFigures.load(experiment.measured(name)) for name in (CHOSEN, RECIPE)}


def twinhead(command: str, *words: str, storage: Path, settings: Mapping[str, object] | None = None) -> None:
    """Run a command of Twinhead; ends this benchmark if it fails."""
    pairs = [word for key, value in (settings or {}).items() for word in ("--set", f"{key}={str(value).lower()}")]
    found = subprocess.run(
        [*TWINHEAD, command, *words, *pairs, "--storage", str(storage)], cwd=Path(__file__).parents[2], check=False
    )
    if found.returncode:
        sys.exit(found.returncode)


def joined(tables: Sequence[ImageFigures]) -> ImageFigures:
    """All seeds as one table: an image stands in it once for each seed."""
    return ImageFigures(
        bg_ids=tuple(bg_id for table in tables for bg_id in table.bg_ids),
        states=np.concatenate([table.states for table in tables]),
        published={name: np.concatenate([table.published[name] for table in tables]) for name in PUBLISHED},
    )


def rows(sides: Mapping[str, ImageFigures], by_seed: Sequence[Mapping[str, ImageFigures]]) -> list[Row]:
    """A row a metric: both sides with their intervals and the standard deviation over seeds, and the difference."""
    of_side = {name: intervals(table) for name, table in sides.items()}
    listed = []
    for metric in COMPARED:
        apart = difference(sides[CHOSEN], sides[RECIPE], metric)
        cells: dict[str, str | float] = {"metric": metric}
        for name in sides:
            found = of_side[name][metric]
            values = [figures(tables[name])[metric] for tables in by_seed]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells[name] = f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f}; seeds {spread:.4f})"
        cells["difference"] = f"{apart.value:+.4f} ({apart.low:+.4f} to {apart.high:+.4f})"
        listed.append(cells)
    return listed


def ratios(sides: Mapping[str, ImageFigures]) -> dict[str, float]:
    """The chosen configuration's metrics over the recipe's."""
    both = {name: figures(table) for name, table in sides.items()}
    return {metric: both[CHOSEN][metric] / both[RECIPE][metric] for metric in COMPARED}


if __name__ == "__main__":
    main()
