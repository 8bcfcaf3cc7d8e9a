"""Exported checkpoints: weights, configuration, metrics, images and a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.dataset.partial import partial_directory, replace_directory, unwritable
from data.disk import disk_error
from data.errors import InputError
from search.results.model_card import INTENDED_USE, LIMITS, Facts, data_section, training_section
from trainable.loop.checkpoint_files import (
    CHECKSUMS,
    CONFIG,
    METRICS,
    PICTURES,
    WEIGHTS,
    Origin,
    load_origin,
    seal,
    source_of,
    verify,
)
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.objective import SCORE, Objective

CARD = "README.md"
TABLE_METRICS = ("score", "mask_iou", "mask_rmse", "depth_delta1", "depth_rmse")
"""Metrics of the model card; metrics.json has all of them."""


def export_checkpoint(
    checkpoint: Path,
    destination: Path,
    *,
    metrics: Mapping[str, Any],
    title: str,
    pictures: Path | None = None,
    source: Mapping[str, object] | None = None,
    facts: Facts | None = None,
) -> None:
    """Export a checkpoint with its metrics and a model card; atomically replaces an earlier export.

    Args:
        checkpoint: directory with weights and configuration.
        destination: directory to create.
        metrics: by split ('val', 'test'), those of the baselines under 'baselines', and under 'intervals' those of the
            test metrics, with `low` and `high`.
        title: heading of the card.
        pictures: a PNG file with predictions; default: that of the checkpoint.
        source: the `search` and the `trial` of the checkpoint, as JSON values.
        facts: what the card says beyond the checkpoint.

    Raises:
        InputError: if the destination has other files or cannot be written, or the checkpoint is damaged.
        DiskError: for a fault of the disk.
    """
    verify(checkpoint)
    with _beside(destination) as beside:
        for name in (WEIGHTS, CONFIG):
            shutil.copy2(checkpoint / name, beside / name)
        pictures = pictures or checkpoint / PICTURES
        if pictures.is_file():
            shutil.copy2(pictures, beside / PICTURES)
        (beside / METRICS).write_text(json.dumps(dict(metrics), indent=2) + "\n", encoding="utf-8")
        card = model_card(load_origin(checkpoint), metrics, title, beside / PICTURES, facts or Facts())
        (beside / CARD).write_text(card, encoding="utf-8")
        seal(beside, source)


def copy_export(checkpoint: Path, destination: Path) -> None:
    """Copy an export to another directory.

    Raises:
        InputError: if the destination has other files or cannot be written.
        DiskError: for a fault of the disk.
    """
    with _beside(destination) as beside:
        shutil.copytree(checkpoint, beside, dirs_exist_ok=True)


def refuse_other_files(destination: Path) -> Path:
    """Refuse a destination that an export must not replace, before any work is done.

    Returns:
        The destination with symbolic links resolved.

    Raises:
        InputError: if it has other files, is the working directory, or cannot be written to.
    """
    resolved = destination.resolve()
    if resolved == Path.cwd():
        raise InputError(f"The directory '{destination}' is the working directory; give --out a directory below it.")
    if resolved.is_file():
        raise InputError(f"'{destination}' is a file; give --out an empty or a new directory.")
    if resolved.exists() and not _is_export(resolved):
        raise InputError(f"There are other files in '{destination}'; give --out an empty or a new directory.")
    if error := unwritable(resolved):
        raise _unwritable(destination, error)
    return resolved


def refuse_other_source(destination: Path, source: Mapping[str, object]) -> None:
    """Refuse to replace the export of another network.

    Args:
        destination: a new or empty directory, or an export.
        source: of the network, as `export_checkpoint` stores it.

    Raises:
        InputError: if the destination has the export of another network.
    """
    found = source_of(destination)
    if not has_files(destination) or found == source:
        return
    trial = "the retrained network" if found.get("trial") is None else f"trial {found['trial']}"
    which = f"{trial} of '{found['search']}'" if "search" in found else "another network"
    raise InputError(f"The directory '{destination}' has {which}; give --out another directory, or remove it.")


def has_files(directory: Path) -> bool:
    """Whether a directory exists and is not empty."""
    return directory.is_dir() and any(directory.iterdir())


def table_metrics(objective: Objective = SCORE) -> tuple[str, ...]:
    """The metrics of a table: the objective, and those of `TABLE_METRICS`."""
    return tuple(dict.fromkeys((objective.key, *TABLE_METRICS)))


def metrics_table(
    columns: Mapping[str, Mapping[str, float]],
    objective: Objective = SCORE,
    intervals: Mapping[str, Mapping[str, Mapping[str, float | None]]] | None = None,
) -> str:
    """A Markdown table: a row per metric of `table_metrics`, a column per entry of `columns`; '–' for no value.

    Args:
        columns: values by metric, by heading.
        objective: of the search.
        intervals: `low` and `high` by metric, by heading, for those with intervals.
    """

    def cell(heading: str, name: str) -> str:
        values, interval = columns[heading], (intervals or {}).get(heading, {}).get(name, {})
        low, high = interval.get("low"), interval.get("high")
        between = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
        return f"{values[name]:.4f}{between}" if name in values else "–"

    rows = [
        f"| {name} | {' | '.join(cell(heading, name) for heading in columns)} |" for name in table_metrics(objective)
    ]
    return "\n".join((f"| metric | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *rows))


def baseline_metrics(baselines: Mapping[str, Mapping[str, float]], objective: Objective = SCORE) -> dict[str, float]:
    """Both baselines as one prediction: the threshold's mask, the mean's depth, their score and the objective."""
    both = {**baselines["mask_threshold"], **baselines["depth_mean"]}
    return objective.with_value({"score": (both["mask_iou"] + both["depth_delta1"]) / 2, **both})


def verdict(
    metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]], objective: Objective = SCORE
) -> list[str]:
    """A sentence for each metric of a network that is no better than its baseline, and for the objective."""
    baseline = baseline_metrics(baselines, objective)
    names = {
        objective.key: "by the objective, the network is no better than the baselines",
        OBJECTIVE: "overall, the network is no better than the baselines",
        "mask_iou": "the mask is no better than a threshold on the difference of the two images",
        "depth_delta1": "the depth is no better than the mean depth of the training images",
    }
    return [
        f"{said}: {name} {metrics[name]:.4f} against {baseline[name]:.4f}"
        for name, said in names.items()
        if name in metrics and name in baseline and not _is_better(name, metrics[name], baseline[name], objective)
    ]


def _is_better(name: str, value: float, baseline: float, objective: Objective) -> bool:
    """Of the metrics of `verdict`, smaller is better in an objective alone."""
    return value < baseline if name == objective.key and objective.sign < 0 else value > baseline


def model_card(origin: Origin, metrics: Mapping[str, Any], title: str, pictures: Path, facts: Facts) -> str:
    """The model card as Markdown: intended use, usage, metrics, data, training and limits."""
    fitted = "resized to" if origin.config.data.fit == "stretch" else "resized, with a grey border, to"
    size, objective = " × ".join(map(str, origin.config.data.sides)), facts.objective
    columns: dict[str, Mapping[str, float]] = {}
    if "baselines" in metrics:
        columns["without a network"] = baseline_metrics(metrics["baselines"], objective)
    for part, heading in (("val", "this network, validation"), ("test", "this network, test")):
        if part in metrics:
            columns[heading] = metrics[part]
    intervals = {"this network, test": metrics["intervals"]} if "intervals" in metrics else {}
    shown = f"\n![Predictions on images it was not trained on]({PICTURES})\n" if pictures.is_file() else ""
    without = notes = picked = ""
    if objective != SCORE:
        better = "larger" if objective.sign > 0 else "smaller"
        meant = objective.name if objective.key == objective.name else f"{objective.key} = {objective.name}"
        picked = f"The search picked by `{meant}` on the validation images; {better} is better.\n"
    if "baselines" in metrics:
        measured, where = ("test", "test") if "test" in metrics else ("val", "validation")
        without = (
            "Without a network, the mask is a threshold on the difference of the two images, and the depth is the mean "
            f"depth of the\ntraining images; both are measured on the {where} images. "
        )
        said = verdict(metrics[measured], metrics["baselines"], objective)
        notes = "".join(f"\nNote: {sentence}.\n" for sentence in said)
    return f"""# {title}

