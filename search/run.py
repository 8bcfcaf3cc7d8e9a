"""A search from its spec to its summary: data, cluster, trials, retraining, test, hand-over."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch
from ray import tune

from data.cache import cache_root, decoded_bytes
from data.errors import InputError, UnfinishedError
from data.shards import Dataset
from data.splits import rows
from search.cluster import cluster, cluster_resources, has_one_node, plan
from search.experiment import Experiment
from search.handover import hand_over
from search.progress import Screen, SearchProgress
from search.recorder import TensorBoard
from search.results import Best, find_best, summarise, trial_records
from search.retrain import measure_on_test, retrain
from search.space import largest_trial
from search.spec import SearchSpec
from search.trials import TrialRecord, keep_best
from search.tuner import Stopper, Tuner, open_study, rung_epochs
from trainable.config import DataConfig, TrialConfig, build
from trainable.models import build_model, parameter_count
from trainable.trainer import TrialJob, Workers
from trainable.trial import TrialData, read_part

OPTIMIZER_COPIES = 3
"""A checkpoint that can be gone on with holds the weights and up to two moments of each."""


class InterruptedSearchError(RuntimeError):
    """Somebody pressed Ctrl-C; what there is was written down."""


def open_data(path: str, screen: Screen) -> Dataset:
    """A data set whose every part was compared with its checksum.

    Raises:
        InputError: if it is missing, of a newer schema, truncated or altered.
    """
    size = sum(part.bytes for part in Dataset.open(Path(path)).info.parts)
    with screen.bar("checking the data", -(-size // 2**20), "MiB") as move:
        done = 0

        def show(checked: int) -> None:
            nonlocal done
            move(-(-checked // 2**20) - done, "")
            done = -(-checked // 2**20)

        return Dataset.open(Path(path), verify=True, on_bytes=show)


def begin(experiment: Experiment, spec: SearchSpec, dataset: Dataset) -> None:
    """Make the experiment, once it is known that the data has what the spec wants of it.

    Raises:
        InputError: if a part of the split has no samples, or the name cannot be used.
    """
    _split_counts(dataset, _data_config(spec))
    experiment.create(spec)


def run_search(experiment: Experiment, spec: SearchSpec, dataset: Dataset, screen: Screen) -> dict[str, Any]:
    """Run what is left of a search, retrain its best trial, and write the summary.

    Args:
        experiment: where it lies; it was created before.
        spec: what to do.
        dataset: the data set that `spec` names, checked.
        screen: where to show how far it is.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: if a split has no samples, the data changed, or the cluster or the disk has no room.
        UnfinishedError: if no trial, or not the retraining, came to a network.
        InterruptedSearchError: after Ctrl-C.
    """
    started = time.monotonic()
    if _is_done(experiment, spec):
        screen.say(f"the search '{experiment.name}' is complete; give --trials for a larger budget")
        return experiment.summary()
    data_config = _data_config(spec)
    counts = _split_counts(dataset, data_config)
    with experiment.lock(), cluster() as dashboard:
        study = open_study(experiment)
        _check_same_data(experiment, study, dataset)
        before = float(study.user_attrs.get("seconds", 0.0))
        hours = spec.plan.budget.hours
        stopper = Stopper(seconds=hours * 3600 - before if hours else None)
        workers, concurrent = plan(spec.plan.resources, cluster_resources())
        _check_disk(experiment, spec, dataset, data_config, concurrent)
        _announce(screen, experiment, spec, counts, workers, concurrent, dashboard)
        job = _job(experiment, spec, dataset, workers)
        _decode(data_config, job, sum(counts.values()), screen)
        _search(experiment, spec, study, job, concurrent, screen, stopper)
        trials = trial_records(study)
        best = find_best(experiment, trials)
        seconds = before + time.monotonic() - started
        study.set_user_attr("seconds", seconds)
        summary = summarise(experiment, spec, trials, best, seconds=seconds, data_fingerprint=dataset.info.fingerprint)
        experiment.write_summary(summary)
        if stopper.interrupted:
            raise InterruptedSearchError
        if best is None:
            raise UnfinishedError(
                f"No trial of '{experiment.name}' reached a result ({_reasons(trials)}); correct the spec."
            )
        _hand_over_best(experiment, best)
        if spec.plan.retrain.enabled:
            summary = _finish(experiment, spec, summary, best, _alone(job, concurrent), screen)
        summary |= {"complete": True, "seconds": round(before + time.monotonic() - started, 1)}
        study.set_user_attr("seconds", summary["seconds"])
        experiment.write_summary(summary)
    return summary


def retrain_again(
    experiment: Experiment, spec: SearchSpec, epochs: int | None, dataset: Dataset, screen: Screen
) -> dict[str, Any]:
    """Retrain the best trial of a finished search, for `epochs` or as the spec says, and measure it on test.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: if the search has no summary, its data changed, or there is no room.
        InterruptedSearchError: after Ctrl-C.
    """
    summary = experiment.summary()
    if dataset.info.fingerprint != summary["data_fingerprint"]:
        raise InputError(f"The data set '{spec.data_path}' is not what '{experiment.name}' searched on; give that one.")
    if epochs is not None:
        spec = spec.with_retraining(epochs)
    best = find_best(experiment, trial_records(open_study(experiment)))
    if best is None:
        raise InputError(f"The search '{experiment.name}' has no trial with weights that load; search again.")
    with experiment.lock(), cluster():
        workers, concurrent = plan(spec.plan.resources, cluster_resources())
        shutil.rmtree(experiment.retraining, ignore_errors=True)
        job = _alone(_job(experiment, spec, dataset, workers), concurrent)
        summary = _finish(experiment, spec, summary, best, job, screen)
    summary |= {"complete": True}
    experiment.write_summary(summary)
    return summary


def _is_done(experiment: Experiment, spec: SearchSpec) -> bool:
    """Whether nothing is left to do."""
    if not experiment.summary_file.is_file():
        return False
    summary = experiment.summary()
    return bool(summary["complete"]) and summary["trials"] >= spec.plan.budget.trials


def _check_same_data(experiment: Experiment, study: optuna.Study, dataset: Dataset) -> None:
    """Scores on different data cannot be compared: a search goes on with what it began with."""
    fingerprint = study.user_attrs.get("data_fingerprint")
    if fingerprint is None:
        study.set_user_attr("data_fingerprint", dataset.info.fingerprint)
    elif fingerprint != dataset.info.fingerprint:
        raise InputError(
            f"The data set '{dataset.path}' changed since the search '{experiment.name}' began (fingerprint "
            f"{dataset.info.fingerprint[:12]}, then {fingerprint[:12]}); bring the old one back, or start a new search."
        )


def _search(
    experiment: Experiment,
    spec: SearchSpec,
    study: optuna.Study,
    job: TrialJob,
    concurrent: int,
    screen: Screen,
    stopper: Stopper,
) -> None:
    earlier = [trial for trial in trial_records(study) if trial.state.is_finished()]
    scores = [record.score for trial in earlier for record in trial.epochs]
    left = max(0, spec.plan.budget.trials - len(earlier))
    with screen.bar("searching", left, "trials") as move:
        shown = SearchProgress(screen, move, max_epochs=spec.plan.scheduler.max_epochs, best=max(scores, default=None))
        listeners: list[tune.Callback] = [TensorBoard(experiment), shown]
        Tuner(experiment, spec, job, concurrent=concurrent, listeners=listeners).run(study, stopper)
    for trial in trial_records(study):
        if trial.state.is_finished():
            keep_best(experiment, trial)  # once more: its process may have outlived its end


def _finish(
    experiment: Experiment,
    spec: SearchSpec,
    summary: dict[str, Any],
    best: Best,
    job: TrialJob,
    screen: Screen,
) -> dict[str, Any]:
    """Retrain, measure on test, and hand both networks over."""
    stopper = Stopper()
    checkpoint = retrain(experiment, spec, best, job, screen, stopper)
    if checkpoint is None:
        raise InterruptedSearchError
    screen.say("measuring the retrained network, the best trial and the baselines on the test pictures")
    pictures = experiment.root / "pictures.png"
    figures = measure_on_test(best, checkpoint, job, pictures)
    hand_over(
        checkpoint,
        experiment.retrained,
        metrics={"test": figures.retrained, "baselines": figures.baselines},
        title=f"{experiment.name}: the best configuration, retrained",
        pictures=pictures,
    )
    _hand_over_best(experiment, best, test=figures.best, baselines=figures.baselines)
    config = summary["best"]["config"]
    return summary | {
        "best": summary["best"] | {"test": figures.best},
        "retrained": {
            "metrics": figures.retrained,
            "checkpoint": experiment.relative(experiment.retrained),
            "epochs": spec.plan.retrain.epochs or config["epochs"],
        },
        "baselines": figures.baselines,
    }


def _hand_over_best(experiment: Experiment, best: Best, **on_test: Any) -> None:
    hand_over(
        best.checkpoint,
        experiment.best,
        metrics={"val": dict(best.epoch.metrics), **on_test},
        title=f"{experiment.name}: trial {best.trial.number} after epoch {best.epoch.epoch}",
    )


def _job(experiment: Experiment, spec: SearchSpec, dataset: Dataset, workers: Workers) -> TrialJob:
    return TrialJob(
        data=TrialData(path=str(dataset.path.absolute()), fingerprint=dataset.info.fingerprint),
        workers=workers,
        checkpoint_epochs=frozenset(rung_epochs(**spec.plan.scheduler.model_dump())),
        group_storage=str(experiment.groups),
    )


def _alone(job: TrialJob, concurrent: int) -> TrialJob:
    """The job with the cores of all the trials that ran beside it: the retraining has this machine to itself."""
    workers = job.workers
    if workers.is_group or workers.gpus or not has_one_node():
        return job
    return replace(job, workers=replace(workers, cpus=workers.cpus * concurrent))


def _data_config(spec: SearchSpec) -> DataConfig:
    """What every trial reads alike: the image size and the split are no domains."""
    return build(TrialConfig, largest_trial(spec), source="the spec").data


def _split_counts(dataset: Dataset, config: DataConfig) -> dict[str, int]:
    """Samples of each part; a part without any is an error before anything starts."""
    return {part: len(rows(dataset.ids, part, config.split_by, config.shares)) for part in ("train", "val", "test")}


def _decode(config: DataConfig, job: TrialJob, samples: int, screen: Screen) -> None:
    """Decode every part on this node; on a cluster of several, each node's first trial decodes its own."""
    if not has_one_node():
        return
    with screen.bar("decoding", samples, "samples") as move:
        for part in ("train", "val", "test"):
            read_part(config, job.data, part, lambda count: move(count, ""))


