"""Retraining of the best configuration on train + validation, and the evaluation on test.

The retrained network, the best trial's weights, the best recipe and the baselines are measured on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import optuna
import ray
from ray import tune

from data.dataset.dataset import Dataset
from data.disk import disk_error
from data.errors import EnvironmentFaultError, InputError, UnfinishedError
from data.quantities import counted
from search.results.summary import Best
from search.results.tally import RunPlan
from search.run.cluster import start_task
from search.run.failures import Failures
from search.run.networks import export_best, export_retrained
from search.run.outages import Outages
from search.run.prepare import each_uses, job_on_cluster
from search.run.progress import MachineChange, show_retraining
from search.run.steps import Steps, steps_of
from search.run.tuner import Stopper, run_config, trainable, trial_directory
from search.signals import InterruptedSearchError
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.study.paths import MEASURED
from search.study.summary import Difference, Retrained, StepCounts, Summary
from search.study.trials import RETRAINING
from search.terminal import Screen
from trainable.config import TrialConfig, build
from trainable.evaluation.measured import measure_result
from trainable.job import TrialJob, TrialRequest
from trainable.loop.checkpoint_files import DamagedCheckpointError, load_metrics, load_origin, verify
from trainable.loop.loaders import sample_count, with_scaled_batches
from trainable.loop.precision import as_recorded, with_precision
from trainable.metrics.names import DIVERGED
from trainable.report import TrialReport

PARTS = "train+val"
"""Parts of the data set that the retraining uses."""


@dataclass(frozen=True, kw_only=True)
class SearchRun:
    """What the stages of a running search share."""

    experiment: Experiment
    spec: SearchSpec
    dataset: Dataset
    job: TrialJob
    concurrent: int
    screen: Screen
    stopper: Stopper
    outages: Outages
    study: optuna.Study
    seconds: Callable[[], float]
    """Returns those of all runs, except those in which they waited for the environment."""

    def retraining_job(self, batch_size: int) -> TrialJob:
        """The job of the retraining: all samples, no latency limit, and what it may use of the cluster."""
        job = replace(self.job, data=replace(self.job.data, samples=None), ms_per_picture=None, timed=False)
        return job_on_cluster(job, self.concurrent, self.spec.plan.retrain, batch_size)


def retrain_and_test(
    run: SearchRun, summary: Summary, best: Best, recipe: Best | None, *, again: bool = False
) -> Summary:
    """Retrain the best configuration, measure it on test, and export it and the best trial's network.

    Args:
        run: the search.
        summary: of its trials; the result adds the test metrics.
        best: the best trial.
        recipe: the best recipe that ran for all epochs, if there is one.
        again: whether to repeat a retraining that is complete.

    Raises:
        UnfinishedError: if the retraining failed or diverged, or what it uses was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    experiment, spec = run.experiment, run.spec
    job = run.retraining_job(best.trial.config["data"]["batch_size"])
    checkpoint = run.outages.outlast(lambda: _retrain(run, best, job, again=again))
    if checkpoint is None:
        raise InterruptedSearchError
    run.outages.outlast(lambda: experiment.checkpoints.fetch(checkpoint))
    run.screen.say("measuring the retrained network, the best trial and the baselines on the test images")
    # The retraining measured the fastest number; checkpoints of earlier versions lack it.
    threads = int(load_metrics(checkpoint).get("threads", job.workers.cpus))
    networks = [checkpoint, best.checkpoint, *([recipe.checkpoint] if recipe else [])]
    outputs = [experiment.test_grid, *(experiment.measured(name) for name in MEASURED[: len(networks) + 1])]
    addresses = [str(experiment.in_storage(path).explicit()) for path in (*networks, *outputs)]
    measure = partial(measure_result, addresses[: len(networks)], job.data, addresses[len(networks) :], job.objective)
    measured = run.outages.outlast(lambda: ray.get(start_task(job, measure, threads=threads)))
    run.outages.outlast(lambda: experiment.pull(*outputs))
    export_retrained(
        experiment,
        spec,
        best,
        run.dataset,
        checkpoint,
        test=measured.retrained,
        baselines=measured.baselines,
        intervals=measured.retrained_intervals,
    )
    on_test = {"test": measured.best, "baselines": measured.baselines, "intervals": measured.best_intervals}
    export_best(experiment, spec, best, run.dataset, **on_test)
    beyond, earlier = measured.beyond_recipe, summary.recipe if recipe else None
    return summary.model_copy(
        update={
            "best": summary.best and summary.best.model_copy(update={"test": measured.best}),
            "recipe": earlier and earlier.model_copy(update={"test": measured.recipe}),
            "beyond_recipe": beyond and {name: Difference(**found.as_plain()) for name, found in beyond.items()},
            "retrained": Retrained(
                metrics=measured.retrained,
                checkpoint=experiment.relative(experiment.retrained),
                epochs=spec.plan.retrain.epochs or spec.plan.scheduler.max_epochs,
                optimizer_steps=StepCounts(**_retraining_steps(load_origin(checkpoint).config, job).as_plain()),
                threads=threads,
            ),
            "baselines": measured.baselines,
        }
    )


