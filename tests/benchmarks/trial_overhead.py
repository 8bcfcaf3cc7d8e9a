"""What a trial costs beside its epochs: ours, a plain Tune function, and Ray's documented way; how a real one starts.

python tests/benchmarks/trial_overhead.py [DATA] [--json FILE]

Trials of up to four epochs of 0.5 s, two at a time, stopped by our scheduler, with a checkpoint of one and the same
small network after every epoch, on one Ray cluster of this machine. Ours run through the search's own code: only what
an epoch does is replaced by a sleep. The plain function is handed to Tune as it is. The documented way is a
TorchTrainer of one worker inside a Tune function, with TuneReportCallback. Once more, ours have a ResUNet, whose
checkpoints and pictures of predictions take longer.

Counted are slot-seconds a trial: (2 slots × wall seconds - 0.5 s × epochs reported) / trials. The wall clock runs from
the call that starts the search to its return, so that the start of the actors counts, and a slot without work while the
last trial ends. 'steady' is the mean from a trial's first epoch to that of the next one in its slot, without its
epochs and without the first trial of each slot: to book, keep and end a trial, and to propose, hand over and begin one.

A real trial is one of a ResUNet on DATA, or on $TWINHEAD_REAL/nyu_composed, at 64 px: seconds from Tune's start of the
trial to its first batch, of the first trial of each process (cold) and, as a median, of the later ones (warm).
"""

from __future__ import annotations

import io
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from search.run.cluster import cluster, prepare_environment

prepare_environment()  # which Ray reads when it is imported

from ray import train, tune
from ray.train.torch import TorchTrainer
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from results import Row, arguments, publish, write
from rich.console import Console
from safetensors.torch import save_file
from wait import dataset

from data.dataset.dataset import Dataset
from data.loader import Loader
from search.driver import DriverOnly
from search.live import live
from search.results.tally import RunPlan, Tally
from search.run import tuner
from search.run.budget import Budget
from search.run.prepare import decode, make_job
from search.run.progress import SearchProgress
from search.run.recorder import TensorBoard
from search.run.tuner import Stopper, tune_spec
from search.spec.spec import SearchSpec, load_spec
from search.strategy.scheduler import build_scheduler
from search.study.experiment import Experiment
from search.study.study import open_study
from search.terminal import Screen
from trainable.config import ModelConfig, TrialConfig, build
from trainable.entry import import_trainer, tune_function
from trainable.job import TrialJob, Workers
from trainable.metrics.names import METRICS, OBJECTIVE, TIME_ATTR
from trainable.models import build_model

SLOTS, EPOCH_SECONDS = 2, 0.5
TRIALS, DOCUMENTED_TRIALS, REAL_TRIALS = 32, 6, 8
SCHEDULE = {"max_epochs": 4, "grace_epochs": 1, "reduction_factor": 3}
SMALL, RESUNET = ("debug", 4), ("resunet", 8)
"""Family and width."""
SIZE = 64
WITH_START, STEADY, FIRST_BATCH = 0.4, 0.1, 0.3
"""Seconds that ours may take."""


def main() -> None:
    """Run them one after the other, on one cluster."""
    parser = arguments(__doc__)
    parser.add_argument("data", nargs="?")
    options = parser.parse_args()
    with dataset(options.data) as data, tempfile.TemporaryDirectory() as storage, cluster():
        ways: dict[str, Callable[[], Watch]] = {
            "ours": lambda: search(Path(storage), "ours", SMALL, data.path, _asleep, TRIALS),
            "ours, ResUNet": lambda: search(Path(storage), "resunet", RESUNET, data.path, _asleep, TRIALS),
            "plain": lambda: theirs(Path(storage), "plain", tune.with_resources(_plain, {"CPU": 1}), TRIALS),
            "documented": lambda: theirs(
                Path(storage),
                "documented",
                tune.with_resources(_documented, {"CPU": 0, "memory": 1}),
                DOCUMENTED_TRIALS,
            ),
        }
        watched = {way: run() for way, run in ways.items()}
        real = search(Path(storage), "real", RESUNET, data.path, _noted, REAL_TRIALS)
    rows: list[Row] = [{"way": way} | watch.row() for way, watch in watched.items()]
    cold, warm = real.starts()
    ours, _, *others = rows
    ratios = {
        **{str(row["way"]): float(row["s/trial"]) / float(ours["s/trial"]) for row in others},
        "seconds": float(ours["s/trial"]),
        "seconds_steady": float(ours["steady"]),
        "first_batch_cold": cold,
        "first_batch_warm": warm,
    }
    publish(rows, ratios, options.json)
    write(f"limits: seconds {WITH_START}, seconds_steady {STEADY}, first_batch_warm {FIRST_BATCH}")


