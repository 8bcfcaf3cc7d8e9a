"""What a search finds on real pictures at 64 px, by its sampler and scheduler, and what OptunaSearch + ASHA finds.

python tests/benchmarks/search_real.py [DATA] [--epochs 108] [--seeds 3] [--chart FILE.svg] [--json FILE]

DATA is a data set; without it, $TWINHEAD_REAL/nyu_composed is imported, and removed at the end. All ways search the
default space without its large networks, start from no recipe, and spend the same number of epochs, four trials at a
time in simulated time. Trials are really trained, on some of the pictures, each on a core of its own; a configuration
that two ways draw is trained once. Scores are of the validation pictures: the best so far, over the epochs spent.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from line_chart import Line, line_chart
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from real_trials import Trainer
from results import Row, arguments, publish, write
from tune_loop import Search, optuna_search, run
from wait import dataset

from search.spec.sections import rung_epochs
from search.spec.spec import SearchSpec, check_spec
from search.strategy.scheduler import build_scheduler
from search.strategy.searcher import RungSearcher
from search.strategy.space import Space, define_space
from trainable.metrics.names import OBJECTIVE

SCHEDULE = {"max_epochs": 9, "grace_epochs": 3, "reduction_factor": 3}
STEP_SIZES = {"resunet": [4, 8], "pair": [4, 8], "sepunet": [8, 16]}
"""What is searched of the families: those that take about a second of a core for an epoch of the default samples."""
PARTS = 9
"""The table has so many rows."""
CHOICES = {"ours": ("gp", "halving"), "random + ASHA": ("random", "asha"), "random": ("random", "none")}
"""Values of `search.sampler` and `scheduler.name`."""
OURS, OPTUNA, ASHA, RANDOM = "ours", "OptunaSearch + ASHA", "random + ASHA", "random"

NAMES = {OPTUNA: "optuna_asha", ASHA: "random_asha", RANDOM: "random"}

Curve = list[float]
"""The best score so far, after each epoch that was spent."""
Curves = Mapping[str, Sequence[Curve]]
"""By way, one a seed."""


def main() -> None:
    """Run all ways with all seeds side by side, and print and draw how far each had come when."""
    parser = arguments(__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--epochs", type=int, default=108, help="of each search, over all of its trials")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=160, help="of the training part; validation is whole")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--concurrent", type=int, default=4, help="trials at a time, in simulated time")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="one a core when left out")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the curves into this SVG file")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    # Ray's searcher says so where the space takes long to draw from: here because many searches share this process.
    warnings.filterwarnings("ignore", message="Define-by-run function")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Read when numpy is imported, by the processes that start here: a core for each.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    jobs = [(way, seed) for seed in range(options.seeds) for way in WAYS]
    started = time.monotonic()
    with dataset(options.data) as data, tempfile.TemporaryDirectory() as directory:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.processes, context) as processes, ThreadPoolExecutor(len(jobs)) as threads:
            seen = replace(data, samples=options.samples)
            trainer = Trainer(processes, seen, Path(directory), rung_epochs(**SCHEDULE))
            found = list(threads.map(lambda job: search(*job, options, trainer), jobs))
    curves = {way: [curve for (name, _), curve in zip(jobs, found, strict=True) if name == way] for way in WAYS}
    marks = [options.epochs * part // PARTS for part in range(1, PARTS + 1)]
    publish([row(curves, mark) for mark in marks], ratios(curves), options.json)
    write(
        f"{len(jobs) * options.epochs} epochs were spent and {trainer.epochs} trained, in {trainer.seconds:.0f} s of a "
        f"core; {options.processes} processes took {time.monotonic() - started:.0f} s"
    )
    if options.chart:
        options.chart.write_text(chart(curves, options.size))


def search(way: str, seed: int, options: argparse.Namespace, trainer: Trainer) -> Curve:
    """What a search found, by the epochs that it had spent."""
    space, seen = define_space(spec(options.size, seed)), Best()
    searcher, scheduler = WAYS[way](space, seed)
    run(
        Search(searcher=searcher, scheduler=scheduler, callbacks=[seen]),
        trainer,
        concurrent=options.concurrent,
        epochs=options.epochs,
    )
    write(f"{way}, seed {seed}: {seen.curve[-1]:.3f}")
    return seen.curve


def spec(size: int, seed: int) -> SearchSpec:
    """The default one, without the networks that take long and without recipes to start from.

    The precision is given, for what each machine measures to be the quicker one would not be the same anywhere.
    """
    given = {
        "data": {"image_size": size},
        "model": {
            "family": {"choices": list(STEP_SIZES)},
            "width": {"per": "model.family"} | {family: {"choices": widths} for family, widths in STEP_SIZES.items()},
            "precision": "bf16",
        },
        "scheduler": SCHEDULE,
        "search": {"seed": seed, "start_from": []},
    }
    return check_spec(given, source="this benchmark", data_path="nowhere")


def search_of(sampler: str, scheduler: str, space: Space, seed: int) -> tuple[Searcher, TrialScheduler]:
    """What a search with these settings runs."""
    searcher = RungSearcher(
        space,
        rungs=rung_epochs(**SCHEDULE),
        seed=seed,
        sampler=sampler,
        describe=lambda _, values: {"trial": values},
    )
    return searcher, build_scheduler(name=scheduler, **SCHEDULE)


def optuna_and_asha(space: Space, seed: int) -> tuple[Searcher, TrialScheduler]:
    """Ray's OptunaSearch, on the same space, with ASHA."""
    return optuna_search(space, seed), build_scheduler(name="asha", **SCHEDULE)


