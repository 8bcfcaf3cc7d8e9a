"""A search from its spec to its summary: data, cluster, trials, retraining, test, hand-over."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import optuna
from ray import tune

from data.cache.cache import open_cache
from data.dataset.dataset import Dataset
from data.errors import InputError, UnfinishedError
from search.commands import cited
from search.results.export import hand_over
from search.results.front import front_rows
from search.results.summary import Best, best_score, find_best, find_best_recipe, so_far, summarise, why_no_result
from search.run.budget import Budget, check_budget
from search.run.cluster import check_retraining, cluster, cluster_resources, plan
from search.run.outages import Outages, outage_limit
from search.run.prepare import (
    OPTIMIZER_COPIES,
    alone,
    announce_dashboard,
    check_disk,
    check_same_data,
    decode,
    each_uses,
    make_job,
    on_everything,
    split_counts,
)
from search.run.progress import MachineChange, SearchProgress, best_note
from search.run.recorder import TensorBoard
from search.run.retrain import measure_on_test, retrain, retraining_steps
from search.run.steps import Steps, steps_of_search
from search.run.tuner import InterruptedSearchError, Stopper, Tuner
from search.spec.objectives import MILLISECONDS, Objective
from search.spec.spec import SearchSpec
from search.strategy.space import largest_trials
from search.strategy.warm_start import check_starts, outside_of, start
from search.study.experiment import Experiment
from search.study.study import check_study, held_study, leaving_nothing, open_study, study_place
from search.study.trials import keep_best, trial_records
from search.terminal import Screen
from trainable.config import DataConfig, TrialConfig, build
from trainable.job import TrialJob, Workers
from trainable.loop.checkpoint import load_origin

ENDED = {
    "hours": "its hours are over (budget.hours)",
    "gpu_hours": "its hours of GPUs are spent (budget.gpu_hours)",
    "patience": "the best has not improved for long enough (budget.patience)",
}


def begin(experiment: Experiment, spec: SearchSpec, dataset: Dataset) -> None:
    """Make the experiment, once it is known that there is all that the spec wants.

    Raises:
        InputError: if the cache cannot be written, a part of the split has no samples, the database of its study cannot
            be used, an earlier search that it starts from is not there, or the name cannot be used.
    """
    open_cache()
    split_counts(dataset, _data_config(spec))
    check_starts(spec, experiment.storage)
    check_study(experiment, spec)
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
        InputError: if a split has no samples, the data changed, the study's database cannot be used, or the cluster or
            the disk has no room.
        UnfinishedError: if no trial, or not the retraining, came to a network, or the study's database was lost, or
            the data set, the storage or the cache was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    started = time.monotonic()
    if _is_done(experiment, spec):
        screen.say(f"the search '{experiment.name}' is complete; give --trials or --set budget.KEY=VALUE to go on")
        return experiment.summary()
    data_config = _data_config(spec)
    counts = split_counts(dataset, data_config, samples=spec.subject.samples, seed=spec.plan.search.seed)
    with (
        experiment.lock(),
        held_study(experiment) as study,
        leaving_nothing(experiment, study),
        cluster() as dashboard,
    ):
        check_same_data(experiment, study, dataset)
        workers, concurrent = plan(spec.plan.resources, cluster_resources())
        check_budget(spec.plan.budget, workers)
        check_retraining(spec.plan.retrain, workers, cluster_resources())
        outage_limit()  # says what is wrong with it before anything is trained
        _check_disk(experiment, spec, dataset, data_config, concurrent)
        start(study, spec, experiment.storage, screen)
        before = float(study.user_attrs.get("seconds", 0.0))
        hours = spec.plan.budget.hours
        budget = Budget(spec.plan.budget, study, gpus=workers.count * workers.gpus)
        stopper = Stopper(seconds=hours * 3600 - before if hours else None, budget=budget)
        steps = steps_of_search(spec, counts["train"], workers.count)
        _announce(screen, experiment, spec, counts, steps, workers, concurrent, dashboard)
        job = _job(experiment, spec, dataset, workers)
        outages = Outages(experiment, job.data, screen, stopper)

        def spent() -> float:
            return before + time.monotonic() - started - outages.seconds

        decode([data_config], job, dataset, screen)
        try:
            _search(experiment, spec, study, job, concurrent, screen, stopper, budget, outages)
        except (InterruptedSearchError, UnfinishedError):
            with suppress(OSError, UnfinishedError):  # it may be the storage that is gone
                _sum_up(experiment, spec, study, dataset, stopper, steps, screen, spent())
            raise
        summary, best, recipe = _sum_up(experiment, spec, study, dataset, stopper, steps, screen, spent())
        if stopper.interrupted:
            raise InterruptedSearchError
        if best is None:
            reason = why_no_result(trial_records(study))
            raise UnfinishedError(f"No trial of '{experiment.name}' reached a result: {reason}.")
        _hand_over_best(experiment, best)
        if spec.plan.retrain.enabled:
            job = alone(on_everything(job), concurrent, spec.plan.retrain.cpus)
            summary = _finish(experiment, spec, summary, best, recipe, job, screen, stopper, outages)
        summary |= {"complete": True, "seconds": round(spent(), 1)}
        study.set_user_attr("seconds", summary["seconds"])
        experiment.write_summary(summary)
    return summary


def retrain_again(
    experiment: Experiment, spec: SearchSpec, dataset: Dataset, screen: Screen, command: str
) -> dict[str, Any]:
    """Retrain the best trial of a finished search as the spec says, and measure it on test.

    Args:
        experiment: the search.
        spec: its own.
        dataset: the data set that `spec` names, checked.
        screen: where to show how far it is.
        command: the one that goes on when this is stopped.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: if the search has no summary, its data changed, or there is no room.
        UnfinishedError: if the retraining failed, or what it uses did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    summary = experiment.summary()
    if dataset.info.fingerprint != summary["data_fingerprint"]:
        raise InputError(f"The data set '{spec.data_path}' is not what '{experiment.name}' searched on; give that one.")
    trials = trial_records(open_study(experiment))
    best = find_best(experiment, trials, say=screen.say)
    recipe = find_best_recipe(experiment, trials, spec.plan.scheduler.max_epochs)
    if best is None:
        raise InputError(f"The search '{experiment.name}' has no trial with weights that load; search again.")
    with experiment.lock(), cluster():
        workers, concurrent = plan(spec.plan.resources, cluster_resources())
        check_retraining(spec.plan.retrain, workers, cluster_resources())
        job = alone(on_everything(_job(experiment, spec, dataset, workers)), concurrent, spec.plan.retrain.cpus)
        stopper = Stopper()
        outages = Outages(experiment, job.data, screen, stopper, command=command)
        summary = _finish(experiment, spec, summary, best, recipe, job, screen, stopper, outages, again=True)
    summary |= {"complete": True}
    experiment.write_summary(summary)
    return summary


