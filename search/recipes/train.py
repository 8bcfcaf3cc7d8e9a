"""Training of one recipe without a search, and its evaluation on test."""

from __future__ import annotations

from functools import partial

import ray
import torch

from data.dataset.dataset import Dataset
from data.errors import UnfinishedError
from search.recipes.configs import FixedConfigs
from search.recipes.trainings import train_all, training_steps
from search.results.export import export_checkpoint
from search.results.model_card import Facts
from search.results.summary import find_best, versions
from search.run.cluster import start_task
from search.run.prepare import split_counts
from search.study.experiment import Experiment
from search.study.running import running
from search.study.summary import StepCounts, TrainingSummary
from search.terminal import Screen
from trainable.evaluation.evaluate import evaluate_baselines_on, evaluate_checkpoint, evaluate_published
from trainable.job import TrialData
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.fetch import local_copy, output_file
from trainable.recipes import Evaluation


def run_training(experiment: Experiment, fixed: FixedConfigs, dataset: Dataset, screen: Screen) -> TrainingSummary:
    """Train what is left, evaluate the epoch that validation picked on test, and export it.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: if the data changed, or the cluster or the disk has no room.
        UnfinishedError: if the training has no network, or what it uses was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    [(name, config)] = fixed.trials.items()
    with running(experiment, screen.say) as run_time:
        with train_all(experiment, fixed, dataset, screen, lost=run_time.lost) as trained:
            best = find_best(experiment, trained.trials, say=screen.say)
            if best is None:
                reasons = "; ".join(trial.reason for trial in trained.trials if trial.reason)
                raise UnfinishedError(
                    f"The training of '{name}' has no network ({reasons or 'no reason reported'}); correct its "
                    "configuration."
                )
            screen.say("measuring the network and the baselines on the test images")
            workers, grid = trained.job.workers, experiment.grid(name)
            threads = int(best.epoch.metrics.get("threads", workers.cpus))
            checkpoint, output = (str(experiment.in_storage(path).explicit()) for path in (best.checkpoint, grid))
            measure = partial(_measure, checkpoint, output, trained.job.data, fixed.metric, fixed.evaluation)
            metrics, published, baselines = trained.outages.outlast(
                lambda: ray.get(start_task(trained.job, measure, threads=threads))
            )
            trained.outages.outlast(lambda: experiment.pull(grid))
            seconds = trained.store_seconds(run_time)
        export_checkpoint(
            best.checkpoint,
            experiment.best,
            metrics={"val": dict(best.epoch.metrics), "test": metrics, "published": published, "baselines": baselines},
            title=f"{name}{', faithful' if fixed.faithful else ''}, after epoch {best.epoch.epoch}",
            pictures=grid,
            source={"search": experiment.name, "trial": best.trial.number},
            facts=Facts(
                data=fixed.data,
                samples=split_counts(dataset, config.data),
                recipe=f"is the recipe {name}{', faithful' if fixed.faithful else ''}",
            ),
        )
        summary = TrainingSummary(
            name=experiment.name,
            complete=True,
            recipe=name,
            faithful=fixed.faithful,
            notes=list(fixed.notes),
            config=best.trial.config_as_run,
            epoch=best.epoch.epoch,
            epochs=config.epochs,
            optimizer_steps=StepCounts(**training_steps(config, dataset, workers).as_plain()),
            threads=threads,
            metrics=metrics,
            published=published,
            baselines=baselines,
            checkpoint=experiment.relative(experiment.best),
            seconds=seconds,
            versions=versions(),
            data=fixed.data,
            data_fingerprint=dataset.info.fingerprint,
        )
        experiment.write_summary(summary)
    return summary


Measured = tuple[dict[str, float], dict[str, float], dict[str, dict[str, float]]]
"""Metrics on test: the network's, the project's own, and the baselines'."""


def _measure(
    checkpoint: str, grid: str, data: TrialData, metric: str, evaluation: Evaluation, device: torch.device
) -> Measured:
    """Evaluate a checkpoint and write its predictions to the file `grid`; each is a path or an address."""
    with local_copy(checkpoint) as copy, output_file(grid) as pictures:
        return (
            evaluate_checkpoint(copy, data, "test", device=device, grid=pictures),
            evaluate_published(copy, data, "test", metric, evaluation, device=device),
            evaluate_baselines_on(load_origin(copy).config.data, data, "test"),
        )
