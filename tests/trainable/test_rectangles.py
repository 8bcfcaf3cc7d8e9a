"""Rectangular images: from the configuration through the cache and the networks to predictions and exported files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.cache.cache import decoded
from data.dataset.dataset import Dataset
from data.images import resize_to
from tests.trainable.evaluation.whole import predict_whole
from trainable import trial
from trainable.config import ConfigError, DataConfig, ModelConfig, TrialConfig, build
from trainable.evaluation.latency import ms_per_picture
from trainable.evaluation.portable import export_network
from trainable.evaluation.predictor import Predictor
from trainable.job import TrialData
from trainable.loop.checkpoint import load_model
from trainable.loop.loaders import training_loaders
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext
from trainable.models import MODELS, build_model, multiply_adds
from trainable.samples import Samples

ALONE = DistributedContext(device=torch.device("cpu"))


def config(**data: Any) -> TrialConfig:
    values = {
        "data": {"image_size": [32, 64], "batch_size": 8, "augment": {"rotate": 10.0, "zoom": 0.2}} | data,
        "model": {"family": "debug", "width": 2, "precision": "fp32"},
        "epochs": 1,
    }
    return build(TrialConfig, values, source="the test")


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ([32], "is [32], but must be a side, or the two sides [height, width]"),
        ([32, 48, 64], "must be a side, or the two sides [height, width]"),
        ([32, 50], "is [32, 50], but must be a multiple of 16, or [height, width] of two such"),
        ([32, 4096], "must have sides from 16 to 2048"),
        (8, "is 8, but must have sides from 16 to 2048"),
        ([32, "64"], "must be a valid integer, or [height, width] of two"),
        (True, "is True, but must be a valid integer"),
    ],
)
def test_wrong_sizes_are_refused(size: object, sentence: str) -> None:
    """Each error names the value and both forms."""
    with pytest.raises(ConfigError) as caught:
        build(DataConfig, {"image_size": size}, source="the test")

    assert str(caught.value).startswith("The value of 'data.image_size'".replace("data.", ""))
    assert sentence in str(caught.value)


def test_a_size_survives_a_round_trip() -> None:
    """Through the JSON of a checkpoint; the two forms of a square are equal to read."""
    found = config().data

    assert build(DataConfig, found.model_dump(mode="json"), source="the test") == found
    assert (found.sides, config(image_size=48).data.sides) == ((32, 64), (48, 48))
    assert config(image_size=(32, 64)).data.image_size == [32, 64]


def test_images_are_resized_to_height_and_width(trial_data: TrialData, tmp_path: Path) -> None:
    """Height first: a transposed image would train without an error."""
    dataset = Dataset.open(trial_data.path)
    rows = np.arange(4)

    images = decoded(dataset, [rows], [32, 64], root=tmp_path).gather(rows)

    for index, sample in enumerate(dataset.read(rows)):
        np.testing.assert_array_equal(images.fg_bg[index], resize_to(sample.fg_bg, 32, 64))
        np.testing.assert_array_equal(images.depth[index], resize_to(sample.depth, 32, 64))
    assert images.mask.shape == (4, 32, 64)


def test_squares_have_the_entries_of_earlier_versions(trial_data: TrialData, tmp_path: Path) -> None:
    """Otherwise, every cache would be built again; the two forms of a square share an entry."""
    dataset = Dataset.open(trial_data.path)
    for size in (32, [32, 32], [32, 48]):
        decoded(dataset, [np.arange(4)], size, root=tmp_path)

    names = sorted(path.name.split("-")[3] for path in tmp_path.iterdir() if path.is_dir())
    assert names == ["32px", "32x48px"]


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(MODELS))
def test_every_family_takes_rectangles(family: str) -> None:
    """Multiply-adds of a convolution are proportional to the area."""
    network = build_model(ModelConfig(family=family, width=4, precision="fp32")).eval()
    photo = torch.rand(1, 3, 32, 64)

    with torch.no_grad():
        found = network(photo, photo)

    assert found.mask.shape == found.depth.shape == (1, 1, 32, 64)
    assert multiply_adds(network, [32, 64]) == pytest.approx(2 * multiply_adds(network, 32), rel=0.01)


def test_stages_keep_the_aspect_ratio(trial_data: TrialData) -> None:
    """Both sides shrink, each to a multiple of 16."""
    chosen = config(progression=[{"share": 0.5, "scale": 0.5}]).model_copy(update={"epochs": 2})

    shapes = [tuple(next(loader.epoch(1)).bg.shape[-2:]) for loader in training_loaders(chosen, trial_data, ALONE)]

    assert shapes == [(16, 32), (32, 64)]


@pytest.mark.slow
def test_a_network_of_rectangles_is_trained_measured_and_exported(trial_data: TrialData, tmp_path: Path) -> None:
    """Predictions have the size of the photographs."""
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, training: Any, _: object) -> None:
        ends.append(end)
        training.save(tmp_path / "network", end.metrics)

    trial.run(config(), trial_data, context=ALONE, report=report)

    assert 0 <= ends[-1].metrics["score"] <= 1
    assert load_model(tmp_path / "network")[1].config.data.image_size == [32, 64]
    photo = np.zeros((50, 90, 3), np.uint8)
    [(mask, depth)] = predict_whole(Predictor(tmp_path / "network"), [photo], [photo])
    assert mask.shape == depth.shape == (50, 90)
    assert ms_per_picture(config(), torch.device("cpu")) > 0
    exported = export_network(tmp_path / "network", tmp_path / "model.pt2", "torch")
    assert exported.checked[0] == (1, 32, 64)
    assert exported.difference < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("size", [[64, 32], [48, 64], [64, 96], [32, 32], [16, 16]])
def test_exports_are_compared_at_sizes_that_differ(
    size: list[int], save_warmed: Callable[[TrialConfig], Path], tmp_path: Path
) -> None:
    """Equal sides of an example would become a condition of the exported program."""
    exported = export_network(save_warmed(config(image_size=size)), tmp_path / "model.pt2", "torch")

    _, (_, height, width), _ = exported.checked
    assert height != width
    assert len({shape[1:] for shape in exported.checked}) == 3


def test_samples_are_rectangles(trial_data: TrialData) -> None:
    """In the order height, width."""
    item = Samples(trial_data.path, split="all", image_size=(32, 48))[0]

    assert {name: tuple(tensor.shape[-2:]) for name, tensor in item.items()} == dict.fromkeys(item, (32, 48))