def _sum_up(
    experiment: Experiment,
    spec: SearchSpec,
    study: optuna.Study,
    dataset: Dataset,
    stopper: Stopper,
    steps: Steps,
    screen: Screen,
    seconds: float,
) -> tuple[dict[str, Any], Best | None, Best | None]:
    """Write the summary of all trials so far; the summary, the best trial and the best recipe."""
    trials = trial_records(study)
    best = find_best(experiment, trials, say=screen.say)
    recipe = find_best_recipe(experiment, trials, spec.plan.scheduler.max_epochs)
    study.set_user_attr("seconds", seconds)
    summary = summarise(
        experiment, spec, trials, best, recipe, seconds=seconds, data_fingerprint=dataset.info.fingerprint
    )
    summary |= outside_of(study) | {"study": study_place(experiment), "ended_by": stopper.reason or "trials"}
    summary["optimizer_steps"] = steps.as_plain()
    summary["front"] = front_rows(experiment, trials, spec.plan.objectives)
    experiment.write_summary(summary)
    return summary, best, recipe


def _is_done(experiment: Experiment, spec: SearchSpec) -> bool:
    """Whether nothing is left to do."""
    if not experiment.summary_file.is_file():
        return False
    summary = experiment.summary()
    return bool(summary["complete"]) and summary["trials"] >= spec.plan.budget.trials


def _search(
    experiment: Experiment,
    spec: SearchSpec,
    study: optuna.Study,
    job: TrialJob,
    concurrent: int,
    screen: Screen,
    stopper: Stopper,
    budget: Budget,
    outages: Outages,
) -> None:
    earlier = trial_records(study)
    total, done = spec.plan.budget.trials, sum(trial.state.is_finished() for trial in earlier)
    max_epochs, best = spec.plan.scheduler.max_epochs, best_score(earlier)
    if earlier:
        screen.say(so_far(earlier, total, max_epochs))
    with screen.bar("searching", max(total, done), "trials", done=done, note=best_note(best)) as move:
        shown = SearchProgress(screen, move, max_epochs=max_epochs, best=best)
        listeners: list[tune.Callback] = [TensorBoard(experiment), shown, budget, MachineChange(screen, earlier)]
        tuner = Tuner(experiment, spec, job, concurrent=concurrent, listeners=listeners)
        outages.outlast(lambda: tuner.run(study, stopper))
    if stopper.reason:
        screen.say(
            f"the search ended before its {spec.plan.budget.trials} trials: {ENDED[stopper.reason]}; for more, "
            f"{cited(f'{experiment.resume_command} --set budget.{stopper.reason}=VALUE')}"
        )
    for trial in trial_records(study):
        if trial.state.is_finished():
            keep_best(experiment, trial)  # once more: its process may have outlived its end


