"""Searches with any number of trials and known scores, made through the study, for tests of their report."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from data.dataset.dataset import Dataset
from search.results.summary import Best, find_best, summarise
from search.spec.spec import load_spec
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.summary import Retrained
from search.study.trials import trial_records
from trainable.config import DataConfig, ModelConfig, TrialConfig
from trainable.loop.checkpoint import save
from trainable.loop.checkpoint_files import Origin
from trainable.metrics.objective import Objective
from trainable.metrics.per_image import PUBLISHED, STATES, ImageFigures, figures
from trainable.models import build_model

MAX_EPOCHS = 27
START = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "optimizer.lr": FloatDistribution(1e-4, 1.0, log=True),
    "optimizer.name": CategoricalDistribution(["sgd", "adam", "adamw"]),
    "model.width": CategoricalDistribution([2, 4, 8]),
    "loss.mask.dice?": CategoricalDistribution([False, True]),
    "loss.mask.dice": FloatDistribution(0.05, 2.0),
    "loss.ssim.window": IntDistribution(3, 11, step=2),
    **{f"data.augment.{name}": FloatDistribution(0.0, 1.0) for name in ("jitter", "hue", "shift", "noise", "zoom")},
    **{f"policy.{name}.floor": FloatDistribution(1e-3, 1.0, log=True) for name in ("step", "cosine", "cyclic")},
}
CHECKPOINTS = 3
"""Trials, of the best ones, whose checkpoint exists."""


def search_of(
    storage: Path,
    data: Path | str,
    count: int,
    *,
    name: str = "first",
    seed: int = 0,
    objective: str = "score",
    plugins: str = "[]",
) -> Experiment:
    """A search without a retraining whose trials have learning curves, times on two hosts, and some failures.

    Of ten trials in a row, number 4 diverged and number 7 failed; number 0 is a recipe that ran for all epochs, and
    trial 1 is of the portfolio. The others reach epoch 3, 9 or 27. The best learning rate is 0.01 for the score, and
    0.001 for the error of the depth.
    """
    experiment = Experiment(storage=storage, name=name)
    settings = {"scheduler.max_epochs": MAX_EPOCHS, "search.seed": seed, "objective": objective, "plugins": plugins}
    overrides = [(key, str(value)) for key, value in settings.items()]
    experiment.create(load_spec(data_path=str(data), overrides=overrides))
    study = open_study(experiment)
    rng = np.random.default_rng(seed)
    for number in range(count):
        study.add_trial(_trial(number, rng, experiment.objective))
    study.set_user_attr("slots", {"concurrent": 4, "cpus": 1, "gpus": 0.5})
    study.set_user_attr("gpu_seconds", 1800.0)
    scored = [
        trial for trial in trial_records(study, experiment.objective) if trial.best_epoch and trial.outcome == "trained"
    ]
    ranked = sorted(scored, key=lambda trial: -(trial.best_epoch.rank if trial.best_epoch else 0))
    recipes = [trial for trial in ranked if trial.recipe][:1]
    for trial in [*ranked[:CHECKPOINTS], *recipes]:
        kept = experiment.root / str(trial.best_epoch.checkpoint if trial.best_epoch else "")
        if not kept.exists():
            config = TrialConfig.model_validate(trial.config)
            save(kept, build_model(config.model), Origin(config=config, data_fingerprint=_print(data), epoch=1), {})
    return experiment


def retrained(experiment: Experiment, tables: Mapping[str, ImageFigures], *, network: bool = True) -> None:
    """Add a retraining, with `tables` as its measurements on the test images, by the names in `measured/`."""
    spec = experiment.spec()
    trials = trial_records(open_study(experiment), experiment.objective)
    best = find_best(experiment, trials)
    recipe = find_best(experiment, [trial for trial in trials if trial.recipe])
    assert best is not None
    for key, table in tables.items():
        table.save(experiment.measured(key))
    if network:
        shutil.copytree(best.checkpoint, experiment.retrained)
    known = {key: experiment.objective.with_value(figures(table)) for key, table in tables.items()}
    summary = summarise(experiment, spec, trials, best, recipe, seconds=7200.0, data_fingerprint=_print(spec.data_path))
    changes: dict[str, Any] = {"complete": True, "ended_by": "trials"}
    if summary.best and "best" in known:
        changes["best"] = summary.best.model_copy(update={"test": known["best"]})
    if "retrained" in known:
        changes["retrained"] = Retrained(metrics=known["retrained"], checkpoint="retrained", epochs=MAX_EPOCHS)
    experiment.write_summary(summary.model_copy(update=changes))


def best_of(experiment: Experiment) -> Best:
    """The best trial."""
    best = find_best(experiment, trial_records(open_study(experiment), experiment.objective))
    assert best is not None
    return best


def table(ious: list[float], backgrounds: int = 12, *, depth_rmse: float | list[float] = 0.3) -> ImageFigures:
    """Images with these mask IoUs and depth errors, and half of their depth within a factor of 1.25.

    There are as many for each background.
    """
    states = np.zeros((len(ious), len(STATES)))
    values = {"images": 1.0, "pixels": 100.0, "depth_within1": 50.0, "mask_squares": 4.0}
    for name, value in values.items():
        states[:, STATES.index(name)] = value
    states[:, STATES.index("iou")] = ious
    states[:, STATES.index("depth_squares")] = 100 * np.square(depth_rmse)
    ids = tuple(f"room{number % backgrounds}" for number in range(len(ious)))
    return ImageFigures(bg_ids=ids, states=states, published={name: np.zeros(len(ious)) for name in PUBLISHED})


def _trial(number: int, rng: np.random.Generator, objective: Objective) -> FrozenTrial:
    params: dict[str, Any] = {key: _draw(distribution, rng) for key, distribution in DISTRIBUTIONS.items()}
    if not params["loss.mask.dice?"]:
        del params["loss.mask.dice"]
    is_recipe, outcome = number % 10 == 0, {4: "diverged", 7: "failed"}.get(number % 10, "trained")
    last = MAX_EPOCHS if is_recipe or number % 10 == 9 else 9 if number % 3 == 0 else 3
    goal = 0.85 - 0.1 * abs(math.log10(params["optimizer.lr"]) + 2) - 0.1 * is_recipe
    error = 0.1 + 0.05 * abs(math.log10(params["optimizer.lr"]) + 3) + 0.05 * is_recipe
    start = START + timedelta(minutes=3 * (number // 4), seconds=number % 4)
    epochs = {
        f"epoch:{epoch}": {
            "metrics": objective.with_value(
                {
                    **dict.fromkeys(("mask_iou", "depth_delta1", *objective.names), goal * (1 - 0.7**epoch)),
                    "score": goal * (1 - 0.7**epoch) + 0.02 * rng.normal(),
                    "depth_rmse": error + 0.5 * 0.7**epoch,
                    "seconds": 6.0,
                }
            ),
            "checkpoint": f"trials/{number:05d}/checkpoint_{epoch - 1:06d}",
            "time": start.timestamp() + 6.0 * epoch,
        }
        for epoch in range(1, last + 1)
    }
    config = TrialConfig(model=ModelConfig(family="debug", width=params["model.width"]), data=DataConfig(image_size=32))
    if outcome == "diverged" and math.isinf(objective.worst):  # JSON has no infinity
        epochs[f"epoch:{last}"]["metrics"] = {"score": 0.0}
    ranks = [objective.rank(epoch["metrics"]) for epoch in epochs.values()]
    has_value = outcome != "failed" and math.isfinite(ranks[-1])
    reasons = {"diverged": "the loss became nan in epoch 3", "failed": "RuntimeError: <b>a bug</b> & more"}
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.COMPLETE if has_value else TrialState.FAIL,
        value=objective.sign * max(ranks) if has_value else None,
        datetime_start=start,
        datetime_complete=start + timedelta(seconds=6 * last),
        params=params,
        distributions={key: DISTRIBUTIONS[key] for key in params},
        user_attrs={
            "config": config.model_dump(),
            "outcome": outcome,
            "reason": reasons.get(outcome, ""),
            "recipe": "birender-cnn" if is_recipe else "",
            **({"proposed_by": "portfolio"} if number == 1 else {}),
            "host": f"node-{1 + number % 2}",
            **epochs,
        },
        system_attrs={},
        intermediate_values={},
    )


def _draw(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if isinstance(distribution, IntDistribution):
        return int(rng.integers(distribution.low, distribution.high, endpoint=True) // 2 * 2 + 1)
    if distribution.log:
        return float(10 ** rng.uniform(math.log10(distribution.low), math.log10(distribution.high)))
    return float(rng.uniform(distribution.low, distribution.high))


def _print(data: Path | str) -> str:
    return Dataset.open(str(data)).info.fingerprint if Path(data).exists() else "f"
