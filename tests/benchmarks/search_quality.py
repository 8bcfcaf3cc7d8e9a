"""What a search finds in a budget, by its sampler and scheduler, and what Ray's OptunaSearch + ASHA finds.

python tests/benchmarks/search_quality.py [--on curves|lcbench|both] [--seeds 20] [--sides SIDE ...]
    [--processes N] [--json FILE]

Searchers are driven in simulated time, with eight asynchronous workers, through surrogates of learning curves: `curves`
of trainings of this project's own networks (see `curves/surrogate.py`), with the noise of seeds, and `lcbench`, a
published one, for which $TWINHEAD_LCBENCH is the folder that holds lcbench_sim.py; without it, `curves` is the default.
A result is given as the number of random full trainings that it takes to find as good a configuration, the geometric
mean over tasks and seeds; and as regret, by how many hundredths of the score the best possible configuration is better:
mean, and 10 % and 90 % quantiles. The score of a configuration is that of its best epoch without noise, but a search
chooses the configuration by what it observed; `regret_tried` is that of the best configuration which it tried.
`spread` is the ratio of the 90 % and 10 % quantiles of the worth over seeds, the geometric mean over tasks.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import Pool
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

sys.path.append(str(Path(__file__).parents[2]))

from search.spec.sections import rung_epochs
from search.strategy.scheduler import build_scheduler
from search.strategy.searcher import RungSearcher
from tests.benchmarks.curves import simulation
from tests.benchmarks.curves.simulation import Chosen, Floats, Outcome, Reference, Side
from tests.benchmarks.curves.surrogate import DEFAULT_KIND, EPOCHS, KINDS
from tests.benchmarks.results import Row, arguments, publish

VARIABLE = "TWINHEAD_LCBENCH"
FULL = 52
"""Epochs of a full training of the published surrogate."""
BUDGETS = (10, 40)
"""In full trainings; the smaller one is the first part of the larger one, for a simulation does not know its budget."""
CHOICES = {"gp + halving": ("gp", "halving"), "tpe + asha": ("tpe", "asha"), "random + asha": ("random", "asha")}
"""Values of `search.sampler` and `scheduler.name`."""
OURS, OPTUNA = "gp + halving", "OptunaSearch + ASHA"
STARTS = {
    "gp + halving, recipes": Side(sampler="gp", scheduler="halving", start_from=("recipes",)),
    "gp + halving, portfolio, recipes": Side(sampler="gp", scheduler="halving", start_from=("portfolio", "recipes")),
    "gp + halving, portfolio": Side(sampler="gp", scheduler="halving", start_from=("portfolio",)),
    "random + asha, portfolio": Side(sampler="random", scheduler="asha", start_from=("portfolio",)),
}
"""Sides that start from something, by what they are called."""
DEFAULT = "gp + halving, portfolio, recipes"
"""What a search is by default."""
LCBENCH, CURVES, BOTH = "lcbench", "curves", "both"
SIDES = {
    LCBENCH: (*CHOICES, OPTUNA),
    CURVES: (*CHOICES, OPTUNA, *STARTS),
}
"""The published surrogate is not of this project's networks, which recipes and portfolio are of."""
RATIOS = {"tpe + asha": "tpe_asha", "random + asha": "random_asha", OPTUNA: "optuna_asha"}
DRAWS = 2_000
"""Of the bootstrap of ratios."""
LCBENCH_TRAININGS, LCBENCH_ROUNDS, LCBENCH_NEIGHBOURS = 2_000, 6, 50
"""For the best possible configuration of the published surrogate, which takes a millisecond each."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A simulation, as sent to a process."""

    on: str
    task: str
    """A task of LCBench, or a data set of the curves."""
    seed: int
    side: str
    setting: dict[str, Any]
    """The section `scheduler`."""
    kind: str
    """Kind of the surrogate of the curves."""
    budgets: tuple[int, ...] = BUDGETS
    """In full trainings."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a simulation found."""

    job: Job
    outcomes: dict[int, Outcome]
    """By budget."""
    log_worth: dict[int, float]
    """By budget; empty if the reference gives it."""
    seconds: float
    """Of CPU"""
    proposals: int = 0
    proposal_seconds: float = 0.0
    """Of CPU, of all proposals."""


