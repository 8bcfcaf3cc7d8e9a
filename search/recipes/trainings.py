"""Training of fixed configurations with Ray Tune, without a search.

A comparison trains one configuration for each recipe, `twinhead train` a single one. The experiment stores them in
given.yaml, so that a resumed run does not depend on later changes of the recipes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict
from ray.tune.schedulers import FIFOScheduler

from data.cache.cache import open_cache
from data.dataset.dataset import Dataset
from data.errors import InputError, did_you_mean
from data.fitting.sizes import size_text
from data.quantities import counted
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
from search.spec.default_space import TRANSFORMS, is_argument
from search.spec.sections import ResourcesConfig
from search.study.experiment import Experiment
from search.study.trials import RECIPE, SLOTS, TrialRecord, keep_best_of_finished, trial_records
from search.terminal import Screen
from trainable.config import TrialConfig, build
from trainable.config.text import parse_yaml
from trainable.families import check_model
from trainable.job import TrialJob, Workers
from trainable.plugins.active import PluginRecord, own_losses, sources_of
from trainable.recipes import Evaluation

Kind = Literal["compare", "train"]


class RecipeOrigin(BaseModel):
    """Where a configuration comes from."""

    source: str
    """Author and place of publication."""
    faithful: bool
    """Whether it keeps the published errors."""


class FixedConfigs(BaseModel):
    """Fixed configurations to train on a data set, the content of given.yaml."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    data: str
    """Path or address of the data set."""
    faithful: bool
    """Whether the recipes keep their published errors."""
    metric: str = "none"
    """The project's own metric of the recipe that `train` trains."""
    evaluation: Evaluation = Evaluation()
    """How that metric is computed."""
    workers: int = 1
    """Processes that share a training."""
    origins: dict[str, RecipeOrigin] = {}
    """By recipe name."""
    notes: list[str] = []
    """Changes to the recipes, as clauses."""
    plugins: list[PluginRecord] = []
    """Plugins with families, losses and metrics that are not built in."""
    trials: dict[str, TrialConfig]
    """By recipe name."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained configurations, while the cluster is still up."""

    job: TrialJob
    trials: Sequence[TrialRecord]
    study: optuna.Study
    outages: Outages


def with_overrides(config: TrialConfig, overrides: Sequence[tuple[str, str]], file: str) -> TrialConfig:
    """A recipe's configuration with the values at some keys replaced.

    Args:
        config: the recipe's.
        overrides: (dotted key, YAML text) pairs.
        file: the recipe's file, for error messages.

    Raises:
        InputError: if a key is not known, or a value does not fit.
    """
    values = config.model_dump()
    for weights in (values["loss"]["mask"], values["loss"]["depth"]):
        weights |= {name: 0.0 for name in own_losses() if name not in weights}
    source = f"--set, or in {file}" if overrides else file
    for key, text in overrides:
        *sections, leaf = key.split(".")
        node: Any = values
        is_open = key == TRANSFORMS or is_argument(key)
        for section in sections:
            node = node.setdefault(section, {}) if is_open else node.get(section)
            if not isinstance(node, dict):
                meant = did_you_mean(section, values)
                raise InputError(
                    f"The key '{key}' of --set is not known; use sections such as {', '.join(values)}{meant}."
                )
        if leaf not in node and not is_open:
            meant = did_you_mean(leaf, node)
            raise InputError(f"The key '{key}' of --set is not known; use one of {', '.join(node)} there{meant}.")
        if isinstance(node.get(leaf), dict) and not is_open:
            raise InputError(f"The key '{key}' of --set is a section; set one of {', '.join(node[leaf])} in it.")
        node[leaf] = parse_yaml(text, f"--set {key}")
    if any(key == "data.batch_size" for key, _ in overrides):
        for stage in values["data"]["progression"]:
            stage["batch_size"] = None
    config = build(TrialConfig, values, source=source)
    check_model(config.model, source)
    return config


def create_training(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset) -> None:
    """Check that the data set fits the configurations, then create the experiment.

    Raises:
        InputError: if the cache cannot be written, a part of a split has no samples, or the name cannot be used.
    """
    open_cache()
    for config in fixed.trials.values():
        split_counts(dataset, config.data)
    experiment.create_fixed(fixed.model_dump(mode="json"), plugins=fixed.plugins)


def load_fixed_configs(experiment: Experiment) -> FixedConfigs:
    """The configurations that an experiment trains.

    Raises:
        InputError: if there is no such experiment, or its file is damaged.
    """
    return build(FixedConfigs, experiment.fixed(), source=str(experiment.fixed_file))


def training_steps(config: TrialConfig, dataset: Dataset, workers: Workers) -> Steps:
    """Optimizer steps on the training part of `dataset`.

    Raises:
        InputError: if a part of the split has no samples.
    """
    return steps_of(config, split_counts(dataset, config.data)["train"], workers.count)


@contextmanager
def train_all(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset, screen: Screen) -> Iterator[Trained]:
    """Train the configurations that are left. Within the context, all are trained and the cluster is still up.

    Raises:
        InputError: if the data changed, or the cluster or the disk has no room.
        UnfinishedError: if the data set, the storage or the cache was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    configs = list(fixed.trials.values())
    sources_of(fixed.plugins)  # raises before a cluster starts
    resources = ResourcesConfig(workers=fixed.workers)
    with open_session(experiment, dataset, resources, verbose=screen.verbose) as session:
        study, fits = session.study, session.concurrent
        if not study.get_trials(deepcopy=False):
            for name in fixed.trials:
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
        trials = outages.outlast(lambda: _train(experiment, fixed, study, job, concurrent, screen, stopper))
        if stopper.interrupted:
            raise InterruptedSearchError
        yield Trained(job=job, trials=trials, study=study, outages=outages)


def _train(
    experiment: Experiment,
    fixed: FixedConfigs,
    study: optuna.Study,
    job: TrialJob,
    concurrent: int,
    screen: Screen,
    stopper: Stopper,
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
    earlier, started = trial_records(study), time.monotonic() - float(study.user_attrs.get("seconds", 0.0))
    shown = show_trials(
        screen,
        study,
        Tally(plan, earlier),
        job.workers,
        stopper,
        lambda: time.monotonic() - started,
        lambda: slots,
    )
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
            concurrent=concurrent,
            stopper=stopper,
            callbacks=callbacks,
        )
    return keep_best_of_finished(experiment, study)
