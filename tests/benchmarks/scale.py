"""What a search's driver spends on a report: searcher, scheduler and callbacks, over 2,000 trials that train nothing.

python tests/benchmarks/scale.py [--trials 2000] [--concurrent 16] [--json FILE]

Trials of five reports each, in simulated time: what is left is the driver's own work, with the study in a journal on
disk and a directory a trial, as a search has them. The scheduler is asked at every report, but nobody is stopped. The
other side is Ray's OptunaSearch and ASHAScheduler on the same space, with the same journal; it ends where it has taken
as long as it may. `growth` is the value at the end over that after a quarter of the trials. Ray Tune's own event loop,
processes and network are on neither side. `scale_storage.py` measures the requests to a remote storage.
"""

from __future__ import annotations

import io
import logging
import math
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
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

from data.dataset.storage import Location
from data.dataset.transfer import write_whole
from search.dashboard import JobNote
from search.live import live
from search.results.tally import RunPlan, Tally
from search.run.budget import Budget
from search.run.failures import Failures
from search.run.metrics import SearchMetrics
from search.run.progress import MachineChange, SearchProgress
from search.run.recorder import Recorder, TensorBoard, TrialLogs
from search.run.tuner import Stopper, new_request
from search.spec.sections import BudgetConfig
from search.spec.spec import SearchSpec, check_spec
from search.strategy.scheduler import build_scheduler, replay
from search.strategy.searcher import RungSearcher
from search.strategy.space import define_space
from search.study.experiment import Experiment
from search.study.journal import Journal
from search.study.study import open_study
from search.study.trials import trial_records
from search.terminal import Screen
from trainable.loop.checkpoint_files import STATE, WEIGHTS
from trainable.loop.clock import OTHER, PHASES
from trainable.metrics.names import METRICS, MODE, OBJECTIVE, TIME_ATTR, TRAINED

REPORTS = 5
REPORTED = (
    *METRICS,
    *(f"time_{phase}" for phase in (*PHASES, OTHER)),
    *("train_loss", "val_loss", "lr", "seconds", "samples_per_second", "memory_host_gb", "memory_device_gb"),
)
"""Metrics of a report."""
SCHEDULE = {"max_epochs": REPORTS, "grace_epochs": 1, "reduction_factor": 3}
LIMIT = 100.0
"""Seconds after which the other side ends."""
QUARTER = 4
MARKS = (16, 8, QUARTER, 2, 1)
"""Read after a sixteenth, an eighth, a quarter, a half and all of the trials."""
OURS, THEIRS = "ours", "Ray's"
TOTAL = "together"
DECIDING = ("searcher: propose", "searcher: learn", "scheduler")
"""What both sides have."""
CPU, MEMORY, JOURNAL, FILES = "CPU of all, s", "peak memory, MiB", "journal, MiB", "open files"
SIZES = (CPU, MEMORY, JOURNAL, FILES)
"""Of the whole process. With other load on the machine, the seconds of CPU are the ones to read."""
RESUME = "resume, s"
"""Seconds in which another driver reads the study."""
MIB = 2**20

Marks = dict[int, dict[str, float]]
"""By the number of trials that ended, the seconds that each part had taken by then, and the sizes."""


