"""The results of a search: the best trial by the objective, and the summary."""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import optuna
from optuna.trial import TrialState

from data.dataset.storage import UnavailableError
from data.errors import InputError
from search.spec.spec import SearchSpec
from search.study.experiment import Experiment
from search.study.summary import Summary, TrialSummary
from search.study.trials import EpochRecord, TrialRecord, trial_records
from trainable.config import TrialConfig, build
from trainable.config.describe import describe
from trainable.metrics.names import CONSTRAINT, DIVERGED

MAX_REASONS = 3
"""Reasons in one error message."""
_VERSIONED = ("twinhead", "torch", "ray", "optuna", "albumentations", "numpy", "pyarrow")


@dataclass(frozen=True, kw_only=True)
class Best:
    """A trial at its best epoch, with a checkpoint that loads."""

    trial: TrialRecord
    epoch: EpochRecord
    checkpoint: Path


def is_complete(experiment: Experiment, spec: SearchSpec) -> bool:
    """Whether a search has its results: all trials of `spec` ended, or the limit that ended it is still the same."""
    summary = experiment.earlier_summary()
    if summary is None or not summary.complete:
        return False
    limited = summary.limit is not None and summary.limit == getattr(spec.plan.budget, summary.ended_by)
    return limited or summary.trials - summary.outcomes.get("interrupted", 0) >= spec.plan.budget.trials


def find_best(
    experiment: Experiment, trials: Iterable[TrialRecord], *, say: Callable[[str], None] = lambda _: None
) -> Best | None:
    """The best trial whose checkpoint loads; None if there is none.

    Args:
        experiment: the search of the trials.
        trials: the candidates.
        say: callback for a message about each skipped trial.

    Raises:
        UnavailableError: if a remote storage cannot be used.
    """
    for best in _candidates(experiment, trials):
        try:
            _load(experiment, best.checkpoint)
        except UnavailableError:
            raise
        except InputError as error:
            say(f"trial {best.trial.number} is skipped: {error}")
        else:
            return best
    return None


def find_best_recipe(experiment: Experiment, trials: Iterable[TrialRecord], max_epochs: int) -> Best | None:
    """The best recipe that ran for all epochs; None if there is none."""
    return find_best(experiment, (trial for trial in trials if trial.recipe and trial.last_epoch >= max_epochs))


def find_trial(experiment: Experiment, study: optuna.Study, number: int) -> Best:
    """Trial `number` at its best epoch.

    Raises:
        InputError: if there is no such trial, or it has no checkpoint that loads; DamagedCheckpointError for a damaged
            one.
    """
    records = {trial.number: trial for trial in trial_records(study, experiment.objective)}
    if number not in records:
        numbers = f"0 to {max(records)}" if records else "none yet"
        raise InputError(
            f"The search '{experiment.name}' has no trial {number}; give --trial one of its trials ({numbers})."
        )
    found = _candidates(experiment, [records[number]])
    if not found:
        raise InputError(
            f"Trial {number} of '{experiment.name}' has no checkpoint that loads; give --trial another one."
        )
    _load(experiment, found[0].checkpoint)
    return found[0]


def progress_line(trials: Sequence[TrialRecord], total: int, max_epochs: int) -> str:
    """The state of a resumed search in one line: trials by outcome, best value of the objective, unfinished trials.

    Args:
        trials: all started trials.
        total: trials in the budget.
        max_epochs: of a trial.
    """
    counts = outcomes(trials, max_epochs)
    unfinished = [str(trial.number) for trial in trials if not trial.state.is_finished()]
    done = ", ".join(f"{count} {name}" for name, count in counts.items() if count and name != "interrupted")
    line = f"{len(trials) - len(unfinished)} of {total} trials are done{f' ({done})' if done else ''}"
    trained = [(trial.best_epoch, trial.number) for trial in trials if trial.outcome != CONSTRAINT]
    reached = [(epoch, number) for epoch, number in trained if epoch is not None and epoch.rank > -math.inf]
    if reached:
        epoch, number = max(reached, key=lambda one: one[0].rank)
        line += f"; best {epoch.objective.key} {epoch.value:.4f} of trial {number}"
    if unfinished:
        line += f"; unfinished: {', '.join(unfinished)}"
    return line