Reports = list[Mapping[str, Any]]
"""Of a trial, one an epoch."""


class Watch(DriverOnly, tune.Callback):
    """Notes when each trial was started, and when its epochs began and ended."""

    def __init__(self) -> None:
        self.called = time.time()
        self.returned = 0.0
        self._started: dict[str, float] = {}
        self._reports: dict[str, Reports] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._started[trial.trial_id] = time.time()

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._reports.setdefault(trial.trial_id, []).append(result)

    def row(self) -> Row:
        """Slot-seconds a trial beside its epochs."""
        epochs = sum(len(reports) for reports in self._reports.values())
        trials = len(self._started)
        return {
            "trials": trials,
            "epochs": epochs,
            "wall s": self.returned - self.called,
            "s/trial": (SLOTS * (self.returned - self.called) - EPOCH_SECONDS * epochs) / trials,
            "steady": self._steady(),
        }

    def _steady(self) -> float:
        """Mean seconds between the first epochs of trials that follow each other in a warm slot, without the epochs."""
        slots: list[list[Reports]] = [[] for _ in range(SLOTS)]
        for reports in sorted(self._reports.values(), key=lambda reports: float(reports[0]["train_began"])):
            # The slot that ended its last trial first is the one that was free.
            free = min(slots, key=lambda slot: float(slot[-1][-1]["train_began"]) if slot else -math.inf)
            free.append(reports)
        between = [
            float(after[0]["train_began"]) - float(before[0]["train_began"]) - EPOCH_SECONDS * len(before)
            for slot in slots
            for before, after in itertools.pairwise(slot[1:])
        ]
        return statistics.mean(between)

    def starts(self) -> tuple[float, float]:
        """Seconds to the first batch, at most of the first trials of the processes, and as a median of the others."""
        cold: list[float] = []
        warm: list[float] = []
        seen: set[int] = set()
        for trial, started in self._started.items():
            first = self._reports[trial][0]
            (warm if first["pid"] in seen else cold).append(first["train_began"] - started)
            seen.add(first["pid"])
        return max(cold), statistics.median(warm)


def search(
    storage: Path, name: str, network: tuple[str, int], data_path: str, run: Callable[..., None], trials: int
) -> Watch:
    """Our search, with `run` in the place of `tune_function`."""
    tuner.tune_function = run  # which `tuner.trainable` wraps
    spec, opened = _spec(network, data_path, trials), Dataset.open(data_path)
    experiment, screen = Experiment(storage=storage, name=name), Screen(Console(file=io.StringIO()))
    experiment.create(spec)
    study = open_study(experiment)
    job = make_job(experiment, opened, Workers(), range(1, SCHEDULE["max_epochs"] + 1))
    decode([build(TrialConfig, {"data": {"image_size": SIZE}}, source="this benchmark").data], job, opened, screen)
    tally = Tally(RunPlan.of_search(experiment.name, spec))
    with live(screen, lambda: tally.status(seconds=0.0)) as changed:
        watch = Watch()
        progress = SearchProgress(screen, tally, changed)
        callbacks = [TensorBoard(experiment), progress, Budget(spec.plan.budget, study, gpus=0), watch]
        tune_spec(experiment, spec, job, study, slots=lambda: SLOTS, stopper=Stopper(), callbacks=callbacks)
    watch.returned = time.time()
    return watch