def main() -> None:
    """Drive both sides, one after the other, and print what each part of them took."""
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--concurrent", type=int, default=16, help="trials at a time")
    options = parser.parse_args()
    # Read when numpy is imported, by the processes that start here: a core each.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    found: dict[str, Marks] = {}
    for side, drive in ((OURS, ours), (THEIRS, theirs)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found[side] = pool.apply(drive, (options.trials, options.concurrent))
    publish(rows(found, options.trials), ratios(found, options.trials), options.json)
    write(f"a growth as n log n would be {n_log_n(options.trials):.3g}")


def ours(trials: int, concurrent: int) -> Marks:
    """What our driver does."""
    with tempfile.TemporaryDirectory() as directory:
        experiment, spec = Experiment(storage=Path(directory), name="scale"), make_spec(SCHEDULE)
        experiment.create(spec)
        watch = Watch(trials, experiment.study_file)
        with driver(experiment, spec, trials, watch) as search:
            search = replace(search, scheduler=Ignored(search.scheduler))
            watch.over(search)
            run(search, Trivial(experiment), concurrent=concurrent, trials=trials)
        started = time.perf_counter()
        with driver(experiment, spec, trials) as search:
            assert isinstance(search.searcher, RungSearcher)
            replay(search.scheduler, search.searcher.study.get_trials(deepcopy=False))
        watch.marks[trials][RESUME] = time.perf_counter() - started
    return watch.marks


@contextmanager
def driver(experiment: Experiment, spec: SearchSpec, trials: int, *callbacks: tune.Callback) -> Iterator[Search]:
    """All that Tune calls in a search of so many trials, as `search.run` connects it, and further callbacks."""
    study, screen, begun = open_study(experiment), Screen(Console(file=io.StringIO())), time.monotonic()
    earlier = trial_records(study)
    describe = partial(new_request, experiment)
    searcher = RungSearcher(define_space(spec), rungs=spec.plan.scheduler.rungs, study=study, describe=describe)
    budget = Budget(BudgetConfig(patience=10**9, gpu_hours=1e9), study, gpus=1)
    tally = Tally(RunPlan.of_search(experiment.name, spec), earlier)
    with live(screen, lambda: tally.status(seconds=time.monotonic() - begun)) as changed:
        yield Search(
            searcher=searcher,
            scheduler=build_scheduler(**spec.plan.scheduler.model_dump()),
            callbacks=[
                Recorder(experiment, searcher, Failures(lambda _: None)),
                TensorBoard(experiment),
                SearchProgress(screen, tally, changed),
                budget,
                MachineChange(screen, earlier),
                TrialLogs(experiment),
                JobNote(tally),
                SearchMetrics(experiment.name, spec, tally, budget, lambda: time.monotonic() - begun),
                *callbacks,
            ],
            stopper=Stopper(budget=budget),
        )


def theirs(trials: int, concurrent: int) -> Marks:
    """What Ray's searcher and scheduler do."""
    logging.disable(logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as directory:
        experiment, space = Experiment(storage=Path(directory), name="scale"), define_space(make_spec(SCHEDULE))
        experiment.root.mkdir()
        watch = Watch(trials, experiment.study_file)
        asha = ASHAScheduler(
            time_attr=TIME_ATTR, metric=OBJECTIVE, mode=MODE, max_t=REPORTS, grace_period=1, reduction_factor=3
        )
        search = Search(
            searcher=OptunaSearch(
                lambda trial: {"trial": space(trial), "name": f"{trial.number:05d}"},
                metric=OBJECTIVE,
                mode=MODE,
                storage=JournalStorage(Journal(experiment.study_file, write)),
                seed=0,
            ),
            scheduler=Ignored(asha),
            callbacks=[watch],
            stopper=Stopper(seconds=LIMIT),
        )
        watch.over(search)
        run(search, Trivial(experiment), concurrent=concurrent, trials=trials)
    return watch.marks


class Watch(tune.Callback):
    """Adds up the seconds of each part of a search, and keeps them and the sizes after some numbers of trials."""

    def __init__(self, trials: int, journal: Path) -> None:
        self._journal = journal
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
            sizes = {
                CPU: time.process_time(),
                MEMORY: peak_memory(),
                JOURNAL: self._journal.stat().st_size / MIB,
                FILES: len([*Path("/proc/self/fd").iterdir()]) if sys.platform == "linux" else math.nan,
            }
            self.marks[self._ended] = self._seconds | sizes
            text = ", ".join(f"{name} {value:,.0f}" for name, value in sizes.items())
            write(f"{self._ended} trials ended after {sum(self._seconds.values()):.0f} s: {text}")

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
    """Reports as a trial does, with checkpoints of empty files; the score follows from a few of its parameters.

    Args:
        experiment: of the trial.
        reports: number of reports of a trial that is not stopped.
        endpoint: S3 server for the checkpoints, if the storage is remote.
    """

    def __init__(self, experiment: Experiment, reports: int = REPORTS, *, endpoint: str = "") -> None:
        self._experiment = experiment
        self._reports = reports
        self._endpoint = endpoint

    def __call__(self, config: dict[str, Any]) -> Iterator[Result]:
        values, best = config["trial"], -math.inf
        distance = abs(math.log10(values["optimizer"]["lr"] / 3e-3)) + values["loss"]["depth"]["l1"] / 4
        rng = np.random.default_rng(int(config["name"]))
        factors = [float(factor) for factor in rng.random(self._reports)]
        for epoch in range(1, self._reports + 1):
            score = math.exp(-distance) * (1 - 0.7**epoch) + 0.02 * rng.standard_normal()
            # A number of the usual length: it decides on the size of the journal.
            report: dict[str, Any] = {name: float(rng.random()) for name in REPORTED} | {
                OBJECTIVE: score,
                TIME_ATTR: epoch,
                "outcome": TRAINED,
            }
            if score > best:
                best = score
                saved = self._save(config["name"], epoch)
                checkpoint = tune.Checkpoint(saved.path, saved.filesystem())
                report |= {"checkpoint_dir_name": saved.name, CHECKPOINT: checkpoint}
            yield report | {"lr_factors": factors[:epoch], "violations": {}}

    def _save(self, name: str, epoch: int) -> Location:
        directory = self._experiment.trials / name / f"checkpoint_{epoch - 1:06d}"
        location = Location.of_storage(self._experiment.in_storage(directory))
        if location.scheme:
            location = replace(location, query=f"endpoint_override={self._endpoint}")
        else:
            directory.mkdir(parents=True)
        for file in (WEIGHTS, STATE):
            write_whole(location / file, b"")
        return location


def rows(found: dict[str, Marks], trials: int) -> list[Row]:
    """A row for each part of each side: seconds after so many trials, their growth, and milliseconds a report."""
    table: list[Row] = []
    for side, marks in found.items():
        for part in [*_parts(marks), TOTAL, *SIZES, RESUME]:
            values = {
                ended: _total(parts) if part == TOTAL else parts[part]
                for ended, parts in marks.items()
                if part == TOTAL or part in parts
            }
            at = {f"at {trials // mark}": values.get(trials // mark) for mark in MARKS}
            seconds = {} if part in {*SIZES, RESUME} else values
            if values:
                table.append({"side": side, "part": part} | at | _growth(values, trials) | _per_report(seconds))
    return table


def _parts(marks: Marks) -> list[str]:
    """The parts of a side that take seconds."""
    return [part for part in next(iter(marks.values()), {}) if part not in {*SIZES, RESUME}]


def _total(parts: Mapping[str, float]) -> float:
    return sum(seconds for part, seconds in parts.items() if part not in {*SIZES, RESUME})


def _growth(values: dict[int, float], trials: int) -> dict[str, float | None]:
    first, last = values.get(trials // QUARTER), values.get(trials)
    return {"growth": last / first if last and first else None}


def _per_report(seconds: dict[int, float]) -> dict[str, float | None]:
    ended = max(seconds, default=0)
    return {"ms/report": seconds[ended] / ended / REPORTS * 1000 if ended else None}


def ratios(found: dict[str, Marks], trials: int) -> dict[str, float]:
    """How ours grows, as a power of the number of trials too, and what theirs takes of what both sides have."""
    own, first = found[OURS], trials // QUARTER
    totals = {ended: _total(parts) for ended, parts in own.items()}
    growth = totals[trials] / totals[first]
    beside = {
        f"theirs_by_ours_{ended}": _deciding(found[THEIRS][ended]) / _deciding(found[OURS][ended])
        for ended in found[THEIRS]
    }
    return {
        "growth": growth,
        "growth_by_n_log_n": growth / n_log_n(trials),
        "exponent": math.log(growth) / math.log(QUARTER),
        "ms_per_report": totals[trials] / trials / REPORTS * 1000,
        "ms_per_report_last_half": (totals[trials] - totals[trials // 2]) / (trials - trials // 2) / REPORTS * 1000,
        "ms_cpu_per_report": (own[trials][CPU] - own[first][CPU]) / (trials - first) / REPORTS * 1000,
        "kib_memory_per_trial": (own[trials][MEMORY] - own[first][MEMORY]) * 1024 / (trials - first),
        "kib_journal_per_trial": own[trials][JOURNAL] * 1024 / trials,
        "s_resume": own[trials][RESUME],
        **beside,
    }


def _deciding(parts: Mapping[str, float]) -> float:
    return sum(parts[part] for part in DECIDING)


def n_log_n(trials: int) -> float:
    """What `growth` would be if the time grew as n·log n."""
    return QUARTER * math.log(trials) / math.log(trials / QUARTER)


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_spec(scheduler: Mapping[str, int]) -> SearchSpec:
    """A spec with the default space."""
    given = {"scheduler": dict(scheduler), "search": {"start_from": []}}
    return check_spec(given, source="this benchmark", data_path="nowhere")


if __name__ == "__main__":
    main()
