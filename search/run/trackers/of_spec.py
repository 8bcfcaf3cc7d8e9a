"""The tools that a spec names, as callbacks of Tune."""

from __future__ import annotations

import hashlib
import uuid

import optuna
from ray.tune.experiment import Trial
from ray.tune.logger import LoggerCallback

from search.driver import request_of
from search.run.trackers.tracker import TrackedTrial, Tracker
from search.spec.spec import SearchSpec
from search.spec.trackers import PACKAGES, check_packages
from search.study.experiment import Experiment
from search.terminal import Screen

TRACKED_AS = "tracked_as"
"""Attribute of a study: a random ID, since another search may have the same name."""


def trackers(experiment: Experiment, spec: SearchSpec, study: optuna.Study, screen: Screen) -> list[Tracker]:
    """The tools that record a search, as its spec says.

    Raises:
        InputError: if one is not installed.
    """
    check_packages(spec.plan)
    logging = spec.plan.logging
    if logging.mlflow is None and logging.wandb is None:
        return []
    search_id = _search_id(experiment, study)

    def mlflow() -> LoggerCallback:
        from search.run.trackers.mlflow_runs import MLflowRuns  # imports MLflow, which takes seconds

        return MLflowRuns(str(logging.mlflow), experiment.name, search_id)

    def wandb() -> LoggerCallback:
        from search.run.trackers.wandb_runs import WandbRuns

        return WandbRuns(str(logging.wandb), experiment.name, experiment.root)

    def tracked(trial: Trial) -> TrackedTrial:
        request = request_of(trial)
        recipe = {"recipe": request.recipe} if request.recipe else {}
        return TrackedTrial(
            trial_id=f"{search_id}-{request.number:05d}",
            name=f"{experiment.name}-{request.number:05d}",
            config={**request.trial, **recipe},
            experiment_dir_name=experiment.name,
            local_path=str(experiment.root),
        )

    made = {"mlflow": (logging.mlflow, mlflow), "wandb": (logging.wandb, wandb)}
    return [Tracker(PACKAGES[key], make, tracked, screen) for key, (value, make) in made.items() if value is not None]


def _search_id(experiment: Experiment, study: optuna.Study) -> str:
    """An ID that a search keeps when it is resumed, and that a copy in another directory does not have."""
    if TRACKED_AS not in study.user_attrs:
        study.set_user_attr(TRACKED_AS, uuid.uuid4().hex)
    whole = f"{study.user_attrs[TRACKED_AS]}\n{experiment.location}"
    return hashlib.sha256(whole.encode()).hexdigest()[:12]
