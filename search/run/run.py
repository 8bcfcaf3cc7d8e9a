"""A search from its spec to its summary: trials, retraining, test and export."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import optuna

from data.cache.cache import open_cache
from data.dataset.dataset import Dataset
from data.dataset.storage import UnavailableError
from data.errors import InputError, UnfinishedError
from search.commands import cited
from search.dashboard import JobNote
from search.results.front import front_rows
from search.results.summary import (
    Best,
    find_best,
    find_best_recipe,
    is_complete,
    progress_line,
    summarise,
    why_no_result,
    with_measurements,
)
from search.results.tally import RunPlan, Tally
from search.run.budget import BUDGET_REASONS, Budget, check_budget
from search.run.cluster import check_retraining, cluster, cluster_resources, plan
from search.run.metrics import SearchMetrics
from search.run.networks import export_best
from search.run.outages import Outages, outage_limit
from search.run.prepare import (
    BESIDE_TRIALS,
    Session,
    Slots,
    check_disk,
    data_config,
    decode,
    make_job,
    open_session,
    split_counts,
)
from search.run.progress import MachineChange, show_trials
from search.run.recorder import TensorBoard, TrialLogs
from search.run.retrain import SearchRun, retrain_and_test
from search.run.steps import Steps, announce, steps_of_search
from search.run.trackers.of_spec import trackers
from search.run.tuner import Stopper, tune_spec
from search.signals import InterruptedSearchError
from search.spec.objectives import MILLISECONDS
from search.spec.spec import SearchSpec
from search.strategy.warm_start import check_starts, outside_of, start
from search.study.experiment import Experiment
from search.study.running import running
from search.study.study import check_study, open_study, study_location
from search.study.summary import StepCounts, Summary
from search.study.trials import RETRAINING, RETRAINING_SECONDS, TrialRecord, keep_best_of_finished, trial_records
from search.terminal import Screen
from trainable.job import Workers
from trainable.metrics.objective import Objective
from trainable.plugins.active import sources_of


@dataclass(frozen=True, kw_only=True)
class _Search:
    """A search that is prepared for its trials."""

    run: SearchRun
    budget: Budget
    slots: Slots
    steps: Steps
    """Of a whole trial."""


def create_search(experiment: Experiment, spec: SearchSpec, dataset: Dataset) -> None:
    """Check what a new search needs, then create its experiment.

    Raises:
        InputError: if the cache cannot be written, a part of the split has no samples, the study's database cannot be
            used, an earlier search to start from does not exist, or the name cannot be used.
    """
    open_cache()
    split_counts(dataset, data_config(spec))
    check_starts(spec, experiment.storage)
    check_study(experiment, spec)
    experiment.create(spec)


def run_search(
    experiment: Experiment,
    spec: SearchSpec,
    dataset: Dataset,
    screen: Screen,
    changes: Sequence[tuple[str, str]] = (),
) -> Summary:
    """Run the remaining trials of a search, retrain its best configuration, and write the summary.

    Args:
        experiment: of the search, as `create_search` made it.
        spec: of the search, with `changes`.
        dataset: the data set that `spec` names, verified.
        screen: shows the progress.
        changes: of the budget, as for `Experiment.extend`; they are written once nothing refuses the run.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: if a split has no samples, the data changed, the study's database cannot be used, or the cluster or
            the disk has no room.
        UnfinishedError: if no trial has a network, the retraining failed, the study's database was lost, or the data
            set, the storage or the cache was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    started = time.monotonic()
    if is_complete(experiment, spec):
        if experiment.mirror:
            with running(experiment, screen.say):
                pass  # publishes what the last run could not
        summary = experiment.summary()
        more = "; give --trials or --set budget.KEY=VALUE to continue"
        if summary.limit is not None:
            more = _why_and_more(experiment, summary.ended_by)
        screen.say(f"the search '{experiment.name}' is complete{more}")
        return summary
    sources_of(spec.plan.plugins)  # raises before a cluster starts
    with (
        running(experiment, screen.say) as run_time,
        screen.logging_to(experiment.driver_log),
        open_session(experiment, dataset, spec.plan.resources, verbose=screen.verbose) as session,
    ):
        search = _prepare(experiment, spec, dataset, screen, session, started, run_time.lost, changes)
        try:
            return _run(search)
        finally:
            with suppress(Exception):  # the storage itself may be lost
                session.study.set_user_attr("seconds", search.run.seconds())
                run_time.is_stored = True