WAYS: dict[str, Callable[[Space, int], tuple[Searcher, TrialScheduler]]] = {
    OURS: partial(search_of, *CHOICES[OURS]),
    OPTUNA: optuna_and_asha,
    ASHA: partial(search_of, *CHOICES[ASHA]),
    RANDOM: partial(search_of, *CHOICES[RANDOM]),
}


class Best(tune.Callback):
    """Keeps the best score so far, after each epoch."""

    def __init__(self) -> None:
        self.curve: Curve = []

    def on_trial_result(self, *_: Any, result: dict[str, Any], **__: Any) -> None:
        self.curve.append(max([float(result[OBJECTIVE]), *self.curve[-1:]]))


def row(curves: Curves, epochs: int) -> Row:
    """The best score of each way after so many epochs: the mean over seeds, and their range."""
    cells = {}
    for way, of_seeds in curves.items():
        best = [curve[epochs - 1] for curve in of_seeds]
        cells[way] = f"{statistics.mean(best):.3f} ({min(best):.3f}-{max(best):.3f})"
    return {"epochs": epochs, **cells}


def ratios(curves: Curves) -> dict[str, float]:
    """For each other way: how many times the epochs it takes to come as far as the one that came less far.

    Beside it, our best score over its one. Both of the means over seeds, after all epochs.
    """
    means = {way: _over_seeds(of_seeds, statistics.mean) for way, of_seeds in curves.items()}
    found = {}
    for way, name in NAMES.items():
        mine, other = means[OURS], means[way]
        goal = min(mine[-1], other[-1])
        found[f"epochs_of_{name}"] = _reached(other, goal) / _reached(mine, goal)
        found[f"score_over_{name}"] = mine[-1] / other[-1]
    return found


def chart(curves: Curves, size: int) -> str:
    """Means over seeds with their ranges; the first quarter, where all ways climb, is left out."""
    lines = [
        Line(
            name=way,
            middle=_over_seeds(of_seeds, statistics.mean),
            low=_over_seeds(of_seeds, min),
            high=_over_seeds(of_seeds, max),
        )
        for way, of_seeds in curves.items()
    ]
    seeds = len(curves[OURS])
    return line_chart(
        lines,
        title=f"Search on real pictures at {size} px: mean and range of {seeds} seeds",
        across="epochs spent, over all trials of a search",
        upwards="best validation score so far",
        start=max(1, len(lines[0].middle) // 4),
    )


def _over_seeds(of_seeds: Sequence[Curve], take: Callable[[Sequence[float]], float]) -> Curve:
    return [take(values) for values in zip(*of_seeds, strict=True)]


def _reached(curve: Curve, goal: float) -> int:
    """After how many epochs it is as good as `goal`."""
    return next(epochs for epochs, score in enumerate(curve, start=1) if score >= goal)


if __name__ == "__main__":
    main()
