"""The networks of a search on the same images: metrics with intervals, and paired differences.

The test images were measured when the best configuration was retrained (`measured/` of the experiment). What is missing
there, as in an experiment of an earlier version, is measured now, if the data set can be read. A search without a
retraining is measured on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from data.dataset.dataset import Dataset
from data.errors import InputError
from search.report.findings import Findings
from search.results.export import baseline_metrics
from search.study.paths import MEASURED
from trainable.evaluation.evaluate import baseline_images, evaluate_images, fit_baselines_on
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.loaders import background_ids
from trainable.metrics.bootstrap import Difference, Interval, differences, intervals
from trainable.metrics.objective import Objective
from trainable.metrics.per_image import ImageFigures, figures

Part = Literal["test", "val"]
ORDER = ("retrained", "best", "recipe", "baselines")
"""Of the rows: the result first."""
UNKNOWN = Interval(value=math.nan, low=math.nan, high=math.nan)


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, or the baselines without one."""

    key: str
    """One of `MEASURED`."""
    label: str
    metrics: Mapping[str, Interval]
    """The bounds are NaN where only the values are known, as is the objective if it was not measured."""
    table: ImageFigures | None
    """By image; None if it could not be measured."""
    checkpoint: Path | None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The trials that are measured: those of the summary after a retraining, else those of the study."""

    trial: int | None
    """Number of the best one."""
    recipe_trial: int | None
    """Number of the best recipe that ran for all epochs."""
    recipe: str
    """Its name; '' without one."""

    @property
    def is_recipe(self) -> bool:
        """Whether the best trial is the best recipe."""
        return self.trial is not None and self.trial == self.recipe_trial


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The networks of a search on the same images."""

    part: Part
    objective: Objective
    """Of the search."""
    networks: list[Network]
    """In the order `ORDER`; those that exist."""
    chosen: Chosen
    data: TrialData | None
    """The data set; None if it cannot be read."""
    problems: list[str]

    def network(self, key: str) -> Network | None:
        """The network with a key; None if there is none."""
        return next((network for network in self.networks if network.key == key), None)

    @property
    def result(self) -> Network | None:
        """The network that the search delivers: the retrained one, else the best trial's."""
        return self.network("retrained") or self.network("best")

    @property
    def backgrounds(self) -> int:
        """Number of backgrounds of the measured images; 0 if no image was measured."""
        table = self.result.table if self.result else None
        return len(set(table.bg_ids)) if table else 0

    @property
    def images(self) -> int:
        """Number of measured images."""
        table = self.result.table if self.result else None
        return len(table.bg_ids) if table else 0

    def differences(self, one: str, other: str) -> dict[str, Difference]:
        """Paired differences of two networks by metric; empty if one of them was not measured by image."""
        a, b = self.network(one), self.network(other)
        return paired(a.table if a else None, b.table if b else None, self.objective)


def paired(one: ImageFigures | None, other: ImageFigures | None, objective: Objective) -> dict[str, Difference]:
    """The differences of two tables of the same images, with 95 % intervals; empty if there are no such tables.

    They are those of `trainable.metrics.bootstrap.differences`.
    """
    if one is None or other is None:
        return {}
    try:
        return differences(one, other, objective)
    except ValueError:  # other images
        return {}


def answer_of(findings: Findings, say: Callable[[str], None]) -> Answer:
    """Load or measure the networks of a search.

    Args:
        findings: of the search.
        say: callback for a message before something is measured.
    """
    summary, problems = findings.summary, []
    part: Part = "test" if summary is not None and summary.retrained is not None else "val"
    chosen = _chosen(findings, part)
    tables: dict[str, ImageFigures] = {}
    for key in MEASURED if part == "test" else ():
        file = findings.experiment.measured(key)
        if file.is_file():
            try:
                tables[key] = ImageFigures.load(file)
            except InputError as error:
                problems.append(str(error))
    checkpoints = _checkpoints(findings, part, chosen, problems)
    data = _data(findings, problems)
    if data is not None and checkpoints and tables:
        expected = background_ids(load_origin(next(iter(checkpoints.values()))).config.data, data, part)
        for key in [key for key, table in tables.items() if table.bg_ids != expected]:
            del tables[key]
            problems.append(f"The file '{findings.experiment.measured(key)}' is of other images, and is not used.")
    missing = [key for key in ("baselines", *checkpoints) if key not in tables]
    if missing and data is not None and checkpoints:
        say(f"measuring {', '.join(map(_noun, missing))} on the {_words(part)} images")
        for key in missing:
            try:
                tables[key] = _measure(key, checkpoints, data, part)
            except InputError as error:
                problems.append(str(error))
    if any(not findings.objective.is_in(figures(table)) for table in tables.values()):
        problems.append(
            f"The objective {findings.objective.name} was not measured on the {_words(part)} images; give the file of "
            "its plugin by --plugins."
        )
    labels = {
        "retrained": "retrained network",
        "best": f"best trial ({chosen.trial})",
        "recipe": f"best recipe ({chosen.recipe})",
        "baselines": "without a network",
    }
    networks = [
        Network(key=key, label=labels[key], metrics=metrics, table=tables.get(key), checkpoint=checkpoints.get(key))
        for key in ORDER
        if not (key == "recipe" and chosen.is_recipe) and (metrics := _metrics(key, findings, part, tables.get(key)))
    ]
    return Answer(
        part=part,
        objective=findings.objective,
        networks=networks,
        chosen=chosen,
        data=data,
        problems=problems,
    )


