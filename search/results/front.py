"""The Pareto front of a search: the trials that no other trial dominates.

A trial is represented by the epoch whose checkpoint is kept, which is the best one by the first objective of the
search. So every trial on the front can be exported.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.errors import InputError
from search.results.summary import find_best
from search.spec.costs import COSTS
from search.spec.objectives import MILLISECONDS, known_costs
from search.strategy.pareto import non_dominated
from search.study.experiment import Experiment
from search.study.study import open_study
from search.study.summary import FrontRow
from search.study.trials import EpochRecord, TrialRecord, trial_records
from trainable.config.settings import flatten
from trainable.metrics.objective import Notation, Objective

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True)
class Point:
    """A trial by its objectives."""

    trial: TrialRecord
    epoch: EpochRecord
    values: dict[str, float]
    """By the name of the objective, without its sign."""
    on_front: bool = False

    @property
    def row(self) -> FrontRow:
        """As the summary holds it."""
        model = self.trial.config["model"]
        return FrontRow(
            trial=self.trial.number,
            recipe=self.trial.recipe or None,
            family=model["family"],
            width=model["width"],
            epoch=self.epoch.epoch,
            objectives=self.values,
            checkpoint=self.epoch.checkpoint,
        )


def front_of(experiment: Experiment, objectives: Sequence[Notation] | None = None) -> list[Point]:
    """All trials of a search that have a network, with those on the front marked; see `points_of`.

    Args:
        experiment: a search.
        objectives: default: those of the search.

    Raises:
        InputError: if there is no such search, none of its trials has a network, or an objective was not measured.
    """
    spec = experiment.spec()
    trials = trial_records(open_study(experiment), spec.plan.objective)
    points = points_of(experiment, trials, objectives or spec.plan.objectives)
    if not points:
        raise InputError(
            f"The search '{experiment.name}' has no trial with a network yet; {experiment.how_to_continue()}."
        )
    return points


def front_rows(experiment: Experiment, trials: Iterable[TrialRecord], objectives: Sequence[Notation]) -> list[FrontRow]:
    """The points on the front; see `points_of`."""
    return [point.row for point in points_of(experiment, trials, objectives) if point.on_front]


def points_of(experiment: Experiment, trials: Iterable[TrialRecord], objectives: Sequence[Notation]) -> list[Point]:
    """The trials that have a checkpoint and finite objectives, the best by the first objective first.

    Args:
        experiment: a search.
        trials: of the search.
        objectives: such as 'score' and '-macs'.

    Raises:
        InputError: if an objective was not measured.
    """
    compared = [Objective.of(each) for each in objectives]
    points = []
    for trial in trials:
        epoch = trial.best_kept(experiment) if trial.config else None
        values = _values(experiment, trial, epoch, compared) if epoch is not None else {}
        if epoch is not None and all(map(math.isfinite, values.values())):
            points.append(Point(trial=trial, epoch=epoch, values=values))
    points.sort(
        key=lambda point: (
            *(-objective.oriented(point.values[objective.name]) for objective in compared),
            point.trial.number,
        )
    )
    return _with_front(experiment, points, compared)


def shown(value: float) -> str:
    """A number with four significant digits, and k, M or G for thousands and more."""
    for unit, letter in UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.4g} {letter}"
    return f"{value:.4g}"


def _with_front(experiment: Experiment, points: list[Point], compared: Sequence[Objective]) -> list[Point]:
    """The points with those on the front marked; a point on the front whose checkpoint does not load is left out."""
    while points:
        oriented = np.array(
            [[objective.oriented(point.values[objective.name]) for objective in compared] for point in points]
        )
        kept = non_dominated(oriented)
        marked = [replace(point, on_front=bool(is_kept)) for point, is_kept in zip(points, kept, strict=True)]
        sound = [point for point in marked if not point.on_front or find_best(experiment, [point.trial]) is not None]
        if len(sound) == len(points):
            return sound
        points = sound
    return points


def _values(
    experiment: Experiment, trial: TrialRecord, epoch: EpochRecord, compared: Sequence[Objective]
) -> dict[str, float]:
    """The value of each objective, by its name."""
    known = known_costs([objective.plain for objective in compared], flatten(trial.config))
    values = {}
    for objective in compared:
        name = objective.name
        if name not in known and not objective.is_in(epoch.metrics):
            others = ", ".join(sorted({*epoch.metrics, *COSTS}))
            advice = (
                "search with --set objectives='[score, -ms_per_picture]'" if name == MILLISECONDS else f"give {others}"
            )
            raise InputError(f"Trial {trial.number} of '{experiment.name}' did not measure '{name}'; {advice}.")
        values[name] = known[name] if name in known else objective.value(epoch.metrics)
    return values
