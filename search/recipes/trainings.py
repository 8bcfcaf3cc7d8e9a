"""Training of fixed configurations with Ray Tune, without a search.

A comparison trains one configuration for each recipe, `twinhead train` a single one. The experiment stores them in
given.yaml, so that a resumed run does not depend on later changes of the recipes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler

from data.cache.cache import open_cache
from data.dataset.dataset import Dataset
from data.fitting.sizes import size_text
from data.quantities import counted
from search.recipes.configs import FixedConfigs
from search.results.tally import RunPlan, Tally
from search.run.outages import Outages
from search.run.prepare import (
    alone,
    announce_dashboard,
    check_disk,
    decode,
    each_uses,
    make_job,
    open_session,
    split_counts,
    uses,
)
from search.run.progress import MachineChange, show_trials
from search.run.recorder import TensorBoard
from search.run.steps import Steps, steps_of
from search.run.tuner import Stopper, run_trials
from search.signals import InterruptedSearchError
from search.spec.sections import ResourcesConfig
from search.study.experiment import Experiment
from search.study.running import RunTime
from search.study.trials import RECIPE, SLOTS, TrialRecord, keep_best_of_finished, trial_records
from search.terminal import Screen
from trainable.config import TrialConfig
from trainable.job import TrialJob, Workers
from trainable.plugins.active import sources_of


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained configurations, while the cluster is still up."""

    job: TrialJob
    trials: Sequence[TrialRecord]
    study: optuna.Study
    outages: Outages
    seconds: Callable[[], float]
    """Returns those of all runs."""

    def store_seconds(self, run_time: RunTime) -> float:
        """Store the seconds of all runs in the study; return them."""
        seconds = round(self.seconds(), 1)
        self.study.set_user_attr("seconds", seconds)
        run_time.is_stored = True
        return seconds


def create_training(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset) -> None:
    """Check that the data set fits the configurations, then create the experiment.

    Raises:
        InputError: if the cache cannot be written, a part of a split has no samples, or the name cannot be used.
    """
    open_cache()
    for config in fixed.trials.values():
        split_counts(dataset, config.data)
    experiment.create_fixed(fixed.model_dump(mode="json"), plugins=fixed.plugins)


def training_steps(config: TrialConfig, dataset: Dataset, workers: Workers) -> Steps:
    """Optimizer steps on the training part of `dataset`.

    Raises:
        InputError: if a part of the split has no samples.
    """
    return steps_of(config, split_counts(dataset, config.data)["train"], workers.count)


@contextmanager
def train_all(
    experiment: Experiment, fixed: FixedConfigs, dataset: Dataset, screen: Screen, *, lost: float
) -> Iterator[Trained]:
    """Train the configurations that are left. Within the context, all are trained and the cluster is still up.

    Args:
        experiment: of the training or comparison.
        fixed: its configurations.
        dataset: the data set that they name, verified.
        screen: shows the progress.
        lost: seconds of earlier runs that the study does not have, as in `RunTime`.

    Raises:
        InputError: if the data changed, or the cluster or the disk has no room.
        UnfinishedError: if the data set, the storage or the cache was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    started, configs = time.monotonic(), list(fixed.trials.values())
    sources_of(fixed.plugins)  # raises before a cluster starts
    resources = ResourcesConfig(workers=fixed.workers)
    with open_session(experiment, dataset, resources, verbose=screen.verbose) as session:
        study, fits = session.study, session.concurrent
        started -= lost + float(study.user_attrs.get("seconds", 0.0))

        def seconds() -> float:
            return time.monotonic() - started

        enqueued = {trial.user_attrs.get(RECIPE) for trial in study.get_trials(deepcopy=False)}
        for name in fixed.trials:
            if name not in enqueued:  # in a new study, or after an interruption of this, or damage
                study.enqueue_trial({}, user_attrs={RECIPE: name})
        concurrent = min(fits, len(configs))
        sizes = {(config.data.sides, config.data.resize, config.data.fit): config.data for config in configs}
        check_disk(
            experiment,
            dataset,
            [size for size, *_ in sizes],
            [config.model for config in configs],
            kept=len(configs),
            concurrent=concurrent,
            padded=any(config.data.fit == "pad" for config in configs),
        )
        announce_dashboard(screen, session.dashboard)
        epochs = range(1, max(config.epochs for config in configs) + 1)
        job = make_job(experiment, dataset, session.workers, epochs, fixed.plugins)
        if len(configs) == 1:
            job = alone(job, fits)
        screen.say(f"{fixed.kind} '{experiment.name}': {concurrent} at a time with {each_uses(job.workers)} each")
        for name, config in fixed.trials.items():
            steps = training_steps(config, dataset, job.workers)
            size = size_text(config.data.image_size)
            screen.say(
                f"{name}: {counted(config.epochs, 'epoch')} at {size} px (data.image_size), in batches of "
                f"{config.data.batch_size} (data.batch_size), {steps}"
            )
            screen.warn(steps.warning)
        decode(list(sizes.values()), job, dataset, screen)
        stopper = Stopper()
        outages = Outages(experiment, job.data, screen, stopper)
        trials = outages.outlast(lambda: _train(experiment, fixed, study, job, concurrent, screen, stopper, seconds))
        if stopper.interrupted:
            raise InterruptedSearchError
        yield Trained(job=job, trials=trials, study=study, outages=outages, seconds=seconds)


def _train(
    experiment: Experiment,
    fixed: FixedConfigs,
    study: optuna.Study,
    job: TrialJob,
    concurrent: int,
    screen: Screen,
    stopper: Stopper,
    seconds: Callable[[], float],
) -> list[TrialRecord]:
    unfinished = study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))
    values = {name: config.model_dump() for name, config in fixed.trials.items()}
    epochs = {config.epochs for config in fixed.trials.values()}
    plan = RunPlan.of_trainings(experiment.name, fixed.kind, [config.epochs for config in fixed.trials.values()])
    slots = uses(job.workers) | {"concurrent": concurrent}
    study.set_user_attr(SLOTS, slots)
    for trial in unfinished:
        if trial.last_step:
            screen.say(f"{trial.user_attrs[RECIPE]} resumes after epoch {trial.last_step}")
    earlier = trial_records(study)
    shown = show_trials(screen, study, Tally(plan, earlier), job.workers, stopper, seconds, lambda: slots)
    with shown as progress:
        callbacks = [TensorBoard(experiment), *progress, MachineChange(screen, earlier)]
        run_trials(
            experiment,
            job,
            study,
            lambda trial: values[trial.user_attrs[RECIPE]],
            FIFOScheduler(),  # type: ignore[no-untyped-call]
            rungs=sorted(epochs),
            samples=len(unfinished),
            seed=0,
            slots=lambda: concurrent,
            stopper=stopper,
            callbacks=callbacks,
        )
    return keep_best_of_finished(experiment, study)