RowOf = Callable[[str, str, int, Sequence[Found], Mapping[str, Reference]], Row]


def main() -> None:
    """Simulate all sides on every task and seed."""
    parser = arguments(__doc__)
    add_options(parser, seeds=20)
    parser.add_argument("--sides", nargs="*", help="beside our default; all when left out")
    parser.add_argument("--grace", type=int, default=3, help="grace_epochs of the search")
    parser.add_argument("--factor", type=float, default=3, help="reduction_factor of the search")
    options = parser.parse_args()
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    with processes(options.processes) as pool:
        for on in (LCBENCH, CURVES) if options.on == BOTH else (options.on,):
            all_jobs = jobs(on, options)
            tasks = list(dict.fromkeys(job.task for job in all_jobs))
            found = pool.map(simulate, all_jobs, chunksize=1)
            references = pool.starmap(reference, [(on, task, options.surrogate) for task in tasks], chunksize=1)
            by_task = dict(zip(tasks, references, strict=True))
            new = rows_of(on, found, by_task)
            rows += new
            ratios |= ratios_of(on, new)
            if on == CURVES:
                ratios |= intervals_of(found, by_task)
    publish(rows, ratios, options.json)


def add_options(parser: argparse.ArgumentParser, *, seeds: int) -> None:
    """Add the options of a benchmark of searches; `seeds` is the default number."""
    default = BOTH if os.environ.get(VARIABLE) else CURVES
    parser.add_argument("--on", choices=[LCBENCH, CURVES, BOTH], default=default, help="the surrogates")
    parser.add_argument("--surrogate", choices=list(KINDS), default=DEFAULT_KIND, help="kind of that of the curves")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="one a core when left out")


def processes(count: int) -> Pool:
    """A pool of processes with a core for each."""
    # Read when numpy is imported, by the processes that start here.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    return multiprocessing.get_context("spawn").Pool(count)


def tasks_of(on: str) -> tuple[list[str], int]:
    """The tasks of a surrogate, and the epochs of a full training."""
    return (list(simulator().RANKS), FULL) if on == LCBENCH else (list(simulation.DATA_SETS), EPOCHS)


def jobs(on: str, options: argparse.Namespace) -> list[Job]:
    """All simulations of a surrogate. All sides of a seed stand together, so that other load meets them alike."""
    tasks, epochs = tasks_of(on)
    setting = {"max_epochs": epochs, "grace_epochs": options.grace, "reduction_factor": options.factor}
    default = DEFAULT if on == CURVES else OURS
    sides = [side for side in SIDES[on] if options.sides is None or side in (default, *options.sides)]
    return [
        Job(on=on, task=task, seed=seed, side=side, setting=setting, kind=options.surrogate)
        for seed in range(options.seeds)
        for task in tasks
        for side in sides
    ]


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


def simulate(job: Job) -> Found:
    """Run one simulation."""
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if job.on == LCBENCH:
        return simulate_lcbench(job)
    surrogate = simulation.surrogate_of(job.task, job.kind)
    budgets = [budget * EPOCHS for budget in job.budgets]
    started = time.process_time()
    searcher, scheduler = simulation.search_of(side_of(job.side), job.setting, job.seed, job.task)
    timed = Timed(searcher)
    outcomes = simulation.simulate(surrogate, (timed, scheduler), job.seed, budgets)
    spent = time.process_time() - started
    found = {budget: outcomes[budget * EPOCHS] for budget in job.budgets}
    return Found(
        job=job,
        outcomes=found,
        log_worth={},
        seconds=spent,
        proposals=timed.proposals,
        proposal_seconds=timed.seconds,
    )


def side_of(name: str) -> Side:
    """What a side of the curves is."""
    if name in STARTS:
        return STARTS[name]
    sampler, scheduler = CHOICES.get(name, ("", "asha"))
    return Side(sampler=sampler, scheduler=scheduler)