def _check_disk(
    experiment: Experiment, spec: SearchSpec, dataset: Dataset, config: DataConfig, concurrent: int
) -> None:
    counts = dataset.info.counts
    largest = _largest_network(spec)
    kept = spec.plan.budget.trials + 3  # a checkpoint a trial, the best, the retrained and its own
    live = concurrent * 2 * OPTIMIZER_COPIES
    needs = {
        experiment.root: 4 * largest * (kept + live),
        cache_root(): decoded_bytes(counts.samples, counts.backgrounds, config.image_size),
    }
    for place, needed in needs.items():
        place.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(place).free
        if free < needed:
            raise InputError(
                f"The search needs up to {needed / 1e9:.1f} GB at '{place}', but {free / 1e9:.1f} GB are free; make "
                "room, choose another --storage or $TWINHEAD_CACHE, or lower data.image_size or budget.trials."
            )


def _largest_network(spec: SearchSpec) -> int:
    """Parameters of the widest network of the space."""
    config = build(TrialConfig, largest_trial(spec), source="the spec").model
    with torch.device("meta"):
        return parameter_count(build_model(config))


def _announce(
    screen: Screen,
    experiment: Experiment,
    spec: SearchSpec,
    counts: dict[str, int],
    workers: Workers,
    concurrent: int,
    dashboard: str,
) -> None:
    schedule = spec.plan.scheduler
    parts = ", ".join(f"{count} {part}" for part, count in counts.items())
    each = f"{workers.count * workers.cpus} CPU" + (
        f" and {workers.count * workers.gpus:g} GPU" if workers.gpus else ""
    )
    screen.say(
        f"search '{experiment.name}': {spec.plan.budget.trials} trials of up to {schedule.max_epochs} epochs on "
        f"{parts} samples; {concurrent} at a time with {each} each"
    )
    if dashboard:
        screen.say(f"dashboard: {dashboard} (its token: ray get-auth-token)")


def _reasons(trials: list[TrialRecord]) -> str:
    said = {trial.reason for trial in trials if trial.reason}
    return "; ".join(sorted(said)) or "none reported"