def retrain_again(experiment: Experiment, spec: SearchSpec, dataset: Dataset, screen: Screen, command: str) -> Summary:
    """Retrain the best configuration of a finished search as the spec says, and measure it on test.

    Args:
        experiment: of the search.
        spec: of the search.
        dataset: the data set that `spec` names, verified.
        screen: shows the progress.
        command: resumes the retraining after an interruption.

    Returns:
        The summary, as in `summary.json`.

    Raises:
        InputError: if the search has no summary, its data changed, or there is no room.
        UnfinishedError: if the retraining failed, or what it uses was lost and did not come back.
        InterruptedSearchError: after Ctrl-C.
    """
    started, summary = time.monotonic(), experiment.summary()
    sources_of(spec.plan.plugins)
    if dataset.info.fingerprint != summary.data_fingerprint:
        raise InputError(f"The search '{experiment.name}' used another data set than '{spec.data_path}'; restore it.")
    trials = trial_records(open_study(experiment), spec.plan.objective)
    best = find_best(experiment, trials, say=screen.say)
    recipe = find_best_recipe(experiment, trials, spec.plan.scheduler.max_epochs)
    if best is None:
        raise InputError(f"The search '{experiment.name}' has no trial with weights that load; start a new search.")
    with (
        running(experiment, screen.say) as run_time,
        screen.logging_to(experiment.driver_log),
        cluster(verbose=screen.verbose),
    ):
        workers, concurrent = plan(spec.plan.resources, cluster_resources())
        check_retraining(spec.plan.retrain, workers, cluster_resources())
        study = open_study(experiment)
        before = float(study.user_attrs.get("seconds", 0.0)) + run_time.lost
        study.set_user_attr("seconds", before)
        run_time.is_stored = True  # `budget.hours` does not count the retraining
        started -= before
        run = _make_run(
            experiment, spec, dataset, screen, Stopper(), workers, concurrent, study, started, command=command
        )
        summary = retrain_and_test(run, summary, best, recipe, again=True)
        return _complete(run, summary)


def _run(search: _Search) -> Summary:
    """Run the trials, and retrain and measure the best configuration."""
    run, spec = search.run, search.run.spec
    experiment = run.experiment
    try:
        trials = _run_trials(search)
    except (InterruptedSearchError, UnfinishedError):
        with suppress(OSError, UnfinishedError, UnavailableError):  # the storage itself may be lost
            _sum_up(search, trial_records(run.study, spec.plan.objective))
        raise
    summary, best, recipe = run.outages.outlast(lambda: _sum_up(search, trials))
    if run.stopper.interrupted:
        raise InterruptedSearchError
    if best is None:
        raise UnfinishedError(f"No trial of '{experiment.name}' reached a result: {why_no_result(trials)}.")
    export_best(experiment, spec, best, run.dataset)
    if spec.plan.retrain.enabled:
        run.stopper.lift_budget()
        with _timing_retraining(run):
            summary = retrain_and_test(run, summary, best, recipe)
    return _complete(run, summary.model_copy(update={"seconds": round(run.seconds(), 1)}))


def _complete(run: SearchRun, summary: Summary) -> Summary:
    """Write the summary with all results; only then is the retraining one that need not be measured again."""
    summary = summary.model_copy(update={"complete": True})
    run.experiment.write_summary(summary)
    run.study.set_user_attr(RETRAINING, None)
    return summary


@contextmanager
def _timing_retraining(run: SearchRun) -> Iterator[None]:
    """Within the context, count the time that `budget.hours` does not."""
    begun = run.seconds()
    try:
        yield
    finally:
        with suppress(OSError, UnfinishedError, UnavailableError):  # the storage itself may be lost
            earlier = float(run.study.user_attrs.get(RETRAINING_SECONDS, 0.0))
            run.study.set_user_attr(RETRAINING_SECONDS, earlier + run.seconds() - begun)


def _prepare(
    experiment: Experiment,
    spec: SearchSpec,
    dataset: Dataset,
    screen: Screen,
    session: Session,
    started: float,
    lost: float,
    changes: Sequence[tuple[str, str]],
) -> _Search:
    """Check what the trials need, enqueue the first ones, and decode the images; `lost` are seconds of lost runs."""
    study, workers, config = session.study, session.workers, data_config(spec)
    counts = split_counts(dataset, config, samples=spec.subject.samples, seed=spec.plan.search.seed)
    check_budget(spec.plan.budget, workers)
    check_retraining(spec.plan.retrain, workers, cluster_resources())
    outage_limit()  # an error in it is reported before any training
    models = [largest.model for largest in spec.largest_trials()]
    kept = spec.plan.budget.trials + BESIDE_TRIALS
    check_disk(
        experiment,
        dataset,
        [config.sides],
        models,
        kept=kept,
        concurrent=session.concurrent,
        padded=config.fit == "pad",
    )
    if changes:
        experiment.extend(changes)
    start(study, spec, experiment.storage, screen)
    steps = steps_of_search(spec, counts["train"], workers.count)
    announce(screen, experiment, spec, counts, steps, session)
    if dataset.info.split is not None and config.split_by != "stored":
        screen.say("note: the split that came with the data set is not used; set data.split_by to stored to use it")
    before = float(study.user_attrs.get("seconds", 0.0)) + lost
    hours = spec.plan.budget.hours
    budget = Budget(spec.plan.budget, study, gpus=workers.count * workers.gpus, objective=spec.plan.objective)
    searched = before - float(study.user_attrs.get(RETRAINING_SECONDS, 0.0))
    stopper = Stopper(seconds=hours * 3600 - searched if hours else None, budget=budget)
    started -= before
    run = _make_run(experiment, spec, dataset, screen, stopper, workers, session.concurrent, study, started)
    decode([config], run.job, dataset, screen)
    slots = Slots(session, spec.plan.resources, screen)
    return _Search(run=run, budget=budget, slots=slots, steps=steps)


