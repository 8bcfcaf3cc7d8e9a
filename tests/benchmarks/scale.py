"""What a search's driver spends on a report: searcher, scheduler and callbacks, over 2,000 trials that train nothing.

python tests/benchmarks/scale.py [--trials 2000] [--json FILE]

Trials of five reports each, sixteen at a time, in simulated time: what is left is the driver's own work, with the
study in a journal on disk and a directory a trial, as a search has them. The scheduler is asked at every report, but
nobody is stopped. The other side is Ray's OptunaSearch and ASHAScheduler on the same space, with the same journal; it
ends where it has taken as long as it may. `growth` is the time of all trials over that of the first quarter.
"""

from __future__ import annotations

import io
import logging
import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import JournalStorage
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from results import Row, arguments, publish, write
from rich.console import Console
from tune_loop import CHECKPOINT, Result, Search, run

from search.run.budget import Budget
from search.run.failures import Failures
from search.run.progress import SearchProgress
from search.run.recorder import Recorder, TensorBoard
from search.run.tuner import Stopper, build_searcher
from search.spec.sections import BudgetConfig, rung_epochs
from search.spec.spec import SearchSpec, check_spec
from search.strategy.scheduler import build_scheduler
from search.strategy.space import define_space
from search.study.experiment import Experiment
from search.study.journal import Journal
from search.study.study import open_study
from search.terminal import Screen
from trainable.loop.checkpoint import STATE, WEIGHTS
from trainable.loop.clock import OTHER, PHASES
from trainable.metrics.names import METRICS, MODE, OBJECTIVE, TIME_ATTR, TRAINED

REPORTS, CONCURRENT = 5, 16
SCHEDULE = {"max_epochs": REPORTS, "grace_epochs": 1, "reduction_factor": 3}
LIMIT = 100.0
"""Seconds after which the other side ends."""
MARKS = (4, 2, 1)
"""Read after a quarter, a half and all of the trials."""
OURS, THEIRS = "ours", "Ray's"
TOTAL = "together"
DECIDING = ("searcher: propose", "searcher: learn", "scheduler")
"""What both sides have."""

Marks = dict[int, dict[str, float]]
"""By the number of trials that ended, the seconds that each part had taken by then."""


