"""A trial on depth with holes: what is stored in them has no influence, from the data set to the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data.dataset.dataset import write_dataset
from data.images import decode_plane, encode_png
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from data.schema import EncodedSample
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.evaluation.evaluate import evaluate_baselines_on, evaluate_images
from trainable.job import TrialData
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext, Training
from trainable.metrics.bootstrap import intervals
from trainable.samples import Samples

SIZE = 40
CONFIG: dict[str, Any] = {
    "data": {"image_size": 32, "batch_size": 8, "augment": {"hflip": 0.5, "rotate": 10.0, "zoom": 0.2, "jitter": 0.2}},
    "model": {"family": "debug", "width": 2, "precision": "fp32"},
    "loss": {"depth": {"l1": 1.0, "ssim": 1.0, "edge": 1.0, "inverse_huber": 0.5}},
    "epochs": 2,
}


def with_holes(level: int) -> Iterator[EncodedSample]:
    """Rendered scenes with blocks of invalid depth, stored as `level`; every fourth scene has none."""
    scenes = render(SceneSet(seed=3, backgrounds=12, per_background=2, size=SIZE), processes=1)
    for number, sample in enumerate(scenes):
        if number % 4 == 0:
            yield sample
            continue
        depth = decode_plane(sample.depth, sample.sample_id)
        coarse = np.random.default_rng(number).random((SIZE // 8, SIZE // 8)) < 0.3
        valid = np.where(np.kron(coarse, np.ones((8, 8))), 0, 255).astype(np.uint8)
        depth = np.where(valid, depth, level).astype(np.uint8)
        yield replace(sample, depth=encode_png(depth), valid=encode_png(valid))


@pytest.fixture(scope="module")
def black_and_white(tmp_path_factory: pytest.TempPathFactory) -> list[TrialData]:
    """The same data set twice, with invalid depth stored as 0 and as 255."""
    root = tmp_path_factory.mktemp("holes")
    found = []
    for level in (0, 255):
        info = write_dataset(with_holes(level), root / str(level), source={})
        found.append(TrialData(path=str(root / str(level)), fingerprint=info.fingerprint))
    return found


def curve_of(trial_data: TrialData, checkpoint: Path, **changes: Any) -> list[dict[str, float]]:
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, training: Training, _: object) -> None:
        ends.append(end)
        training.save(checkpoint, end.metrics)

    config = build(TrialConfig, CONFIG | changes, source="the test")
    trial.run(config, trial_data, context=DistributedContext(device=torch.device("cpu")), report=report)
    names = [name for name in ends[0].metrics if name.startswith(("train_", "mask", "depth", "score", "val"))]
    return [{name: end.metrics[name] for name in names if name != "train_seconds"} for end in ends]


@pytest.mark.slow
@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_levels_of_invalid_depth_have_no_influence(
    black_and_white: list[TrialData], tmp_path: Path, augment_on: str
) -> None:
    """Resizing, augmentation, losses, gradients and metrics: the curves agree to the last bit."""
    policy = {"name": "plateau", "plateau": {"watch": "val_loss"}}
    changes = {"data": CONFIG["data"] | {"augment_on": augment_on}, "policy": policy}

    curves = [curve_of(data, tmp_path / str(number), **changes) for number, data in enumerate(black_and_white)]

    assert curves[0] == curves[1]
    assert curves[0][0]["train_depth_l1"] > 0
    assert "val_loss" in curves[0][0]


@pytest.mark.slow
def test_evaluations_agree_too(black_and_white: list[TrialData], tmp_path: Path) -> None:
    """Of images one by one, their intervals, and the baselines."""
    curve_of(black_and_white[0], tmp_path / "network")
    config = build(TrialConfig, CONFIG, source="the test").data
    device = torch.device("cpu")

    tables = [evaluate_images(tmp_path / "network", data, "all", device=device) for data in black_and_white]

    assert np.array_equal(tables[0].columns(), tables[1].columns())
    assert intervals(tables[0], draws=50)["depth_mae"].value > 0
    baselines = [evaluate_baselines_on(config, data, "val") for data in black_and_white]
    assert baselines[0] == baselines[1]


@pytest.mark.slow
def test_samples_have_the_mask(black_and_white: list[TrialData]) -> None:
    """Users who train with a loop of their own need it."""
    samples = Samples(black_and_white[0].path, split="all", image_size=32)

    item = samples[1]
    batch = next(samples.batches(4))

    assert set(item["valid"].unique().tolist()) == {0, 255}
    assert batch.valid is not None
    assert torch.equal(batch.valid[1], item["valid"])
    assert (samples[0]["valid"] == 255).all()
