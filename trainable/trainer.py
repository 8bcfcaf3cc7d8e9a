"""A trial as Ray runs it: a `TorchTrainer` inside a Tune function. The one file of this package that imports Ray.

A trial that fits one worker runs in Train's local mode, inside its warm Tune actor, which costs a tenth of a second a
trial; a nested worker group costs some twenty, and is used only where a trial needs several workers (see
`tests/benchmarks/trial_overhead.py`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray import tune
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.tune.integration.ray_train import TuneReportCallback

from data.errors import EnvironmentFaultError, environment
from data.grids import save_png
from data.loader import Loader
from data.schema import Pixels
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.evaluation.grid import prediction_grid
from trainable.evaluation.latency import ms_per_picture
from trainable.job import TrialJob, Workers
from trainable.loop.checkpoint import PICTURES, STATE
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.precision import settle
from trainable.loop.state import Training, World
from trainable.measurements import machine_kind
from trainable.metrics.names import CONSTRAINT, DIVERGED, OBJECTIVE, TRAINED, WORST
from trainable.threads import use_fastest_threads

SLOW = "ms_per_picture"
"""Name of the figure that a trial measures itself, and of its limit."""
SMALLEST_CELL, LARGEST_CELL = 64, 128
"""Side in pixels of the pictures in a trial's grid."""


def run_trial(config: dict[str, Any], *, job: TrialJob) -> None:
    """Train the trial that a searcher suggested, and report every epoch.

    Args:
        config: `name` of the trial, `trial` with the values of its `TrialConfig`, `resume_from`, the directory of a
            checkpoint to go on from, or None, and maybe `refused`, why the trial is not to be trained at all.
        job: what all trials of the search have in common.

    Raises:
        EnvironmentFaultError: if what all trials share cannot be used; in a group, it is among the failures of a
            `ray.train.WorkerGroupError`.
    """
    if refused := config.get("refused"):
        tune.report({OBJECTIVE: WORST, "epoch": 1, "outcome": CONSTRAINT, "reason": refused})
        return
    resumed = tune.get_checkpoint()
    settings = {**config, "job": job, "tune_checkpoint": resumed.path if resumed else None}
    if job.workers.is_group:
        _group_trainer(settings, job, config["name"]).fit()
    else:
        local = ray.train.ScalingConfig(num_workers=0, use_gpu=job.workers.gpus > 0)
        TorchTrainer(_train, train_loop_config=settings, scaling_config=local).fit()


def _group_trainer(settings: dict[str, Any], job: TrialJob, name: str) -> TorchTrainer:
    workers = job.workers
    return TorchTrainer(
        _train,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=job.group_storage,
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=OBJECTIVE if job.data.val else None
            ),
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call, list-item]
        ),
    )


def _train(settings: dict[str, Any]) -> None:
    """The training function of every worker."""
    job: TrialJob = settings["job"]
    config = build(TrialConfig, settings["trial"], source="the searcher's suggestion")
    world = _world(job.workers)
    checkpoints = _checkpoints(settings, job.workers)
    measurements = Path(job.measurements) if job.measurements else None
    config = settle(config, world, measurements=measurements, resume_from=checkpoints)
    if job.workers.measures_threads:
        samples = config.epochs * trial.sample_count(config.data, job.data, job.data.train)
        use_fastest_threads(config, world.device, limit=job.workers.cpus, samples=samples)
    taken = _milliseconds(config, job, world, measurements)
    excess = {name: value / job.ms_per_picture - 1 for name, value in taken.items() if job.ms_per_picture is not None}
    reporter = _Reporter(job, world, taken, excess)
    try:
        if excess.get(SLOW, 0.0) > 0:
            reason = f"a pair of pictures takes {taken[SLOW]:.3g} ms, and constraints.{SLOW} is {job.ms_per_picture:g}"
            worst = {OBJECTIVE: WORST, "epoch": 1, "outcome": CONSTRAINT, "reason": reason, "violations": excess}
            _report(job.workers, worst, None)
            return
        with trial.giving_memory_back(world.device):
            trial.run(
                config,
                job.data,
                world=world,
                report=reporter,
                checkpoint_epochs=job.checkpoint_epochs,
                resume_from=checkpoints,
                replay=job.replay,
                spread=prepare_model if job.workers.is_group else lambda network: network,
            )
    except NonFiniteLossError as error:
        worst = {OBJECTIVE: WORST, "epoch": reporter.epoch + 1, "outcome": DIVERGED, "reason": str(error)}
        _report(job.workers, worst, None)