def simulate_lcbench(job: Job) -> Found:
    """Run one simulation on a task of the published surrogate."""
    lcbench = simulator()
    curves = lcbench.Curves()
    started = time.process_time()
    is_ours = job.side in CHOICES
    searcher, scheduler = (
        search_of(lcbench, *CHOICES[job.side], job.seed, job.setting)
        if is_ours
        else lcbench.BASELINES[job.side](job.seed)
    )
    timed = Timed(searcher)
    watched = Watched(timed)
    epochs = max(job.budgets) * FULL
    best = lcbench.simulate(lambda config: curves(job.task, config), watched, scheduler, budget=epochs)
    spent = time.process_time() - started
    worth = {budget: -lcbench.log_share(job.task, best[budget * FULL - 1]) for budget in job.budgets}
    outcomes = watched.chosen.outcomes(
        [budget * FULL for budget in job.budgets],
        lambda configurations: best_accuracies(curves, job.task, configurations),
    )
    found = {budget: outcomes[budget * FULL] for budget in job.budgets}
    return Found(
        job=job,
        outcomes=found,
        log_worth=worth,
        seconds=spent,
        proposals=timed.proposals,
        proposal_seconds=timed.seconds,
    )


def best_accuracies(curves: Any, task: str, configurations: Sequence[Mapping[str, Any]]) -> Floats:
    """The accuracy of the best epoch of each configuration, (n,) in 0..1."""
    return np.array([float(curves(task, config).max()) / 100 for config in configurations])


class Timed(Searcher):
    """A searcher whose proposals are counted and timed."""

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(metric=searcher.metric, mode=searcher.mode)
        self._searcher = searcher
        self.proposals = 0
        self.seconds = 0.0
        """Of CPU, of all proposals."""

    def suggest(self, trial_id: str) -> Any:
        """A configuration of the searcher."""
        started = time.process_time()
        config = self._searcher.suggest(trial_id)
        self.seconds += time.process_time() - started
        self.proposals += 1
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Every epoch of a trial."""
        self._searcher.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The end of a trial."""
        self._searcher.on_trial_complete(trial_id, result, error)


class Watched:
    """A searcher, as `lcbench_sim.simulate` calls it, whose observations are kept."""

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._configs: dict[str, Mapping[str, Any]] = {}
        self.chosen = Chosen()

    def suggest(self, trial_id: str) -> Any:
        """A configuration of the searcher."""
        config = self._searcher.suggest(trial_id)
        self._configs[trial_id] = dict(config)
        return config

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Every epoch of a trial."""
        self._searcher.on_trial_result(trial_id, result)
        self.chosen.observe(trial_id, self._configs[trial_id], result["score"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """The end of a trial."""
        self._searcher.on_trial_complete(trial_id, result)


def reference(on: str, task: str, kind: str) -> Reference:
    """What random and the best possible configurations of a task score."""
    if on == CURVES:
        return simulation.reference_of(task, kind)
    lcbench = simulator()
    curves = lcbench.Curves()
    return simulation.reference(
        lcbench.space,
        lambda configurations: best_accuracies(curves, task, configurations),
        trainings=LCBENCH_TRAININGS,
        rounds=LCBENCH_ROUNDS,
        neighbours=LCBENCH_NEIGHBOURS,
    )


def search_of(
    lcbench: ModuleType, sampler: str, scheduler: str, seed: int, setting: dict[str, Any]
) -> tuple[Searcher, TrialScheduler]:
    """What a search with these settings runs."""
    rungs = rung_epochs(**setting)
    searcher = RungSearcher(lcbench.space, rungs=rungs, seed=seed, sampler=sampler)
    return searcher, build_scheduler(name=scheduler, **setting)


def row_of(on: str, side: str, budget: int, found: Sequence[Found], references: Mapping[str, Reference]) -> Row:
    """One side's worth at a budget, with the factor of one standard error, and its regret in hundredths."""

    def best(each: Found) -> Reference:
        return references[each.job.task]

    worth = [each.log_worth.get(budget, math.log(best(each).worth(each.outcomes[budget].chosen))) for each in found]
    by_task: dict[str, list[float]] = {}
    for each, value in zip(found, worth, strict=True):
        by_task.setdefault(each.job.task, []).append(value)
    spans = [float(np.ptp(np.quantile(values, [0.1, 0.9]))) for values in by_task.values()]
    regret = [100 * best(each).regret(each.outcomes[budget].chosen) for each in found]
    regret_tried = [100 * best(each).regret(each.outcomes[budget].best_tried) for each in found]
    return {
        "side": side,
        "budget": budget,
        "worth": math.exp(statistics.mean(worth)),
        "error_factor": math.exp(statistics.stdev(worth) / math.sqrt(len(worth))) if len(worth) > 1 else None,
        "spread": math.exp(statistics.mean(spans)),
        "cpu_seconds": statistics.mean(each.seconds for each in found),
        "on": on,
        "regret": statistics.mean(regret),
        "regret_10": float(np.quantile(regret, 0.1)),
        "regret_90": float(np.quantile(regret, 0.9)),
        "regret_tried": statistics.mean(regret_tried),
    }


