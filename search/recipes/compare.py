"""Comparison of recipes: trained on the same samples, evaluated on the same test images, in one table.

The test part is evaluated once, when all trainings are complete, with the weights that validation picked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial

import ray
import torch

from data.dataset.dataset import Dataset
from search.recipes.configs import FixedConfigs
from search.recipes.trainings import Trained, train_all
from search.report.comparison import write_comparison
from search.results.comparison import Column, Comparison, HeldOut, Row
from search.results.summary import find_best, outcome_of, versions
from search.run.cluster import start_task
from search.run.prepare import split_counts
from search.study.experiment import Experiment
from search.study.running import running
from search.study.trials import TrialRecord
from search.terminal import Screen
from trainable.config.describe import describe
from trainable.evaluation.evaluate import evaluate_baselines_on, evaluate_images
from trainable.job import TrialData, Workers
from trainable.loop.fetch import local_copy, output_file
from trainable.loop.loaders import optimizer_steps
from trainable.metrics.bootstrap import intervals
from trainable.metrics.per_image import ImageFigures
from trainable.models import build_on_meta, multiply_adds, parameter_count

_OURS = "on the test images"
COLUMNS = (
    Column(key="score", title="score", group=_OURS, better="higher"),
    Column(key="mask_iou", title="mask IoU", group=_OURS, better="higher"),
    Column(key="mask_rmse", title="mask RMSE", group=_OURS, better="lower"),
    Column(key="depth_delta1", title="depth δ < 1.25", group=_OURS, better="higher"),
    Column(key="depth_rmse", title="depth RMSE", group=_OURS, better="lower"),
    Column(key="ssim90_mask", title="mask SSIM > .90", group="birender", better="higher"),
    Column(key="ssim50_depth", title="depth SSIM > .50", group="birender", better="higher"),
    Column(key="soft_mask_delta1", title="mask δ < 1.25", group="ramana", better="higher"),
    Column(key="soft_mask_rmse", title="mask rms", group="ramana", better="lower"),
    Column(key="depth_delta1", title="depth δ < 1.25", group="ramana", better="higher"),
    Column(key="depth_rmse", title="depth rms", group="ramana", better="lower"),
    Column(key="iou75_mask", title="mask IoU at .75", group="monimoyd", better="higher"),
)
"""Columns of a comparison: our metrics, then the published metric of each project."""


def run_comparison(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset, screen: Screen) -> Comparison:
    """Train what is left, evaluate every network on test, and write the report.

    Raises:
        InputError: if the data changed, or the cluster or the disk has no room.
        UnfinishedError: if the data set, the storage or the cache was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    with running(experiment, screen.say) as run_time:
        with train_all(experiment, fixed, dataset, screen, lost=run_time.lost) as trained:
            screen.say("measuring every network and the baselines on the test images")
            trained.outages.outlast(lambda: _measure_all(experiment, trained, screen))
            baselines = trained.outages.outlast(lambda: _measure_baselines(fixed, trained))
            seconds = trained.store_seconds(run_time)
        comparison = _comparison(experiment, fixed, trained.trials, dataset, baselines, seconds)
        write_comparison(comparison, experiment.root)
    return comparison


def _measure_all(experiment: Experiment, trained: Trained, screen: Screen) -> None:
    """Measure the networks that have no measurements yet, as many at a time as the cluster has room for."""
    workers = trained.job.workers
    tasks, written = [], []
    for trial in trained.trials:
        best = find_best(experiment, [trial], say=screen.say)
        files = [experiment.measured(trial.recipe), experiment.grid(trial.recipe)]
        if best is not None and not files[0].is_file():
            checkpoint, measured, grid = (
                str(experiment.in_storage(path).explicit()) for path in (best.checkpoint, *files)
            )
            measure = partial(_measure, checkpoint, measured, grid, trained.job.data)
            written += files
            threads = int(best.epoch.metrics.get("threads", workers.cpus))
            tasks.append(start_task(trained.job, measure, threads=threads))
    ray.get(tasks)
    experiment.pull(*written)


def _measure(checkpoint: str, measured: str, grid: str, data: TrialData, device: torch.device) -> None:
    """Write a checkpoint's metrics on the test part to the file `measured`, and its predictions to `grid`.

    Each is a path or an address.
    """
    with local_copy(checkpoint) as copy, output_file(measured) as table, output_file(grid) as pictures:
        evaluate_images(copy, data, "test", device=device, grid=pictures).save(table)


def _measure_baselines(fixed: FixedConfigs, trained: Trained) -> dict[str, dict[str, float]]:
    config, job = next(iter(fixed.trials.values())), replace(trained.job, workers=Workers())
    return ray.get(start_task(job, lambda _: evaluate_baselines_on(config.data, job.data, "test"), threads=1))


def _comparison(
    experiment: Experiment,
    fixed: FixedConfigs,
    trials: Sequence[TrialRecord],
    dataset: Dataset,
    baselines: Mapping[str, Mapping[str, float]],
    seconds: float,
) -> Comparison:
    config = next(iter(fixed.trials.values()))
    samples = split_counts(dataset, config.data)
    by_recipe = {trial.recipe: trial for trial in trials}
    tables = {
        name: ImageFigures.load(experiment.measured(name))
        for name in fixed.trials
        if experiment.measured(name).is_file()
    }
    some = next(iter(tables.values()), None)
    return Comparison(
        name=experiment.name,
        data=fixed.data,
        data_fingerprint=dataset.info.fingerprint,
        image_size=config.data.image_size,
        epochs=config.epochs,
        seed=config.seed,
        complete=True,
        samples=samples,
        samples_seen=samples["train"] * config.epochs,
        test=HeldOut(pictures=samples["test"], backgrounds=len(set(some.bg_ids)) if some else 0),
        notes=list(fixed.notes),
        columns=COLUMNS,
        rows=[
            _row(
                experiment,
                fixed,
                name,
                by_recipe.get(name),
                tables.get(name),
                optimizer_steps(fixed.trials[name], samples["train"], fixed.workers),
            )
            for name in fixed.trials
        ],
        baselines=baselines,
        versions=versions(),
        seconds=seconds,
    )


def _row(
    experiment: Experiment,
    fixed: FixedConfigs,
    name: str,
    trial: TrialRecord | None,
    table: ImageFigures | None,
    steps: int,
) -> Row:
    config = fixed.trials[name]
    network = build_on_meta(config.model)
    best = trial.best_kept(experiment) if trial else None
    return Row(
        recipe=name,
        **fixed.origins[name].model_dump(),
        **asdict(describe(config)),
        parameters=parameter_count(network),
        macs=multiply_adds(network, config.data.image_size),
        batch_size=config.data.batch_size,
        precision=trial.precision if trial else "",
        outcome=outcome_of(trial, config.epochs) if trial else "missing",
        reason=trial.reason if trial else "",
        epoch=best.epoch if best else None,
        seconds=round(trial.seconds, 1) if trial else None,
        figures=intervals(table) if table is not None else None,
        pictures=experiment.relative(experiment.grid(name)) if experiment.grid(name).is_file() else None,
        optimizer_steps=steps,
    )
