"""The best configuration from scratch on train + validation; then the one look at the test pictures.

Everything that is ever shown of the test part is measured here, in one step: the retrained network, the best trial's
own weights, and the baselines, on the same pictures.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import torch
from ray import tune

from data.disk import disk_error
from data.errors import InputError, UnfinishedError
from search.results.summary import Best
from search.run.failures import Failures
from search.run.prepare import each_uses
from search.run.progress import EpochProgress, MachineChange
from search.run.recorder import Retries
from search.run.steps import Steps, steps_of
from search.run.tuner import Stopper, run_config, trainable, trial_directory
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.terminal import Screen
from trainable.config import TrialConfig, build
from trainable.evaluation.evaluate import evaluate_baselines_on, evaluate_checkpoint, evaluate_images
from trainable.job import TrialData, TrialJob
from trainable.loop.checkpoint import STATE, DamagedCheckpointError, load_metrics, load_origin, verify
from trainable.loop.loaders import sample_count
from trainable.loop.precision import as_recorded, with_precision
from trainable.metrics.bootstrap import Interval, difference
from trainable.metrics.per_image import figures

PARTS = "train+val"
"""Parts of the data set that the retraining sees."""
COMPARED = ("score", "mask_iou", "depth_delta1")
"""Metrics that the best trial is compared with the best recipe by."""


@dataclass(frozen=True, kw_only=True)
class TestFigures:
    """Metrics on the test part."""

    retrained: dict[str, float]
    best: dict[str, float]
    recipe: dict[str, float] | None
    """Of the best recipe's own weights, trained for as long as the best trial's."""
    beyond_recipe: dict[str, Interval] | None
    """The best trial's metrics less the recipe's, with 95 % bootstrap intervals over backgrounds."""
    threads: int
    """That the retrained network was trained and measured with."""
    baselines: dict[str, dict[str, float]]


def retrain(
    experiment: Experiment,
    spec: SearchSpec,
    best: Best,
    job: TrialJob,
    screen: Screen,
    stopper: Stopper,
    *,
    again: bool = False,
) -> Path | None:
    """Train the best configuration on train + validation for its whole length; the last epoch's weights count.

    It runs in the precision that the trial ran in. A plateau policy has no validation split to watch: it goes through
    the learning rates of the best trial again. What was interrupted is gone on with; what is finished is done once more
    if it is wanted `again`.

    Returns:
        The checkpoint, or None if somebody pressed Ctrl-C.

    Raises:
        EnvironmentFaultError: if what it uses cannot be used now; called again, it continues from its checkpoint.
        DiskError: if a file system is full or has another fault.
        UnfinishedError: if the training failed or diverged.
    """
    epochs = spec.plan.retrain.epochs or spec.plan.scheduler.max_epochs
    config = build(TrialConfig, {**best.trial.config, "epochs": epochs}, source="the best trial's configuration")
    config = with_precision(config, as_recorded(load_origin(best.checkpoint).config).model.precision)
    left = _left(experiment, config, screen)
    done = load_origin(left).epoch if left else 0
    if left is not None and done == epochs:
        if not again:
            return left
        left, done = None, 0
    if left is None:
        shutil.rmtree(experiment.retraining, ignore_errors=True)
    attempt = sum(1 for _ in experiment.retraining.glob("run-*")) if left else 0
    job = replace(
        job,
        data=replace(job.data, train=PARTS, val=None),
        checkpoint_epochs=frozenset(range(1, epochs + 1)),
        replay=_replay(best, spec.plan.scheduler.max_epochs),
        group_storage=str(experiment.groups / experiment.retraining.name),
    )
    steps = retraining_steps(config, job)
    screen.say(f"retraining: {epochs} epochs, {steps}, with {each_uses(job.workers)}")
    screen.warn(steps.warning)
    with screen.bar("retraining", epochs, "epochs", done=done) as move, stopper.on_ctrl_c():
        changes = MachineChange(screen, [best.trial], "it keeps the precision of its trial")
        retries = Retries(Failures(stopper.pause))
        listeners: list[tune.Callback] = [EpochProgress(screen, move), changes, retries]
        results = tune.Tuner(
            trainable(job),
            param_space={
                "name": f"run-{attempt}",
                "trial": config.model_dump(),
                "resume_from": str(left) if left else None,
            },
            tune_config=tune.TuneConfig(trial_dirname_creator=trial_directory),
            run_config=run_config(experiment.retraining, stopper, listeners, newest_alone=True),
        ).fit()
    if stopper.interrupted:
        return None
    return _checkpoint(results[0])


def retraining_steps(config: TrialConfig, job: TrialJob) -> Steps:
    """Optimizer steps of the retraining of a configuration."""
    samples = sample_count(config.data, job.data, PARTS)
    return steps_of(config, samples, job.workers.count, setting="retrain.epochs")


def measure_on_test(best: Best, recipe: Best | None, retrained: Path, job: TrialJob, pictures: Path) -> TestFigures:
    """Evaluate the retrained network, the best trial's weights, the best recipe's and the baselines on the test part.

    Args:
        best: the best trial.
        recipe: the best recipe that had the whole budget of a trial, if one had.
        retrained: the retrained checkpoint.
        job: the data, and what may be used.
        pictures: a PNG file for a grid of the retrained network's predictions.
    """
    workers = job.workers
    remote = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(_measure)
    compared = str(recipe.checkpoint) if recipe else None
    measured: TestFigures = ray.get(
        remote.remote(str(retrained), str(best.checkpoint), compared, job.data, str(pictures), workers.cpus)
    )
    return measured


def _measure(
    retrained: str, best: str, recipe: str | None, data: TrialData, pictures: str, threads: int
) -> TestFigures:
    # The retraining measured how many are fastest here; one of an earlier version did not report it.
    threads = int(load_metrics(Path(retrained)).get("threads", threads))
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    of_best = evaluate_images(Path(best), data, "test", device=device)
    of_recipe = evaluate_images(Path(recipe), data, "test", device=device) if recipe else None
    return TestFigures(
        threads=threads,
        retrained=evaluate_checkpoint(Path(retrained), data, "test", device=device, grid=Path(pictures)),
        best=figures(of_best),
        recipe=figures(of_recipe) if of_recipe else None,
        beyond_recipe={name: difference(of_best, of_recipe, name) for name in COMPARED} if of_recipe else None,
        baselines=evaluate_baselines_on(load_origin(Path(retrained)).config.data, data, "test"),
    )


def _replay(best: Best, epochs: int) -> tuple[float, ...]:
    """The learning-rate factors of the best trial; one that was stopped stays where it was."""
    factors: Sequence[float] = best.trial.lr_factors
    return (*factors, *[factors[-1]] * (epochs - len(factors))) if factors else ()


def _left(experiment: Experiment, config: TrialConfig, screen: Screen) -> Path | None:
    """The newest whole checkpoint of an interrupted retraining of the same configuration; says which are damaged."""
    found = []
    for state in experiment.root.glob(f"**/{experiment.retraining.name}/run-*/*/{STATE}"):
        try:
            origin = load_origin(state.parent)
            verify(state.parent)
        except DamagedCheckpointError as error:
            screen.say(f"the file '{error.file}' {error.problem}; the retraining does not go on from it")
            continue
        except InputError:
            continue
        if origin.config == config:
            found.append((origin.epoch, state.parent))
    return max(found, default=(0, None))[1]


def _checkpoint(result: tune.Result) -> Path:
    metrics = result.metrics or {}
    if fault := disk_error(result.error, result.path):
        raise fault
    if result.error is not None or metrics.get("outcome") == "diverged":
        reason = str(result.error or metrics.get("reason")).strip().rpartition("\n")[2]  # the last line of a traceback
        raise UnfinishedError(f"The retraining of the best configuration failed: {reason}")
    if path := metrics.get("checkpoint_path"):
        return Path(path)
    if result.checkpoint is None:
        raise UnfinishedError("The retraining of the best configuration ended without a checkpoint.")
    return Path(result.checkpoint.path)
