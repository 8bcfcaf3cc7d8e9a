"""A trial in Ray: a `TorchTrainer` inside a Tune function. This is the only module of the package that imports Ray.

A trial with one worker runs in Train's local mode inside its reused Tune actor, with an overhead of 0.1 s. A nested
worker group has an overhead of about 20 s, and is used only for several workers: `tests/benchmarks/trial_overhead.py`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray import tune
from ray._private.state import state
from ray.train.torch import TorchConfig, TorchTrainer, get_device, prepare_model
from ray.train.torch.config import _TorchBackend
from ray.tune.integration.ray_train import TuneReportCallback

from data.atomic import replace_file
from data.cache.remote import mirror_of
from data.dataset.storage import Location
from data.dataset.transfer import reaching, read_whole
from data.errors import DiskError, EnvironmentFaultError, InputError, NodeDrainedError, environment
from data.grids import save_png
from data.loader import Loader
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.evaluation.grid import grid_of_epoch
from trainable.evaluation.latency import ms_per_picture
from trainable.interfaces import use_interface_of
from trainable.job import TrialJob, TrialRequest, Workers, trial_title
from trainable.loop.checkpoint_files import PICTURES
from trainable.loop.fetch import earlier_checkpoints, intact_copies
from trainable.loop.loaders import sample_count
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.precision import resolve_for_trial
from trainable.loop.state import DistributedContext, Training
from trainable.measurements import machine_kind
from trainable.metrics.names import CONSTRAINT, DIVERGED, TRAINED
from trainable.plugins.load import use_plugins
from trainable.report import TrialReport
from trainable.threads import use_fastest_threads

LATENCY = "ms_per_picture"
"""Metric of the latency that a trial measures, and name of its limit."""
RESIZE_SECONDS = 15.0
"""How often a retraining looks for nodes that joined; by default Ray Train looks once a minute."""
LEAVING = "the node of the trial is drained; the trial resumes on another one"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What each worker of a trial gets."""

    request: TrialRequest
    job: TrialJob
    tune_checkpoint: str | None
    """Path of the checkpoint that Tune restores the trial from, in the file system of the storage."""


def run_trial(config: Mapping[str, Any], *, job: TrialJob) -> None:
    """Train a trial, and report every epoch as a `TrialReport`.

    Args:
        config: a `TrialRequest` as Tune carries it.
        job: settings shared by all trials of the search.

    Raises:
        EnvironmentFaultError: if the data set, the cache or the storage cannot be used. In a worker group, it is among
            the failures of a `ray.train.WorkerGroupError`.
        NodeDrainedError: if a node of the trial is drained, as before the end of a spot instance: at the start, or
            after an epoch and its checkpoint. In a worker group, the same.
    """
    request = TrialRequest.from_plain(config)
    if request.refused:
        tune.report(TrialReport.worst(1, CONSTRAINT, request.refused, objective=job.objective).as_plain())
        return
    resumed = tune.get_checkpoint()
    task = _Task(request=request, job=job, tune_checkpoint=resumed.path if resumed else None)
    if job.workers.is_group:
        _group_trainer(task).fit()
    else:
        local = ray.train.ScalingConfig(num_workers=0, use_gpu=job.workers.gpus > 0)
        TorchTrainer(_train, train_loop_config={"task": task}, scaling_config=local).fit()