def rows_of(on: str, found: Sequence[Found], references: Mapping[str, Reference], row: RowOf = row_of) -> list[Row]:
    """A row a side and budget that were simulated, over all tasks and for each."""
    sides = dict.fromkeys(each.job.side for each in found)
    budgets = dict.fromkeys(budget for each in found for budget in each.outcomes)
    groups = [(on, list(references)), *((f"{on} {task}", [task]) for task in references)]
    return [
        row(
            name,
            side,
            budget,
            [each for each in found if each.job.side == side and budget in each.outcomes and each.job.task in tasks],
            references,
        )
        for name, tasks in groups
        for budget in budgets
        for side in sides
    ]


def ratios_of(on: str, rows: Sequence[Row]) -> dict[str, float]:
    """The worth of our default over that of each other side, and its regret over the other's one, over all tasks."""
    prefix = "" if on == LCBENCH else f"{on}_"
    by_side = {(each["side"], each["budget"]): each for each in rows if each["on"] == on}
    found = {}
    for figure, infix in (("worth", ""), ("regret", "regret_")):
        for budget in BUDGETS:
            ours = float(by_side[DEFAULT if on == CURVES else OURS, budget][figure])  # type: ignore[arg-type]
            for side, name in RATIOS.items():
                if (side, budget) not in by_side:
                    continue
                other = float(by_side[side, budget][figure])  # type: ignore[arg-type]
                found[f"{prefix}{infix}{name}_{budget}"] = ours / other if other else math.nan
    return found


def intervals_of(found: Sequence[Found], references: Mapping[str, Reference]) -> dict[str, float]:
    """Bounds of 80 % of the regret of our default over that of each other side of the curves.

    By a bootstrap of the pairs with the same task and seed, hence the same noise.
    """
    rng, bounds = np.random.default_rng(0), {}
    for budget in BUDGETS:
        by_side: dict[str, dict[tuple[str, int], float]] = {}
        for each in found:
            regret = references[each.job.task].regret(each.outcomes[budget].chosen)
            by_side.setdefault(each.job.side, {})[each.job.task, each.job.seed] = regret
        pairs = sorted(by_side[DEFAULT])
        drawn = rng.integers(len(pairs), size=(DRAWS, len(pairs)))
        ours = np.array([by_side[DEFAULT][pair] for pair in pairs])[drawn].mean(1)
        for side, name in RATIOS.items():
            if side not in by_side:
                continue
            other = np.array([by_side[side][pair] for pair in pairs])[drawn].mean(1)
            low, high = np.quantile(ours / other, [0.1, 0.9])
            bounds |= {f"curves_regret_{name}_{budget}_low": float(low)}
            bounds |= {f"curves_regret_{name}_{budget}_high": float(high)}
    return bounds


if __name__ == "__main__":
    main()