def _milliseconds(config: TrialConfig, job: TrialJob, world: World, measurements: Path | None) -> dict[str, float]:
    """How long the network takes for a pair of pictures, under its name; nothing where nobody asks."""
    if job.ms_per_picture is None and not job.timed:
        return {}
    taken = ms_per_picture(config, world.device, measurements) if world.rank == 0 else 0.0
    return {SLOW: world.first(taken)}


class _Reporter:
    """Sends each epoch to Tune, with a checkpoint where one is due."""

    def __init__(
        self, job: TrialJob, world: World, taken: Mapping[str, float], violations: Mapping[str, float]
    ) -> None:
        self._job = job
        self._world = world
        self._taken = dict(taken)
        self._violations = dict(violations)
        self.epoch = 0

    def __call__(self, end: EpochEnd, training: Training, val: Loader | None) -> None:
        note = "" if self.epoch else training.note
        self.epoch = end.epoch
        metrics = {
            **end.metrics,
            **self._taken,
            "epoch": end.epoch,
            "outcome": TRAINED,
            "precision": training.config.model.precision,
            "machine": machine_kind(self._world.device),
            "lr_factors": training.policies[0].history,
            "violations": self._violations,
            "note": note,
        }
        if end.save is None or self._world.rank > 0:
            _report(self._job.workers, metrics, None)
            return
        with _storage(self._job), tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            if val is not None and end.metrics[OBJECTIVE] == training.best_score:
                save_png(_pictures(training, val), path / PICTURES)
            end.save(path)  # last: it writes the checksums of all that is there
            _report(self._job.workers, metrics, path)


@contextmanager
def _storage(job: TrialJob) -> Iterator[None]:
    """A block that writes to the experiment's directory; Ray would make it anew where it is gone."""
    if job.storage is not None and not Path(job.storage).is_dir():
        raise EnvironmentFaultError(f"The storage '{job.storage}' is gone; bring it back.")
    with environment(f"The storage '{job.storage or job.group_storage}'"):
        yield


def _pictures(training: Training, val: Loader) -> Pixels:
    """The grid of an epoch; small pictures are not enlarged much, for there is one after every best epoch."""
    cell = min(max(training.config.data.image_size, SMALLEST_CELL), LARGEST_CELL)
    return prediction_grid(training.network, val, training.config.model, cell=cell)


def _report(workers: Workers, metrics: Mapping[str, Any], checkpoint: Path | None) -> None:
    if workers.is_group:
        kept = ray.train.Checkpoint.from_directory(checkpoint) if checkpoint else None
        ray.train.report(dict(metrics), checkpoint=kept)
    else:
        tuned = tune.Checkpoint.from_directory(checkpoint) if checkpoint else None
        tune.report(dict(metrics), checkpoint=tuned)


def _world(workers: Workers) -> World:
    torch.set_num_threads(1 if workers.measures_threads else workers.cpus)
    if not workers.is_group:
        return World(device=get_device())
    context = ray.train.get_context()
    return World(device=get_device(), rank=context.get_world_rank(), size=context.get_world_size())


def _checkpoints(settings: Mapping[str, Any], workers: Workers) -> list[Path]:
    """Where the trial can go on, the newest first: in this run after a crash, then in the run that it goes on from."""
    own = ray.train.get_checkpoint() if workers.is_group else None
    newest = [own.path if own else None, settings["tune_checkpoint"], settings["resume_from"]]
    found = [path for place in newest if place for path in (Path(place), *_before(Path(place)))]
    return list(dict.fromkeys(found))


def _before(checkpoint: Path) -> list[Path]:
    """The earlier checkpoints of the same run that can be gone on from, the newest first; Ray numbers them."""
    others = sorted(checkpoint.parent.glob("checkpoint_*"), reverse=True)
    return [path for path in others if path.name < checkpoint.name and (path / STATE).is_file()]