class _GroupBackend(_TorchBackend):
    """Train's backend, with a title for each worker's process, and the interface of its node for gloo."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        worker_group.execute(_prepare_worker, backend_config.title)
        super().on_start(worker_group, backend_config)


def _prepare_worker(title: str) -> None:
    use_interface_of(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
    for actor in ray._private.worker.global_worker.actors.values():
        type(actor).__name__ = title  # of which Ray makes the title of the process after each call


@dataclass
class _GroupConfig(TorchConfig):
    title: str = ""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _GroupBackend


def _group_trainer(task: _Task) -> TorchTrainer:
    workers, storage = task.job.workers, Location.of_storage(task.job.group_storage)
    title = trial_title(task.job.search, task.request.number)
    size: Any = workers.count if workers.min_count is None else (workers.min_count, workers.count)
    return TorchTrainer(
        _train,
        train_loop_config={"task": task},
        torch_config=_GroupConfig(title=f"{title} worker"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=size,
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,  # type: ignore[call-arg]
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        run_config=ray.train.RunConfig(
            name=task.request.name,
            storage_path=storage.path,
            storage_filesystem=storage.filesystem() if storage.scheme else None,
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=2 if task.job.data.val else 1,  # a group may be an epoch ahead of what the study names
                checkpoint_score_attribute=task.job.objective.key if task.job.data.val else None,
                checkpoint_score_order=task.job.objective.mode,
            ),
            callbacks=[TuneReportCallback()],  # type: ignore[no-untyped-call, list-item]
        ),
    )


def _train(settings: Mapping[str, _Task]) -> None:
    """The training function of each worker; Ray passes its argument as a dict."""
    task = settings["task"]
    with tempfile.TemporaryDirectory() as directory:
        with environment(f"The storage '{task.job.storage or task.job.group_storage}'"):
            checkpoints, damaged = intact_copies(_resumable_checkpoints(task), Path(directory))
        _train_from(task, checkpoints, damaged)


def _train_from(task: _Task, checkpoints: Sequence[Path], damaged: Sequence[str]) -> None:
    """Train, from the first intact one of the checkpoints; see `trial.run`."""
    job = task.job
    use_plugins(job.plugins)
    config = build(TrialConfig, task.request.trial, source="the searcher's suggestion")
    context = _distributed_context(job.workers)
    if _is_drained(context):  # a reused process gets trials also on a node that gets no new processes
        raise NodeDrainedError(LEAVING)
    measurements = _measurements(job)
    config = resolve_for_trial(config, context, measurements=measurements, resume_from=checkpoints)
    if job.workers.measures_threads:
        samples = config.epochs * sample_count(config.data, job.data, job.data.train)
        use_fastest_threads(config, context.device, limit=job.workers.cpus, samples=samples)
    latency = _latency(config, job, context, measurements)
    excess = {name: value / job.ms_per_picture - 1 for name, value in latency.items() if job.ms_per_picture is not None}
    reporter = _Reporter(job, context, latency, excess)
    try:
        if excess.get(LATENCY, 0.0) > 0:
            limit = f"constraints.{LATENCY} is {job.ms_per_picture:g}"
            reason = f"a pair of images takes {latency[LATENCY]:.3g} ms, and {limit}"
            _report(job.workers, TrialReport.worst(1, CONSTRAINT, reason, excess, job.objective), None)
            return
        with trial.releasing_memory(context.device):
            trial.run(
                config,
                job.data,
                context=context,
                report=reporter,
                checkpoint_epochs=job.checkpoint_epochs,
                objective=job.objective,
                resume_from=checkpoints,
                damaged=damaged,
                replay=job.replay,
                batch_scale=job.batch_scale(context.world_size),
                wrap=prepare_model if job.workers.is_group else lambda network: network,
            )
    except NonFiniteLossError as error:
        _report(job.workers, TrialReport.worst(error.epoch, DIVERGED, str(error), objective=job.objective), None)


def _latency(
    config: TrialConfig, job: TrialJob, context: DistributedContext, measurements: Path | None
) -> dict[str, float]:
    """Milliseconds of the network for a pair of images, by metric name; empty if neither limited nor requested."""
    if job.ms_per_picture is None and not job.timed:
        return {}
    latency = ms_per_picture(config, context.device, measurements) if context.rank == 0 else 0.0
    return {LATENCY: context.broadcast(latency)}


class _Reporter:
    """Reports each epoch to Tune, with a checkpoint if one is due."""

    def __init__(
        self,
        job: TrialJob,
        context: DistributedContext,
        latency: Mapping[str, float],
        violations: Mapping[str, float],
    ) -> None:
        self._job = job
        self._context = context
        self._latency = dict(latency)
        self._violations = dict(violations)
        self.epoch = 0

    def __call__(self, end: EpochEnd, training: Training, val: Loader | None) -> None:
        leaves = end.epoch < training.config.epochs and _is_drained(self._context)
        if leaves and end.save is None:
            end = replace(end, save=partial(training.save, metrics=end.metrics))
        self._report(end, training, val)
        if leaves:
            raise NodeDrainedError(LEAVING)

    def _report(self, end: EpochEnd, training: Training, val: Loader | None) -> None:
        note = "" if self.epoch else training.note
        self.epoch = end.epoch
        report = TrialReport(
            epoch=end.epoch,
            metrics={**end.metrics, **self._latency},
            outcome=TRAINED,
            precision=training.config.model.precision,
            machine=machine_kind(self._context.device),
            lr_factors=training.policies[0].history,
            violations=self._violations,
            note=note,
        )
        if end.save is None or self._context.rank > 0:
            _report(self._job.workers, report, None)
            return
        with _storage(self._job), tempfile.TemporaryDirectory() as directory:
            path = Path(directory)
            if val is not None and self._job.objective.rank(end.metrics) == training.best_score:
                save_png(grid_of_epoch(training.network, val, training.config), path / PICTURES)
            end.save(path)  # last, because it writes the checksums of all files
            _report(self._job.workers, report, path)


@contextmanager
def _storage(job: TrialJob) -> Iterator[None]:
    """Context of a write to the experiment's directory, which Ray would create again if it were missing."""
    storage = Location.of_storage(job.storage or job.group_storage)
    if job.storage is not None and storage.local is not None and not storage.local.is_dir():
        raise EnvironmentFaultError(f"The storage '{job.storage}' does not exist; bring it back.")
    with environment(f"The storage '{storage}'"), reaching(storage):
        yield