def _finish(
    experiment: Experiment,
    spec: SearchSpec,
    summary: dict[str, Any],
    best: Best,
    recipe: Best | None,
    job: TrialJob,
    screen: Screen,
    stopper: Stopper,
    outages: Outages,
    *,
    again: bool = False,
) -> dict[str, Any]:
    """Retrain, measure on test, and hand both networks over."""
    checkpoint = outages.outlast(lambda: retrain(experiment, spec, best, job, screen, stopper, again=again))
    if checkpoint is None:
        raise InterruptedSearchError
    screen.say("measuring the retrained network, the best trial and the baselines on the test pictures")
    pictures = experiment.test_pictures
    figures = outages.outlast(lambda: measure_on_test(best, recipe, checkpoint, job, pictures))
    hand_over(
        checkpoint,
        experiment.retrained,
        metrics={"test": figures.retrained, "baselines": figures.baselines},
        title=f"{experiment.name}: the best configuration, retrained",
        pictures=pictures,
        source={"search": experiment.name, "trial": None},
    )
    _hand_over_best(experiment, best, test=figures.best, baselines=figures.baselines)
    return summary | {
        "best": summary["best"] | {"test": figures.best},
        "recipe": summary["recipe"] | {"test": figures.recipe} if recipe else None,
        "beyond_recipe": {name: found.as_plain() for name, found in figures.beyond_recipe.items()}
        if figures.beyond_recipe
        else None,
        "retrained": {
            "metrics": figures.retrained,
            "checkpoint": experiment.relative(experiment.retrained),
            "epochs": spec.plan.retrain.epochs or spec.plan.scheduler.max_epochs,
            "optimizer_steps": retraining_steps(load_origin(checkpoint).config, job).as_plain(),
            "threads": figures.threads,
        },
        "baselines": figures.baselines,
    }


def _hand_over_best(experiment: Experiment, best: Best, **on_test: Any) -> None:
    hand_over(
        best.checkpoint,
        experiment.best,
        metrics={"val": dict(best.epoch.metrics), **on_test},
        title=f"{experiment.name}: trial {best.trial.number} after epoch {best.epoch.epoch}",
        source={"search": experiment.name, "trial": best.trial.number},
    )


def _job(experiment: Experiment, spec: SearchSpec, dataset: Dataset, workers: Workers) -> TrialJob:
    return make_job(
        experiment,
        dataset,
        workers,
        spec.plan.scheduler.rungs,
        samples=spec.subject.samples,
        seed=spec.plan.search.seed,
        ms_per_picture=spec.plan.constraints.ms_per_picture,
        timed=any(Objective.of(text).name == MILLISECONDS for text in spec.plan.objectives),
    )


def _data_config(spec: SearchSpec) -> DataConfig:
    """What every trial reads alike: the image size and the split are no domains."""
    return build(TrialConfig, next(largest_trials(spec)), source="the spec").data


def _check_disk(
    experiment: Experiment, spec: SearchSpec, dataset: Dataset, config: DataConfig, concurrent: int
) -> None:
    models = [build(TrialConfig, values, source="the spec").model for values in largest_trials(spec)]
    kept = spec.plan.budget.trials + 3  # a checkpoint a trial, the best, the retrained and its own
    live = concurrent * 2 * OPTIMIZER_COPIES
    check_disk(experiment, dataset, [config.image_size], models, kept + live)


def _announce(
    screen: Screen,
    experiment: Experiment,
    spec: SearchSpec,
    counts: dict[str, int],
    steps: Steps,
    workers: Workers,
    concurrent: int,
    dashboard: str,
) -> None:
    schedule = spec.plan.scheduler
    parts = ", ".join(f"{count} {part}" for part, count in counts.items())
    screen.say(
        f"search '{experiment.name}': {spec.plan.budget.trials} trials of up to {schedule.max_epochs} epochs on "
        f"{parts} samples; {concurrent} at a time with {each_uses(workers)} each; a whole trial takes {steps}"
    )
    screen.warn(steps.warning)
    announce_dashboard(screen, dashboard)
