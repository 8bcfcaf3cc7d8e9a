"""What a search finds in a budget, by its sampler and scheduler, and what Ray's OptunaSearch + ASHA finds.

TWINHEAD_LCBENCH=FOLDER python tests/benchmarks/search_quality.py [--seeds 20] [--processes N] [--json FILE]

FOLDER holds lcbench_sim.py, which drives searchers through a published surrogate of learning curves in simulated time
with eight asynchronous workers. A result is given as the number of random full trainings that
it takes to find as good a configuration: the geometric mean over tasks and seeds.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher
from results import Row, arguments, publish

from search.spec.sections import rung_epochs
from search.strategy.scheduler import build_scheduler
from search.strategy.searcher import RungSearcher

VARIABLE = "TWINHEAD_LCBENCH"
FULL = 52
"""Epochs of a full training."""
BUDGETS = (10, 40)
"""In full trainings; the smaller one is the first part of the larger one, for a simulation does not know its budget."""
CHOICES = {"gp + halving": ("gp", "halving"), "tpe + asha": ("tpe", "asha"), "random + asha": ("random", "asha")}
"""Values of `search.sampler` and `scheduler.name`."""
OURS, OPTUNA = "gp + halving", "OptunaSearch + ASHA"
SIDES = (*CHOICES, OPTUNA)
RATIOS = {"tpe + asha": "tpe_asha", "random + asha": "random_asha", OPTUNA: "optuna_asha"}


def main() -> None:
    """Simulate all sides on every task and seed."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="one a core when left out")
    parser.add_argument("--grace", type=int, default=3, help="grace_epochs of the search")
    parser.add_argument("--factor", type=float, default=3, help="reduction_factor of the search")
    options = parser.parse_args()
    setting = {"max_epochs": FULL, "grace_epochs": options.grace, "reduction_factor": options.factor}
    # All sides of a seed stand together, so that whatever else the machine does meets them alike.
    jobs = [
        (task, seed, side, setting) for seed in range(options.seeds) for task in simulator().RANKS for side in SIDES
    ]
    # Read when numpy is imported, by the processes that start here: a core for each.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        found = pool.map(simulate, jobs, chunksize=1)
    rows = [row(side, budget, found) for budget in BUDGETS for side in SIDES]
    worth = {(each["side"], each["budget"]): each["worth"] for each in rows}
    ratios = {
        f"{name}_{budget}": float(worth[OURS, budget]) / float(worth[side, budget])  # type: ignore[arg-type]
        for budget in BUDGETS
        for side, name in RATIOS.items()
    }
    publish(rows, ratios, options.json)


def simulator() -> ModuleType:
    """The module that the environment names; leaves with one sentence if it cannot be had."""
    folder = os.environ.get(VARIABLE, "")
    path = Path(folder) / "lcbench_sim.py"
    if not folder or not path.is_file():
        sys.exit(f"The value of {VARIABLE} is '{folder}', but must be the folder that holds lcbench_sim.py; set it.")
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        sys.exit(f"The value of {VARIABLE} is '{folder}', but its lcbench_sim.py is no Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def simulate(job: tuple[str, int, str, dict[str, Any]]) -> tuple[str, dict[int, float], float]:
    """The side, by budget the logarithm of what its find is worth, and the seconds of CPU that it took."""
    task, seed, side, setting = job
    lcbench = simulator()
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = lcbench.Curves()
    started = time.process_time()
    pair = search_of(lcbench, *CHOICES[side], seed, setting) if side in CHOICES else lcbench.BASELINES[side](seed)
    best = lcbench.simulate(lambda config: curves(task, config), *pair, budget=max(BUDGETS) * FULL)
    spent = time.process_time() - started
    return side, {budget: -lcbench.log_share(task, best[budget * FULL - 1]) for budget in BUDGETS}, spent


def search_of(
    lcbench: ModuleType, sampler: str, scheduler: str, seed: int, setting: dict[str, Any]
) -> tuple[Searcher, TrialScheduler]:
    """What a search with these settings runs."""
    rungs = rung_epochs(**setting)
    searcher = RungSearcher(lcbench.space, metric="score", mode="max", rungs=rungs, seed=seed, sampler=sampler)
    return searcher, build_scheduler(name=scheduler, metric="score", mode="max", **setting)


def row(side: str, budget: int, found: list[tuple[str, dict[int, float], float]]) -> Row:
    """One side's worth at a budget, with the factor of one standard error."""
    worth = [values[budget] for name, values, _ in found if name == side]
    return {
        "side": side,
        "budget": budget,
        "worth": math.exp(statistics.mean(worth)),
        "error_factor": math.exp(statistics.stdev(worth) / math.sqrt(len(worth))),
        "cpu_seconds": statistics.mean(spent for name, _, spent in found if name == side),
    }


if __name__ == "__main__":
    main()
