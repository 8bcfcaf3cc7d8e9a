"""The result of a search on test: the retrained network, the best trial, the best recipe and the baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainable.evaluation.evaluate import (
    baseline_images,
    evaluate_baselines_on,
    evaluate_images,
    fit_baselines_on,
)
from trainable.job import TrialData
from trainable.loop.checkpoint_files import load_origin
from trainable.loop.fetch import local_copy, output_file
from trainable.metrics.bootstrap import Difference, differences, intervals
from trainable.metrics.objective import Objective
from trainable.metrics.per_image import ImageFigures, figures
from trainable.metrics.pooled import pooled_figures


@dataclass(frozen=True, kw_only=True)
class ResultMetrics:
    """Metrics on the test part, whose images are not augmented, also with `data.augment.in_evaluation`."""

    retrained: dict[str, float]
    retrained_intervals: dict[str, dict[str, float | None]]
    """95 % bootstrap intervals over backgrounds, by metric."""
    best: dict[str, float]
    best_intervals: dict[str, dict[str, float | None]]
    recipe: dict[str, float] | None
    """Of the best recipe's weights, which trained for all epochs of a trial."""
    beyond_recipe: dict[str, Difference] | None
    """The best trial's metrics less the recipe's, by key, with 95 % bootstrap intervals over backgrounds."""
    baselines: dict[str, dict[str, float]]


def measure_result(
    networks: Sequence[str], data: TrialData, outputs: Sequence[str], objective: Objective, device: torch.device
) -> ResultMetrics:
    """Evaluate the retrained network, the best trial, the best recipe, if there is one, and the baselines on test.

    Args:
        networks: paths or addresses of their checkpoints, in this order.
        data: the data set.
        outputs: paths or addresses of a PNG file for predictions of the retrained network, then of the tables of images
            of the baselines and of each network.
        objective: of the search.
        device: of the evaluation.
    """
    with contextlib.ExitStack() as stack:
        copies = [stack.enter_context(local_copy(network)) for network in networks]
        grid, *files = (stack.enter_context(output_file(output)) for output in outputs)
        return _measure_copies(copies, data, grid, files, objective, device)


def _measure_copies(
    networks: Sequence[Path],
    data: TrialData,
    grid: Path,
    files: Sequence[Path],
    objective: Objective,
    device: torch.device,
) -> ResultMetrics:
    config = load_origin(networks[0]).config.data
    fitted = fit_baselines_on(config, data)
    without = baseline_images(config, data, "test", fitted)
    of_retrained = evaluate_images(networks[0], data, "test", device=device, grid=grid)
    of_best, *others = (evaluate_images(network, data, "test", device=device) for network in networks[1:])
    of_recipe = others[0] if others else None
    for table, file in zip((without, of_retrained, of_best, *others), files, strict=True):
        table.save(file)
    return ResultMetrics(
        retrained=objective.with_value(pooled_figures(of_retrained)),
        retrained_intervals=_plain_intervals(of_retrained, objective),
        best=objective.with_value(figures(of_best)),
        best_intervals=_plain_intervals(of_best, objective),
        recipe=objective.with_value(figures(of_recipe)) if of_recipe else None,
        beyond_recipe=differences(of_best, of_recipe, objective) if of_recipe else None,
        baselines=evaluate_baselines_on(config, data, "test", fitted),
    )


def _plain_intervals(images: ImageFigures, objective: Objective) -> dict[str, dict[str, float | None]]:
    return {name: interval.as_plain() for name, interval in intervals(images, objective).items()}