def main() -> None:
    """Drive both sides, one after the other, and print what each part of them took."""
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    options = parser.parse_args()
    # Read when numpy is imported, by the processes that start here: a core each.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    found: dict[str, Marks] = {}
    for side, drive in ((OURS, ours), (THEIRS, theirs)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[side] = pool.apply(drive, (options.trials,))
    publish(rows(found, options.trials), ratios(found, options.trials), options.json)
    write(f"a growth as n log n would be {n_log_n(options.trials):.3g}")


def ours(trials: int) -> Marks:
    """What our driver does."""
    with tempfile.TemporaryDirectory() as directory:
        experiment, spec = Experiment(storage=Path(directory), name="scale"), _spec()
        experiment.create(spec)
        study = open_study(experiment)
        searcher = build_searcher(experiment, study, define_space(spec), rungs=rung_epochs(**SCHEDULE), seed=0)
        budget = Budget(BudgetConfig(patience=10**9, gpu_hours=1e9), study, gpus=1)
        screen, watch = Screen(Console(file=io.StringIO())), Watch(trials)
        with screen.bar("searching", trials, "trials") as move:
            progress = SearchProgress(screen, move, max_epochs=REPORTS)
            search = Search(
                searcher=searcher,
                scheduler=Ignored(build_scheduler(**SCHEDULE)),
                callbacks=[
                    Recorder(experiment, searcher, Failures(lambda _: None)),
                    TensorBoard(experiment),
                    progress,
                    budget,
                    watch,
                ],
                stopper=Stopper(budget=budget),
            )
            watch.over(search)
            run(search, Trivial(experiment), concurrent=CONCURRENT, trials=trials)
    return watch.marks


def theirs(trials: int) -> Marks:
    """What Ray's searcher and scheduler do."""
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as directory:
        experiment, space = Experiment(storage=Path(directory), name="scale"), define_space(_spec())
        experiment.root.mkdir()
        watch = Watch(trials)
        asha = ASHAScheduler(
            time_attr=TIME_ATTR, metric=OBJECTIVE, mode=MODE, max_t=REPORTS, grace_period=1, reduction_factor=3
        )
        search = Search(
            searcher=OptunaSearch(
                lambda trial: {"trial": space(trial), "name": f"{trial.number:05d}"},
                metric=OBJECTIVE,
                mode=MODE,
                storage=JournalStorage(Journal(experiment.study_file)),
                seed=0,
            ),
            scheduler=Ignored(asha),
            callbacks=[watch],
            stopper=Stopper(seconds=LIMIT),
        )
        watch.over(search)
        run(search, Trivial(experiment), concurrent=CONCURRENT, trials=trials)
    return watch.marks


class Watch(tune.Callback):
    """Adds up the seconds of each part of a search, and keeps them after some numbers of trials."""

    def __init__(self, trials: int) -> None:
        self._seconds: dict[str, float] = {}
        self._ended = 0
        self._wanted = {trials // mark for mark in MARKS}
        self.marks: Marks = {}

    def over(self, search: Search) -> None:
        """Watch all that Tune calls."""
        self._watch(DECIDING[0], search.searcher, "suggest")
        self._watch(DECIDING[1], search.searcher, "on_trial_result", "on_trial_complete")
        self._watch(DECIDING[2], search.scheduler, "on_trial_add", "on_trial_result", "on_trial_complete")
        for callback in search.callbacks:
            if callback is not self:
                events = ("on_trial_start", "on_trial_result", "on_checkpoint", "on_trial_complete")
                self._watch(type(callback).__name__, callback, *events)
        self._watch("stopper", search.stopper, "stop_all")

    def on_trial_complete(self, *_: Any, **__: Any) -> None:
        self._ended += 1
        if self._ended in self._wanted:
            self.marks[self._ended] = dict(self._seconds)

    def _watch(self, part: str, owner: object, *methods: str) -> None:
        self._seconds[part] = 0.0
        for method in methods:
            setattr(owner, method, self._timed(part, getattr(owner, method)))

    def _timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            returned = method(*given, **named)
            self._seconds[part] += time.perf_counter() - started
            return returned

        return timed


class Ignored(FIFOScheduler):
    """Asks a scheduler, and stops nobody."""

    def __init__(self, asked: TrialScheduler) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._asked = asked
        self.on_trial_add = asked.on_trial_add  # type: ignore[method-assign]
        self.on_trial_complete = asked.on_trial_complete  # type: ignore[method-assign]

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        self._asked.on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE)


class Trivial:
    """Reports as a trial does, with checkpoints of empty files; the score follows from a few of its parameters."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    def __call__(self, config: dict[str, Any]) -> Iterator[Result]:
        values, best = config["trial"], -math.inf
        distance = abs(math.log10(values["optimizer"]["lr"] / 3e-3)) + values["loss"]["depth"]["l1"] / 4
        rng = np.random.default_rng(int(config["name"]))
        for epoch in range(1, REPORTS + 1):
            score = math.exp(-distance) * (1 - 0.7**epoch) + 0.02 * rng.standard_normal()
            names = (*METRICS, *(f"time_{phase}" for phase in (*PHASES, OTHER)), "train_loss", "lr", "seconds")
            report: dict[str, Any] = dict.fromkeys(names, 0.5) | {
                OBJECTIVE: score,
                TIME_ATTR: epoch,
                "outcome": TRAINED,
            }
            if score > best:
                best = score
                directory = self._save(config["name"], epoch)
                report |= {"checkpoint_dir_name": directory.name, CHECKPOINT: tune.Checkpoint.from_directory(directory)}
            yield report | {"lr_factors": [1.0] * epoch, "violations": {}}

    def _save(self, name: str, epoch: int) -> Path:
        directory = self._experiment.trials / name / f"checkpoint_{epoch - 1:06d}"
        directory.mkdir(parents=True)
        for file in (WEIGHTS, STATE):
            (directory / file).touch()
        return directory


def rows(found: dict[str, Marks], trials: int) -> list[Row]:
    """A row for each part of each side: seconds after so many trials, their growth, and milliseconds a report."""
    table: list[Row] = []
    for side, marks in found.items():
        totals = {ended: sum(parts.values()) for ended, parts in marks.items()}
        for part in [*next(iter(marks.values())), TOTAL] if marks else []:
            seconds = {ended: parts.get(part, totals[ended]) for ended, parts in marks.items()}
            at = {f"s/{trials // mark}": seconds.get(trials // mark) for mark in MARKS}
            table.append({"side": side, "part": part} | at | _growth(seconds, trials) | _per_report(seconds))
    return table


def _growth(seconds: dict[int, float], trials: int) -> dict[str, float | None]:
    first, last = seconds[trials // MARKS[0]], seconds.get(trials)
    return {"growth": last / first if last and first else None}


def _per_report(seconds: dict[int, float]) -> dict[str, float | None]:
    ended = max(seconds)
    return {"ms/report": seconds[ended] / ended / REPORTS * 1000}


def ratios(found: dict[str, Marks], trials: int) -> dict[str, float]:
    """How ours grows, as a power of the number of trials too, and what theirs takes of what both sides have."""
    totals = {ended: sum(parts.values()) for ended, parts in found[OURS].items()}
    growth = totals[trials] / totals[trials // MARKS[0]]
    beside = {
        f"theirs_by_ours_{ended}": _deciding(found[THEIRS][ended]) / _deciding(found[OURS][ended])
        for ended in found[THEIRS]
    }
    return {
        "growth": growth,
        "growth_by_n_log_n": growth / n_log_n(trials),
        "exponent": math.log(growth) / math.log(MARKS[0]),
        "ms_per_report": totals[trials] / trials / REPORTS * 1000,
        **beside,
    }


def _deciding(parts: Mapping[str, float]) -> float:
    return sum(parts[part] for part in DECIDING)


def n_log_n(trials: int) -> float:
    """What `growth` would be if the time grew as n·log n."""
    return MARKS[0] * math.log(trials) / math.log(trials / MARKS[0])


def _spec() -> SearchSpec:
    given = {"scheduler": SCHEDULE, "search": {"start_from": []}}
    return check_spec(given, source="this benchmark", data_path="nowhere")


if __name__ == "__main__":
    main()
