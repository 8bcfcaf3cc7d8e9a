"""A trial on a recipe, whose batches are composed when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from data.compose.compose import compose
from data.compose.composition import Composition
from data.compose.materialise import materialise
from data.compose.sources import open_sources
from data.dataset.dataset import Dataset
from tests.data.compose.compose_kit import kit
from trainable import trial
from trainable.config import DataConfig, TrialConfig, build
from trainable.evaluation.pairs import pairs_in_dataset
from trainable.job import TrialData
from trainable.loop.loaders import read_part
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext
from trainable.samples import Samples


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrialData]:
    """The same samples as a recipe and as images."""
    root = tmp_path_factory.mktemp("recipe")
    composition = Composition(**kit(root, backgrounds=10) | {"size": 32, "placements": 3})
    sources = open_sources(composition)
    compose(composition, sources, root / "recipe")
    materialise(composition, sources, root / "images", processes=1)
    return {
        name: TrialData(path=str(root / name), fingerprint=Dataset.open(root / name).info.fingerprint)
        for name in ("recipe", "images")
    }


def last_metrics(data: TrialData, size: int) -> dict[str, float]:
    values: dict[str, Any] = {
        "data": {"image_size": size, "batch_size": 8},
        "model": {"family": "debug", "width": 2, "precision": "fp32"},
        "epochs": 3,
    }
    ends: list[EpochEnd] = []
    config = build(TrialConfig, values, source="the test")
    alone = DistributedContext(device=torch.device("cpu"))
    trial.run(config, data, context=alone, report=lambda end, *_: ends.append(end))
    return ends[-1].metrics


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 32])
def test_trial_learns_from_a_recipe_as_from_images(data: dict[str, TrialData], size: int) -> None:
    """The curves differ only by what JPEG makes of the photographs."""
    recipe, images = (last_metrics(each, size) for each in data.values())
    for name in ("mask_iou", "depth_rmse", "train_loss", "val_loss"):
        if name in recipe:
            assert recipe[name] == pytest.approx(images[name], abs=0.03)
    assert {"mask_iou", "depth_rmse"} <= recipe.keys()


def test_items_of_a_recipe_are_those_of_the_images(data: dict[str, TrialData]) -> None:
    """In `Samples`, which data loaders of torch read."""
    recipe, images = (Samples(each.path, split="val", image_size=16) for each in data.values())
    assert len(recipe) == len(images) > 0
    for name in ("bg", "mask", "depth"):
        assert torch.equal(recipe[1][name], images[1][name])


def test_pairs_of_a_recipe_can_be_predicted(data: dict[str, TrialData]) -> None:
    """By sample, with the bytes of the images."""
    recipe, images = (pairs_in_dataset(each.path, "val", DataConfig()) for each in data.values())
    assert recipe.names == images.names
    for one, other in zip(recipe.pairs, images.pairs, strict=True):
        assert one.read() == other.read()


def test_parts_of_a_recipe_have_the_samples_of_the_images(data: dict[str, TrialData]) -> None:
    """The split is by the hash of ids, which both have."""
    config = DataConfig(image_size=32)
    recipe, images = (read_part(config, each, "train+val") for each in data.values())
    rows = np.arange(len(images))
    np.testing.assert_array_equal(recipe.gather(rows).mask, images.gather(rows).mask)