A dual-head network. Its inputs are an image of a background and an image of the same background with a foreground. It
predicts the mask of the foreground and the depth of the scene.
{shown}
{INTENDED_USE}
## Use

    twinhead predict . --bg bg.jpg --fg-bg fg_bg.jpg --out out/
    twinhead export . --format onnx --out model.onnx

Images are {fitted} {size} pixels (height × width) for the network, and predictions are resized back. The mask is a
probability. Depth is relative within an image; far is bright.

## Metrics

{metrics_table(columns, objective, intervals)}

{picked}{without}`mask_iou` is the mean over images, `depth_delta1` the share
of pixels within a factor of 1.25, and `score` the mean of the two.{
        " In brackets are 95 % intervals over backgrounds." if intervals else ""
    }
{notes}
{data_section(origin, facts)}
{training_section(origin, facts)}
{LIMITS}"""


@contextmanager
def _beside(destination: Path) -> Iterator[Path]:
    """A temporary directory that replaces the destination at the end, unless that has other files."""
    resolved = refuse_other_files(destination)
    try:
        with partial_directory(resolved) as beside:
            yield beside
            replace_directory(beside, resolved)
    except (OSError, shutil.Error) as error:  # copying a tree has an error of its own
        raise disk_error(error, resolved) or _unwritable(destination, error) from None


def _unwritable(destination: Path, error: OSError | shutil.Error) -> InputError:
    return InputError(f"Nothing can be written to '{destination}' ({error}); give another directory.")


def _is_export(directory: Path) -> bool:
    """Whether a directory has no other files than those of an export."""
    names = {WEIGHTS, CONFIG, METRICS, PICTURES, CHECKSUMS, CARD}
    return directory.is_dir() and all(path.name in names for path in directory.iterdir())
