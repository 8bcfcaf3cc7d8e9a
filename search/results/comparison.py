"""A comparison of recipes as typed values, and the sentences about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from data.fitting.sizes import size_text
from search.results.export import baseline_metrics
from trainable.metrics.bootstrap import Interval

BASELINES = {"mask_threshold": "a threshold on the difference", "depth_mean": "the mean depth"}
"""The baselines without a network, and their names in tables."""
FINISHED = "finished"
"""The outcome of a training that ran for all its epochs."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A metric that a comparison shows."""

    key: str
    """Key in `Row.figures`."""
    title: str
    group: str
    """The project that published the metric, or the images that Twinhead's own metrics are measured on."""
    better: Literal["higher", "lower"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """A recipe with the outcome of its training and its metrics."""

    recipe: str
    source: str
    faithful: bool
    family: str
    width: int
    losses: str
    optimizer: str
    policy: str
    parameters: int
    macs: int
    """Multiply-adds for one pair of images."""
    batch_size: int
    precision: str
    """Of the forward pass; '' if it is unknown."""
    outcome: str
    reason: str
    """Why the training did not finish; '' if it did."""
    epoch: int | None
    """The best epoch on validation; None without a checkpoint."""
    seconds: float | None
    figures: Mapping[str, Interval] | None
    """By the key of a column; None without a network."""
    pictures: str | None
    """A PNG file, relative to the experiment."""
    optimizer_steps: int
    """Of the whole training."""

    @property
    def label(self) -> str:
        """The name of the recipe, with the outcome if the training did not finish."""
        return self.recipe if self.outcome == FINISHED else f"{self.recipe} ({self.outcome})"

    def figure(self, key: str) -> Interval | None:
        """A metric; None if it is missing or NaN."""
        found = (self.figures or {}).get(key)
        return None if found is None or math.isnan(found.value) else found

    def as_plain(self) -> dict[str, object]:
        """As JSON values, with None for NaN."""
        figures = None if self.figures is None else {key: found.as_plain() for key, found in self.figures.items()}
        return asdict(self) | {"figures": figures}


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The size of the test split."""

    pictures: int
    backgrounds: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Recipes trained on the same samples and measured on the same test images."""

    name: str
    data: str
    data_fingerprint: str
    image_size: int | list[int]
    epochs: int
    seed: int
    complete: bool
    samples: Mapping[str, int]
    """Number in each split."""
    samples_seen: int
    """By each training in total."""
    test: HeldOut
    notes: Sequence[str]
    columns: Sequence[Column]
    rows: Sequence[Row]
    baselines: Mapping[str, Mapping[str, float]]
    versions: Mapping[str, str]
    seconds: float

    def as_plain(self) -> dict[str, object]:
        """As JSON values, for `comparison.json`."""
        return asdict(self) | {"rows": [row.as_plain() for row in self.rows]}

    @property
    def sorted_rows(self) -> list[Row]:
        """Rows by score, best first; rows without a score last."""

        def sort_key(row: Row) -> float:
            score = row.figure("score")
            return 1.0 if score is None else -score.value

        return sorted(self.rows, key=sort_key)

    @property
    def groups(self) -> dict[str, list[Column]]:
        """Columns by group, in order."""
        found: dict[str, list[Column]] = {}
        for column in self.columns:
            found.setdefault(column.group, []).append(column)
        return found

    @property
    def baseline_score(self) -> float:
        """The score of the two baselines together."""
        return baseline_metrics(self.baselines)["score"]

    def best_value(self, column: Column) -> float | None:
        """The best value of a column; None if there is none, or if several rows have it."""
        known = [found.value for row in self.rows if (found := row.figure(column.key)) is not None]
        if not known:
            return None
        best = max(known) if column.better == "higher" else min(known)
        return best if known.count(best) == 1 else None


def summary_of(comparison: Comparison) -> str:
    """A paragraph about the data and the training of a comparison."""
    samples, test = comparison.samples, comparison.test
    return (
        f"Every recipe was trained for {comparison.epochs} epochs on {samples['train']:,} samples of "
        f"{comparison.data} at {size_text(comparison.image_size)} px, {comparison.samples_seen:,} samples in all. The "
        f"best epoch on {samples['val']:,} validation samples was measured on {test.pictures:,} test images "
        f"of {test.backgrounds:,} backgrounds. Intervals are 95 % of a bootstrap over backgrounds, of one seed."
        f"{_faithfulness(comparison.rows)}"
    )


def below_baselines(comparison: Comparison) -> str:
    """A sentence that names the recipes with a score no better than the baselines; '' if there are none."""
    without = comparison.baseline_score
    names = [
        row.recipe
        for row in comparison.sorted_rows
        if row.figures and ((score := row.figure("score")) is None or not score.value > without)
    ]
    return f"Not better than without a network (score {without:.3f}): {', '.join(names)}." if names else ""


def provenance(comparison: Comparison) -> str:
    """The data, seed and versions that are needed to repeat the comparison."""
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    said = f"Data set with fingerprint {comparison.data_fingerprint}, seed {comparison.seed}"
    return f"{said}; {versions}." if versions else f"{said}."


def unfinished(rows: Sequence[Row]) -> list[str]:
    """A sentence for each unfinished training: its outcome, the reason, and the measured epoch."""
    said = []
    for row in rows:
        if row.outcome == FINISHED:
            continue
        reason = f": {row.reason}" if row.reason else ""
        measured = f" (its metrics are of epoch {row.epoch})" if row.figures else ""
        said.append(f"{row.recipe} {row.outcome}{reason}{measured}")
    return said


def _faithfulness(rows: Sequence[Row]) -> str:
    faithful = [row.recipe for row in rows if row.faithful]
    if not faithful:
        return ""
    whose = "every recipe" if len(faithful) == len(rows) else ", ".join(faithful)
    return f" Published errors are reproduced in {whose}."
