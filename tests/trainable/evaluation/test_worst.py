"""The values of each image, and the grid of the worst."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data.grids import image_grid, save_png
from data.images import decode_photo
from trainable.config import TrialConfig, build
from trainable.evaluation.evaluate import evaluate_images, predict_images
from trainable.evaluation.grid import COLUMNS
from trainable.evaluation.worst import IMAGES, WORST, WORST_IMAGES, measure_images
from trainable.job import TrialData
from trainable.loop.loaders import sample_ids

CPU = torch.device("cpu")
CONFIG = build(
    TrialConfig,
    {"data": {"image_size": 32}, "model": {"family": "debug", "width": 4, "precision": "fp32"}},
    source="the test",
)


@pytest.fixture(scope="module")
def saved(save_warmed: Callable[[TrialConfig], Path]) -> Path:
    return save_warmed(CONFIG)


def test_values_belong_to_their_images(saved: Path, trial_data: TrialData, tmp_path: Path) -> None:
    """A row names its sample, and its score is that of the sample alone."""
    measured = measure_images(saved, trial_data, "all", tmp_path / "new", device=CPU)
    rows = list(csv.DictReader((tmp_path / "new" / IMAGES).read_text().splitlines()))
    table = evaluate_images(saved, trial_data, "all", device=CPU)

    assert [row["sample_id"] for row in rows] == list(sample_ids(CONFIG.data, trial_data, "all"))
    assert [row["bg_id"] for row in rows] == list(table.bg_ids)
    assert len({row["mask_rmse"] for row in rows}) == len(rows)
    pixels = 32 * 32
    for row, states in zip(rows, table.states, strict=True):
        assert float(row["mask_iou"]) == pytest.approx(states[1], abs=1e-5)
        assert float(row["mask_rmse"]) == pytest.approx(np.sqrt(states[3] / pixels), rel=1e-5)
    assert np.array_equal(measured.columns(), table.columns())


def test_grid_shows_the_lowest_scores(saved: Path, trial_data: TrialData, tmp_path: Path) -> None:
    """The worst first, each with its score and its sample."""
    measure_images(saved, trial_data, "all", tmp_path, device=CPU)
    rows = list(csv.DictReader((tmp_path / IMAGES).read_text().splitlines()))
    scores = np.array([float(row["score"]) for row in rows])
    lowest = np.argsort(scores, kind="stable")[:WORST_IMAGES]
    titles = [f"{scores[row]:.3f}  {rows[row]['sample_id']}" for row in lowest]
    shown = predict_images(saved, trial_data, "all", lowest.tolist(), device=CPU)
    save_png(image_grid(shown, COLUMNS, row_titles=titles), tmp_path / "own.png")

    grid, own = (decode_photo((tmp_path / name).read_bytes(), name) for name in (WORST, "own.png"))
    np.testing.assert_array_equal(grid, own)
    assert len(lowest) == WORST_IMAGES < len(rows)


def test_a_small_part_has_fewer_rows(saved: Path, trial_data: TrialData, tmp_path: Path) -> None:
    """Three test images are all shown."""
    measure_images(saved, trial_data, "test", tmp_path, device=CPU)
    measure_images(saved, trial_data, "test", tmp_path, device=CPU)  # again, in place of the earlier files

    assert {path.name for path in tmp_path.iterdir()} == {IMAGES, WORST}
    assert 3 * 128 < decode_photo((tmp_path / WORST).read_bytes(), WORST).shape[0] < 4 * 128 + 40