def why_no_result(trials: Sequence[TrialRecord]) -> str:
    """The end of a sentence: the first few reasons why no trial has a network, and what to change."""
    diverged = [trial for trial in trials if trial.outcome == DIVERGED]
    others = list(dict.fromkeys(trial.reason for trial in trials if trial.reason and trial.outcome != DIVERGED))
    said = [*others[:MAX_REASONS], *([f"{len(others) - MAX_REASONS} more"] if len(others) > MAX_REASONS else [])]
    if not diverged:
        return f"{'; '.join(said) or 'none reported why'}; correct the spec"
    first = diverged[0]
    tried = describe(build(TrialConfig, first.config, source="the study"))
    how = f"{tried.losses}; {tried.optimizer}; {tried.policy}"
    said.insert(0, f"{len(diverged)} of {len(trials)} diverged, such as trial {first.number} with {how}")
    rates = [float(trial.config["optimizer"]["lr"]) for trial in diverged]
    norms = {float(trial.config["optimizer"]["clip_norm"]) for trial in diverged}
    clip = "set optimizer.clip_norm to 1" if 0.0 in norms else f"lower optimizer.clip_norm (from {min(norms):g})"
    return f"{'; '.join(said)}. Lower optimizer.lr (these had {_span(rates)}), {clip}, or lower the weights of the loss"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def outcomes(trials: Iterable[TrialRecord], max_epochs: int) -> dict[str, int]:
    """Number of trials by outcome: finished, stopped, diverged, constraint, failed, interrupted."""
    counts = Counter(outcome_of(trial, max_epochs) for trial in trials)
    return {name: counts[name] for name in ("finished", "stopped", "diverged", "constraint", "failed", "interrupted")}


def outcome_of(trial: TrialRecord, max_epochs: int) -> str:
    """The outcome of a trial of at most `max_epochs` epochs: a key of `outcomes`."""
    if trial.state == TrialState.RUNNING:
        return "interrupted"
    if trial.outcome in {"diverged", "constraint"}:
        return trial.outcome
    if trial.state == TrialState.FAIL:
        return "failed"
    return "finished" if trial.last_epoch >= max_epochs else "stopped"


def word_of(trial: TrialRecord, max_epochs: int) -> str:
    """`outcome_of`, or 'unfinished' for a trial without an end: it runs, waits, or was interrupted."""
    outcome = outcome_of(trial, max_epochs)
    return "unfinished" if outcome == "interrupted" else outcome


def summarise(
    experiment: Experiment,
    spec: SearchSpec,
    trials: list[TrialRecord],
    best: Best | None,
    recipe: Best | None,
    *,
    seconds: float,
    data_fingerprint: str,
) -> Summary:
    """The summary of a search before its retraining."""
    return Summary(
        name=experiment.name,
        complete=False,
        objective=spec.plan.objective.plain,
        trials=len(trials),
        outcomes=outcomes(trials, spec.plan.scheduler.max_epochs),
        retried=sum(trial.retries > 0 for trial in trials),
        epochs=sum(len(trial.epochs) for trial in trials),
        best=_best_summary(experiment, best) if best else None,
        recipe=_best_summary(experiment, recipe) if recipe else None,
        beyond_recipe=None,
        retrained=None,
        baselines=None,
        seconds=round(seconds, 1),
        versions=versions(),
        seeds={"search": spec.plan.search.seed, "trials": spec.plan.search.seed},
        data=spec.data_path,
        data_fingerprint=data_fingerprint,
    )


def with_measurements(summary: Summary, earlier: Summary | None) -> Summary:
    """The summary of more trials, with what the earlier one says of networks that are still there."""
    if earlier is None:
        return summary
    kept: dict[str, object] = {"retrained": earlier.retrained, "baselines": earlier.baselines}
    if all(
        (before and (before.trial, before.epoch)) == (now and (now.trial, now.epoch))
        for before, now in ((earlier.best, summary.best), (earlier.recipe, summary.recipe))
    ):
        kept |= {"best": earlier.best, "recipe": earlier.recipe, "beyond_recipe": earlier.beyond_recipe}
    return summary.model_copy(update=kept)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect results."""
    return {"python": platform.python_version()} | {name: metadata.version(name) for name in _VERSIONED}


def _best_summary(experiment: Experiment, best: Best) -> TrialSummary:
    return TrialSummary(
        trial=best.trial.number,
        recipe=best.trial.recipe or None,
        epoch=best.epoch.epoch,
        score=best.epoch.score,
        value=best.epoch.value,
        config=best.trial.config_as_run,
        metrics=dict(best.epoch.metrics),
        checkpoint=experiment.relative(best.checkpoint),
    )


def _candidates(experiment: Experiment, trials: Iterable[TrialRecord]) -> list[Best]:
    """The trials at their best epoch with a checkpoint, best first.

    Trials without a configuration, which a damaged journal can lose, are left out.
    """
    found = []
    for trial in trials:
        epoch = trial.best_kept(experiment)
        if epoch is not None and epoch.checkpoint is not None and epoch.rank > -math.inf and trial.config:
            found.append(Best(trial=trial, epoch=epoch, checkpoint=experiment.root / epoch.checkpoint))
    return sorted(found, key=lambda best: (-best.epoch.rank, best.trial.number))


def _load(experiment: Experiment, checkpoint: Path) -> None:
    """Fetch a checkpoint that is in a remote storage, and load it for its errors."""
    from trainable.loop.checkpoint import check_loads  # imports torch

    check_loads(experiment.checkpoints.fetch(checkpoint))