def theirs(storage: Path, name: str, function: Any, trials: int) -> Watch:
    """A Tune function, with Tune's own random search."""
    watch = Watch()
    tune.Tuner(
        function,
        param_space={"lr": tune.loguniform(1e-4, 1e-1), "storage": str(storage / f"{name}-workers")},
        tune_config=tune.TuneConfig(
            num_samples=trials, scheduler=build_scheduler(**SCHEDULE), max_concurrent_trials=SLOTS
        ),
        run_config=tune.RunConfig(name=name, storage_path=str(storage), callbacks=[watch], verbose=0),
    ).fit()
    watch.returned = time.time()
    return watch


def _spec(network: tuple[str, int], data_path: str, trials: int) -> SearchSpec:
    family, width = network
    settings = {
        "data.image_size": SIZE,
        "data.batch_size": 16,
        "model.family": family,
        "model.width": width,
        "loss.mask.bce": 1.0,
        "loss.depth.l1": 1.0,
        "search.start_from": "[]",
        "budget.trials": trials,
        **{f"scheduler.{key}": value for key, value in SCHEDULE.items()},
    }
    return load_spec(overrides=[(key, str(value)) for key, value in settings.items()], data_path=data_path)


def _asleep(config: dict[str, Any], *, job: TrialJob) -> None:
    """A trial whose epochs are slept through."""
    import_trainer()
    from trainable.loop import loop

    epochs: list[float] = []

    def train_epoch(*_: Any) -> dict[str, float]:
        epochs.append(time.time())
        time.sleep(EPOCH_SECONDS)
        return {"train_loss": 0.5, "lr": 0.1, "train_began": epochs[-1]}

    def evaluate(_model: Any, _loader: Loader, trial: TrialConfig, _context: Any, **_: Any) -> dict[str, float]:
        return dict.fromkeys(METRICS, 0.5) | {OBJECTIVE: _score(trial.optimizer.lr, len(epochs))}

    loop.train_epoch, loop.evaluate = train_epoch, evaluate
    tune_function(config, job=job)


def _noted(config: dict[str, Any], *, job: TrialJob) -> None:
    """A trial as it is, that says when it had its first batch."""
    import_trainer()
    from trainable.loop import loop

    began: list[float] = []
    step, epoch = loop.train_step, loop.train_epoch

    def train_step(*given: Any) -> Any:
        began.append(time.time())
        return step(*given)

    def train_epoch(*given: Any) -> dict[str, float]:
        return epoch(*given) | {"train_began": began[0]}

    loop.train_step, loop.train_epoch = train_step, train_epoch
    try:
        tune_function(config, job=job)
    finally:
        loop.train_step, loop.train_epoch = step, epoch


def _plain(config: dict[str, Any]) -> None:
    _epochs(config, lambda metrics, path: tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(path)))


def _documented(config: dict[str, Any]) -> None:
    TorchTrainer(
        _work,
        train_loop_config=config,
        scaling_config=train.ScalingConfig(num_workers=1),
        run_config=train.RunConfig(
            name=tune.get_context().get_trial_id(), storage_path=config["storage"], callbacks=[TuneReportCallback()]
        ),
    ).fit()


def _work(config: dict[str, Any]) -> None:
    _epochs(config, lambda metrics, path: train.report(metrics, checkpoint=train.Checkpoint.from_directory(path)))


def _epochs(config: dict[str, Any], report: Callable[[dict[str, Any], str], None]) -> None:
    """What is left of a training function where epochs are slept through."""
    family, width = SMALL
    network = build_model(ModelConfig(family=family, width=width))
    for epoch in range(1, SCHEDULE["max_epochs"] + 1):
        began = time.time()
        time.sleep(EPOCH_SECONDS)
        metrics = {OBJECTIVE: _score(config["lr"], epoch), TIME_ATTR: epoch, "train_began": began}
        with tempfile.TemporaryDirectory() as directory:
            weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
            save_file(weights, Path(directory) / "weights")
            report(metrics, directory)


def _score(lr: float, epoch: int) -> float:
    return math.exp(-abs(math.log10(lr / 3e-3))) * (1 - 0.7**epoch)


if __name__ == "__main__":
    main()