def _report(workers: Workers, report: TrialReport, checkpoint: Path | None) -> None:
    if workers.is_group:
        of_group = ray.train.Checkpoint.from_directory(checkpoint) if checkpoint else None
        ray.train.report(report.as_plain(), checkpoint=of_group)
    else:
        of_trial = tune.Checkpoint.from_directory(checkpoint) if checkpoint else None
        tune.report(report.as_plain(), checkpoint=of_trial)


def _is_drained(context: DistributedContext) -> bool:
    """Whether the node of any worker of the trial is drained. The cluster places no new process on it."""
    node = ray.get_runtime_context().get_node_id()
    found = torch.tensor(float(node in state.get_draining_nodes()), device=context.device)
    return bool(context.all_reduce(found).item())


def _distributed_context(workers: Workers) -> DistributedContext:
    torch.set_num_threads(1 if workers.measures_threads else workers.cpus)
    # Ray leaves the GPUs of a node visible to processes that reserve none.
    device = get_device() if workers.gpus else torch.device("cpu")
    if not workers.is_group:
        return DistributedContext(device=device)
    ray_context = ray.train.get_context()
    return DistributedContext(device=device, rank=ray_context.get_world_rank(), world_size=ray_context.get_world_size())


def _resumable_checkpoints(task: _Task) -> list[Location]:
    """Checkpoints to resume from, newest first: those of this run after a crash, then those of the run it resumes."""
    of_group = ray.train.get_checkpoint() if task.job.workers.is_group else None
    of_this_run = [_in_storage(task.job, path) for path in (of_group and of_group.path, task.tune_checkpoint) if path]
    of_earlier = [Location.of_storage(task.request.resume_from)] if task.request.resume_from else []
    newest = [*of_this_run, *of_earlier]
    return list(dict.fromkeys(each for path in newest for each in (path, *earlier_checkpoints(path))))


def _in_storage(job: TrialJob, path: str) -> Location:
    """The location of a path in the file system of the experiment's storage."""
    return replace(Location.of_storage(job.storage or job.group_storage), path=path)


def _measurements(job: TrialJob) -> Path | None:
    """The file of measurements that trials share; of a remote storage, each node has a copy that starts as that one."""
    location = Location.of_storage(job.measurements) if job.measurements else None
    if location is None or location.local is not None:
        return location.local if location else None
    path = mirror_of(location)
    if not path.exists():
        with contextlib.suppress(OSError, DiskError, InputError):  # none yet, or a full disk
            replace_file(path, read_whole(location))
    return path