def _chosen(findings: Findings, part: Part) -> Chosen:
    best, recipe, summary = findings.best, findings.recipe, findings.summary
    if part == "test" and summary is not None:
        measured = summary.recipe
        return Chosen(
            trial=summary.best.trial if summary.best else None,
            recipe_trial=measured.trial if measured else None,
            recipe=(measured.recipe if measured else None) or "",
        )
    return Chosen(
        trial=best.trial.number if best else None,
        recipe_trial=recipe.trial.number if recipe else None,
        recipe=recipe.trial.recipe if recipe else "",
    )


def _checkpoints(findings: Findings, part: Part, chosen: Chosen, problems: list[str]) -> dict[str, Path]:
    """The checkpoints of the networks that load, by key, the result first."""
    best, recipe = findings.best, findings.recipe
    experiment, found = findings.experiment, {}
    if part == "test":
        try:
            load_model(experiment.checkpoints.fetch(experiment.retrained))
            found["retrained"] = experiment.retrained
        except InputError as error:
            problems.append(str(error))
    if best is not None and best.trial.number == chosen.trial:
        found["best"] = best.checkpoint
    if recipe is not None and recipe.trial.number == chosen.recipe_trial and not chosen.is_recipe:
        found["recipe"] = recipe.checkpoint
    return found


def _data(findings: Findings, problems: list[str]) -> TrialData | None:
    try:
        dataset = Dataset.open(findings.spec.data_path)
    except InputError as error:
        problems.append(f"The data set cannot be read: {error}")
        return None
    fingerprint = dataset.info.fingerprint
    expected = findings.summary.data_fingerprint if findings.summary else ""
    if expected and expected != fingerprint:
        problems.append(
            f"The data set '{dataset.path}' changed since the search (fingerprint {fingerprint[:12]}, then "
            f"{expected[:12]}), so that nothing is measured on it."
        )
        return None
    return TrialData(path=str(dataset.path.absolute()), fingerprint=fingerprint)


def _measure(key: str, checkpoints: Mapping[str, Path], data: TrialData, part: Part) -> ImageFigures:
    if key != "baselines":
        return evaluate_images(checkpoints[key], data, part, device=torch.device("cpu"))
    config = load_origin(next(iter(checkpoints.values()))).config.data
    return baseline_images(config, data, part, fit_baselines_on(config, data))


def _metrics(key: str, findings: Findings, part: Part, table: ImageFigures | None) -> dict[str, Interval]:
    """The metrics of a row; empty if there is no such network, or nothing is known of it."""
    if table is not None:
        metrics = intervals(table, findings.objective)
    else:
        known = findings.objective.with_value(_known_metrics(key, findings, part))
        metrics = {name: Interval(value=value, low=math.nan, high=math.nan) for name, value in known.items()}
    if metrics:
        metrics.setdefault(findings.objective.key, UNKNOWN)
    return metrics


def _known_metrics(key: str, findings: Findings, part: Part) -> dict[str, float]:
    """The values in the summary, or in the study."""
    summary = findings.summary
    if part == "val":
        trial = {"best": findings.best, "recipe": findings.recipe}.get(key)
        return dict(trial.epoch.metrics) if trial else {}
    if summary is None:
        return {}
    if key == "baselines":
        return baseline_metrics(summary.baselines, findings.objective) if summary.baselines else {}
    if key == "retrained":
        return dict(summary.retrained.metrics) if summary.retrained else {}
    found = summary.best if key == "best" else summary.recipe
    return dict(found.test) if found else {}


def _noun(key: str) -> str:
    nouns = {"baselines": "the baselines", "retrained": "the retrained network", "recipe": "the best recipe"}
    return nouns.get(key, "the best trial")


def _words(part: Part) -> str:
    return "test" if part == "test" else "validation"
