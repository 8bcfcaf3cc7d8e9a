"""A checkpoint as it is handed to somebody else: weights, configuration, metrics and a model card, and nothing more."""

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
from trainable.loop.checkpoint import (
    CHECKSUMS,
    CONFIG,
    METRICS,
    PICTURES,
    WEIGHTS,
    Origin,
    load_origin,
    seal,
    verify,
)
from trainable.metrics.names import OBJECTIVE

CARD = "README.md"
SHOWN = ("score", "mask_iou", "mask_rmse", "depth_delta1", "depth_rmse")
"""Metrics that a table shows; all of them are in metrics.json."""


def hand_over(
    checkpoint: Path,
    destination: Path,
    *,
    metrics: Mapping[str, Any],
    title: str,
    pictures: Path | None = None,
    source: Mapping[str, Any] | None = None,
) -> None:
    """Copy a checkpoint to `destination`, with `metrics` and a card; it appears there whole, and replaces what was.

    Args:
        checkpoint: directory with weights and configuration.
        destination: directory to make.
        metrics: by part ('val', 'test') and, under 'baselines', what needs no network.
        title: the card's heading.
        pictures: a PNG file with predictions; the checkpoint's own when left out.
        source: the `search` and the `trial` that it comes from, as JSON values.

    Raises:
        InputError: if there is something else at the destination, it cannot be written, or the checkpoint is damaged.
    """
    verify(checkpoint)
    with _beside(destination) as beside:
        for name in (WEIGHTS, CONFIG):
            shutil.copy2(checkpoint / name, beside / name)
        pictures = pictures or checkpoint / PICTURES
        if pictures.is_file():
            shutil.copy2(pictures, beside / PICTURES)
        (beside / METRICS).write_text(json.dumps(dict(metrics), indent=2) + "\n", encoding="utf-8")
        card = model_card(load_origin(checkpoint), metrics, title, beside / PICTURES)
        (beside / CARD).write_text(card, encoding="utf-8")
        seal(beside, source)


def copy_out(checkpoint: Path, destination: Path) -> None:
    """Copy what `hand_over` made to a directory of the user's.

    Raises:
        InputError: if there is something else at the destination, or it cannot be written.
    """
    with _beside(destination) as beside:
        shutil.copytree(checkpoint, beside, dirs_exist_ok=True)


def refuse_other_files(destination: Path) -> Path:
    """Refuse a destination that a hand-over must not replace, before the work begins that leads to one.

    Returns:
        The destination with its links followed.

    Raises:
        InputError: if there is something else, it is the working directory, or its parent cannot be written to.
    """
    place = destination.resolve()
    if place == Path.cwd():
        raise InputError(f"The directory '{destination}' is where the command runs; give --out one within it.")
    if place.exists() and not _is_ours(place):
        raise InputError(f"There are other files at '{destination}'; give --out an empty or a new directory.")
    if error := unwritable(place):
        raise _unwritable(destination, error)
    return place


def metrics_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table: a row a metric of `SHOWN`, a column for each of `columns`; '–' where one has none."""
    rows = [
        f"| {name} | "
        + " | ".join(f"{values[name]:.4f}" if name in values else "–" for values in columns.values())
        + " |"
        for name in SHOWN
    ]
    return "\n".join((f"| metric | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *rows))


def baseline_metrics(baselines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Both baselines as one prediction: the threshold's mask, the mean's depth, and their score."""
    both = {**baselines["mask_threshold"], **baselines["depth_mean"]}
    return {"score": (both["mask_iou"] + both["depth_delta1"]) / 2, **both}


def verdict(metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A sentence for each figure of a network that loses to its baseline."""
    baseline = baseline_metrics(baselines)
    names = {
        OBJECTIVE: "on the whole it loses to what takes no network",
        "mask_iou": "the mask loses to a threshold on the difference of the two pictures",
        "depth_delta1": "the depth loses to the mean depth of the training pictures",
    }
    return [
        f"{said}: {name} {metrics[name]:.4f} against {baseline[name]:.4f}"
        for name, said in names.items()
        if not metrics[name] > baseline[name]
    ]


def model_card(origin: Origin, metrics: Mapping[str, Any], title: str, pictures: Path) -> str:
    """What somebody must know who is given these weights, as Markdown."""
    config, model, size = origin.config, origin.config.model, origin.config.data.image_size
    columns: dict[str, Mapping[str, float]] = {}
    if "baselines" in metrics:
        columns["without a network"] = baseline_metrics(metrics["baselines"])
    for part, heading in (("val", "this network, validation"), ("test", "this network, test")):
        if part in metrics:
            columns[heading] = metrics[part]
    shown = f"\n![Predictions on pictures it was not trained on]({PICTURES})\n" if pictures.is_file() else ""
    where = "test" if "test" in metrics else "validation"
    measured = "test" if "test" in metrics else "val"
    said = verdict(metrics[measured], metrics["baselines"]) if "baselines" in metrics else []
    notes = "".join(f"\nNote: {sentence}.\n" for sentence in said)
    return f"""# {title}

A dual-head network: from a picture of a background and a picture of the same background with something in front of
it, it predicts the mask of what stands there and the depth of the scene.
{shown}
## Use

    twinhead predict . --bg bg.jpg --fg-bg fg_bg.jpg --out out/

Pictures are resized to {size} × {size} pixels for the network, and its answers back to their size. The mask is a
probability; depth is relative within the picture, and far is bright.

## How good it is

{metrics_table(columns)}

Without a network, the mask is a threshold on the difference of the two pictures, and the depth is the mean depth of the
training pictures; both are measured on the {where} pictures. `mask_iou` is the mean over pictures, `depth_delta1` the
share of pixels within a factor of 1.25, and `score` the mean of the two.
{notes}

## How it was made

Family `{model.family}`, width {model.width}, {model.precision}; {origin.epoch} of {config.epochs} epochs on the data
set with fingerprint `{origin.data_fingerprint}`. `{CONFIG}` has the whole configuration, `{METRICS}` every metric.

## Limits

It knows scenes like those it was trained on, and nothing else; its depth has no unit. Look at its answers on pictures
of your own before you rely on them.
"""


@contextmanager
def _beside(destination: Path) -> Iterator[Path]:
    """A directory to fill, which then takes the destination's place; what is not a hand-over is left alone."""
    place = refuse_other_files(destination)
    try:
        with partial_directory(place) as beside:
            yield beside
            replace_directory(beside, place)
    except (OSError, shutil.Error) as error:  # copying a tree has an error of its own
        raise disk_error(error, place) or _unwritable(destination, error) from None


def _unwritable(destination: Path, error: OSError | shutil.Error) -> InputError:
    return InputError(f"Nothing can be written to '{destination}' ({error}); give another directory.")


def _is_ours(directory: Path) -> bool:
    """Whether a directory holds nothing but what a hand-over writes."""
    names = {WEIGHTS, CONFIG, METRICS, PICTURES, CHECKSUMS, CARD}
    return directory.is_dir() and all(path.name in names for path in directory.iterdir())