def _make_run(
    experiment: Experiment,
    spec: SearchSpec,
    dataset: Dataset,
    screen: Screen,
    stopper: Stopper,
    workers: Workers,
    concurrent: int,
    study: optuna.Study,
    started: float,
    *,
    command: str = "",
) -> SearchRun:
    job = make_job(experiment, dataset, workers, spec.plan.scheduler.rungs, spec.plan.plugins)
    job = replace(
        job,
        data=replace(job.data, samples=spec.subject.samples, samples_seed=spec.plan.search.seed),
        ms_per_picture=spec.plan.constraints.ms_per_picture,
        timed=any(Objective.of(each).name == MILLISECONDS for each in spec.plan.objectives),
        objective=spec.plan.objective,
    )
    outages = Outages(experiment, job.data, screen, stopper, command=command)
    return SearchRun(
        experiment=experiment,
        spec=spec,
        dataset=dataset,
        job=job,
        concurrent=concurrent,
        screen=screen,
        stopper=stopper,
        outages=outages,
        study=study,
        seconds=lambda: time.monotonic() - started - outages.seconds,
    )


def _run_trials(search: _Search) -> list[TrialRecord]:
    """Run the remaining trials, until the budget is spent; return all trials of the search."""
    run, study, stopper = search.run, search.run.study, search.run.stopper
    experiment, spec, screen = run.experiment, run.spec, run.screen
    earlier = trial_records(study, spec.plan.objective)
    if earlier:
        screen.say(progress_line(earlier, spec.plan.budget.trials, spec.plan.scheduler.max_epochs))
    tally = Tally(RunPlan.of_search(experiment.name, spec), earlier)
    retrained = float(study.user_attrs.get(RETRAINING_SECONDS, 0.0))

    def seconds() -> float:
        """Those that `budget.hours` counts."""
        return run.seconds() - retrained

    used = (seconds, lambda: search.slots.now, lambda: search.budget.gpu_seconds)
    with show_trials(screen, study, tally, run.job.workers, stopper, *used) as progress:
        callbacks = [TensorBoard(experiment), *progress, search.budget, MachineChange(screen, earlier)]
        callbacks += [TrialLogs(experiment), JobNote(tally)]
        callbacks.append(SearchMetrics(experiment.name, spec, tally, search.budget, seconds))
        callbacks += trackers(experiment, spec, study, screen)
        trials = partial(tune_spec, experiment, spec, run.job, study, slots=search.slots, stopper=stopper)
        run.outages.outlast(lambda: trials(callbacks=callbacks))
    records = keep_best_of_finished(experiment, study, spec.plan.objective)
    if sum(record.state.is_finished() for record in records) >= spec.plan.budget.trials:
        stopper.reason = ""  # the limit was reached with the last trial, or after it
    if stopper.reason:
        more = _why_and_more(experiment, stopper.reason)
        screen.say(f"the search ended before its {tally.plan.trials} trials{more}")
    return records


def _why_and_more(experiment: Experiment, limit: str) -> str:
    """The end of a sentence: why a search ended, by the key of its budget, and how to raise that."""
    more = cited(f"{experiment.resume_command} --set budget.{limit}=VALUE")
    return f": {BUDGET_REASONS[limit]}; for more, {more}"


def _sum_up(search: _Search, trials: list[TrialRecord]) -> tuple[Summary, Best | None, Best | None]:
    """Write the summary of all trials so far; return it with the best trial and the best recipe."""
    run, study, seconds = search.run, search.run.study, search.run.seconds()
    experiment, spec = run.experiment, run.spec
    best = find_best(experiment, trials, say=run.screen.say)
    recipe = find_best_recipe(experiment, trials, spec.plan.scheduler.max_epochs)
    summary = summarise(
        experiment, spec, trials, best, recipe, seconds=seconds, data_fingerprint=run.dataset.info.fingerprint
    )
    summary = summary.model_copy(
        update={
            **outside_of(study),
            "study": study_location(experiment),
            "ended_by": run.stopper.reason or "trials",
            "limit": getattr(spec.plan.budget, run.stopper.reason) if run.stopper.reason else None,
            "optimizer_steps": StepCounts(**search.steps.as_plain()),
            "front": front_rows(experiment, trials, spec.plan.objectives),
        }
    )
    summary = with_measurements(summary, experiment.earlier_summary())
    experiment.write_summary(summary)
    return summary, best, recipe