def _retrain(run: SearchRun, best: Best, job: TrialJob, *, again: bool) -> Path | None:
    """Train the best configuration on train + validation for all epochs; the average of its last weights counts.

    It uses the trial's precision. A plateau policy has no validation split here: it replays the learning rates of the
    best trial. An interrupted retraining is resumed; a complete one is repeated only if `again`. None after Ctrl-C.

    Raises:
        EnvironmentFaultError: if what it uses is unavailable now; the next call resumes from the checkpoint.
        DiskError: if a file system is full or has another fault.
        UnfinishedError: if the training failed or diverged.
    """
    experiment, spec, screen, stopper = run.experiment, run.spec, run.screen, run.stopper
    epochs = spec.plan.retrain.epochs or spec.plan.scheduler.max_epochs
    config = build(TrialConfig, {**best.trial.config, "epochs": epochs}, source="the best trial's configuration")
    config = with_precision(config, as_recorded(load_origin(best.checkpoint).config).model.precision)
    resumed = _resumable(experiment, config, screen)
    done = load_origin(resumed).epoch if resumed else 0
    if resumed is not None and done == epochs:
        if not again or run.study.user_attrs.get(RETRAINING) is not None:  # its result is not in the summary yet
            return resumed
        resumed, done = None, 0
    if resumed is None:
        for directory in _directories(experiment):  # Ray Train restores a group from what an earlier one left
            experiment.checkpoints.remove_all(directory)
    attempt = _attempts(experiment) if resumed else 0
    job = replace(
        job,
        data=replace(job.data, train=PARTS, val=None),
        checkpoint_epochs=frozenset(range(1, epochs + 1)),
        replay=_replay(best, spec.plan.scheduler.max_epochs),
        group_storage=str(experiment.in_storage(experiment.groups / experiment.retraining.name).explicit()),
    )
    resume_from = str(experiment.in_storage(resumed).explicit()) if resumed else None
    request = TrialRequest(name=f"run-{attempt}", trial=config.model_dump(), resume_from=resume_from)
    steps = _retraining_steps(config, job)
    screen.say(f"retraining: {counted(epochs, 'epoch')}, {steps}, with {each_uses(job.workers)}")
    screen.warn(steps.warning)
    plan = RunPlan.of_search(experiment.name, spec)
    shown = show_retraining(screen, run.study, plan, job.workers, stopper, run.seconds, done=done, epochs=epochs)
    with shown as progress, stopper.on_ctrl_c():
        changes = MachineChange(screen, [best.trial], "it keeps the precision of its trial")
        callbacks: list[tune.Callback] = [*progress, changes, Failures(stopper.pause)]
        results = tune.Tuner(
            trainable(job),
            param_space=request.as_plain(),
            tune_config=tune.TuneConfig(trial_dirname_creator=trial_directory),
            run_config=run_config(experiment.in_storage(experiment.retraining), stopper, callbacks, keep_newest=True),
        ).fit()
    if stopper.interrupted:
        return None
    return _checkpoint(experiment, results[0])


def _retraining_steps(config: TrialConfig, job: TrialJob) -> Steps:
    """Optimizer steps of the retraining."""
    samples, workers = sample_count(config.data, job.data, PARTS), job.workers.count
    scaled = with_scaled_batches(config, job.batch_scale(workers))
    return steps_of(scaled, samples, workers, setting="retrain.epochs")


def _replay(best: Best, epochs: int) -> tuple[float, ...]:
    """The learning-rate factors of the best trial; the last one repeats for the epochs after it was stopped."""
    factors: Sequence[float] = best.trial.lr_factors
    return (*factors, *[factors[-1]] * (epochs - len(factors))) if factors else ()


def _resumable(experiment: Experiment, config: TrialConfig, screen: Screen) -> Path | None:
    """The newest intact checkpoint of an interrupted retraining of `config`; prints which are damaged.

    Raises:
        EnvironmentFaultError: if a remote storage cannot be used.
    """
    found = []
    for checkpoint in _retrainings(experiment):
        try:
            experiment.checkpoints.fetch(checkpoint, state=True)
            origin = load_origin(checkpoint)
            verify(checkpoint)
        except DamagedCheckpointError as error:
            screen.say(f"the file '{error.file}' {error.problem}; the retraining does not resume from it")
            continue
        except EnvironmentFaultError:
            raise  # the storage is away: the retraining would start anew, without what it holds
        except InputError:
            continue
        if origin.config == config:
            found.append((origin.epoch, checkpoint))
    return max(found, default=(0, None))[1]


def _directories(experiment: Experiment) -> tuple[Path, Path]:
    """Those of retrainings with one worker, and with several."""
    return experiment.retraining, experiment.groups / experiment.retraining.name


def _retrainings(experiment: Experiment) -> list[Path]:
    """The resumable checkpoints of all attempts."""
    return [path for directory in _directories(experiment) for path in experiment.checkpoints.resumable(directory)]


def _attempts(experiment: Experiment) -> int:
    """The number of attempts so far: one more than the number of the last one, whose checkpoint is in run-NUMBER/."""
    runs = [*experiment.retraining.glob("run-*"), *(path.parent for path in _retrainings(experiment))]
    return max((int(run.name.removeprefix("run-")) for run in runs), default=-1) + 1


def _checkpoint(experiment: Experiment, result: tune.Result) -> Path:
    if fault := disk_error(result.error, result.path):
        raise fault
    report = TrialReport.from_plain(result.metrics or {})
    if result.error is not None or report.outcome == DIVERGED:
        reason = str(result.error or report.reason).strip().rpartition("\n")[2]  # the last line of a traceback
        raise UnfinishedError(f"The retraining of the best configuration failed: {reason}")
    checkpoint = report.checkpoint(Path(result.path))
    if checkpoint is None:
        raise UnfinishedError("The retraining of the best configuration ended without a checkpoint.")
    return experiment.root / experiment.relative(checkpoint)
