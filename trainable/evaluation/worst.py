"""Metrics of each image of a part, and its worst predictions."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from data.atomic import replacing
from data.grids import image_grid, save_png
from trainable.evaluation.evaluate import evaluate_images, predict_images
from trainable.evaluation.grid import COLUMNS
from trainable.job import TrialData
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.loaders import sample_ids
from trainable.metrics.names import OBJECTIVE
from trainable.metrics.per_image import ImageFigures, metrics_of

IMAGES, WORST = "images.csv", "worst.png"
"""Files of `measure_images`: a row for each image, and a grid of the worst."""
WORST_IMAGES = 16


def measure_images(directory: Path, data: TrialData, part: str, out: Path, *, device: torch.device) -> ImageFigures:
    """Measure each image of `part`, and write `IMAGES` and `WORST` to `out`, each atomically.

    Args:
        directory: a checkpoint.
        data: the data set.
        part: as in `data.splits.splits.rows`.
        out: directory, created if it is missing.
        device: device of the computation.

    Returns:
        The measurements of each image.

    Raises:
        InputError: if the checkpoint cannot be loaded, or the part has no samples.
        OSError: if a file cannot be written.
    """
    table = evaluate_images(directory, data, part, device=device)
    ids = sample_ids(load_origin(directory).config.data, data, part)
    metrics = metrics_of(table.columns(), tuple(table.own))
    with replacing(out / IMAGES) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("sample_id", "bg_id", *metrics))
        for row, values in enumerate(np.column_stack(list(metrics.values())).tolist()):
            writer.writerow((ids[row], table.bg_ids[row], *(f"{value:.6g}" for value in values)))
    scores = metrics[OBJECTIVE]
    worst = np.argsort(scores, kind="stable")[:WORST_IMAGES]
    titles = [f"{scores[row]:.3f}  {ids[row]}" for row in worst]
    rows = predict_images(directory, data, part, worst.tolist(), device=device)
    save_png(image_grid(rows, COLUMNS, row_titles=titles), out / WORST)
    return table
