"""The baselines against brute force."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

from data.errors import InputError
from data.schema import Batch
from trainable.metrics.baselines import evaluate_baselines, fit_baselines
from trainable.metrics.names import METRICS


def _batch(images=6, size=8, seed=0):
    """Noisy images with a dim rectangle as foreground; the first has none."""
    rng = np.random.default_rng(seed)
    bg = rng.integers(0, 200, (images, 3, size, size))
    mask = np.zeros((images, 1, size, size), dtype=np.uint8)
    for number in range(1, images):
        mask[number, 0, number % 4 : number % 4 + 4, 1:6] = 255
    fg_bg = bg + rng.integers(-12, 13, bg.shape) + (mask > 0) * rng.integers(0, 24, bg.shape)
    depth = rng.integers(0, 256, mask.shape)
    arrays = {"bg": bg, "fg_bg": fg_bg.clip(0, 255), "mask": mask, "depth": depth}
    return Batch(**{name: torch.from_numpy(array.astype(np.uint8)) for name, array in arrays.items()})


def _cut(batch, *sizes):
    edges = np.cumsum([0, *sizes])
    for start, end in pairwise(edges):
        names = ("bg", "fg_bg", "mask", "depth")
        yield Batch(**{name: getattr(batch, name)[start:end] for name in names})


def _iou_of(cut, batch):
    """Mean over images, computed one by one."""
    difference = np.abs(batch.fg_bg.numpy().astype(int) - batch.bg.numpy().astype(int)).sum(axis=1)
    ious = []
    for image, truth in zip(difference >= cut, batch.mask.numpy()[:, 0] > 127, strict=True):
        union = (image | truth).sum()
        ious.append((image & truth).sum() / union if union else 1.0)
    return float(np.mean(ious))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_threshold_is_optimal(seed):
    """A baseline that is not optimal flatters the network."""
    batch = _batch(seed=seed)
    baselines = fit_baselines(_cut(batch, 2, 3, 1))
    ious = [_iou_of(cut, batch) for cut in range(767)]
    assert baselines.cut == int(np.argmax(ious))
    assert 0.5 < max(ious) < 0.9  # the two kinds of pixels overlap, so that both kinds of error count
    assert baselines.threshold == baselines.cut / 3


@pytest.mark.parametrize(("level", "expected"), [(255, 0), (0, 766)])
def test_threshold_may_select_all_or_no_pixels(level, expected):
    """Every image is all foreground, or none has any, whatever the difference."""
    batch = _batch()
    batch.mask.fill_(level)
    batch.fg_bg[:, :, 0, 0], batch.bg[:, :, 0, 0] = 255, 0
    batch.fg_bg[:, :, 0, 1] = batch.bg[:, :, 0, 1]
    assert fit_baselines([batch]).cut == expected


def test_the_mean_depth_is_exact_over_batches_of_any_size():
    """It is the mean over images, not over batches."""
    batch = _batch()
    baselines = fit_baselines(_cut(batch, 1, 5))
    expected = batch.depth.numpy().mean(axis=0) / 255
    assert baselines.depth_mean.shape == (1, 8, 8)
    np.testing.assert_allclose(baselines.depth_mean.numpy(), expected, rtol=1e-6)


def test_baselines_are_evaluated_on_other_images_than_fitted():
    """The metrics and names are those of a trial, so that one table can show both."""
    train, test = _batch(), _batch(images=4, seed=9)
    baselines = fit_baselines([train])
    measured = evaluate_baselines(baselines, _cut(test, 1, 3))
    assert measured["mask_threshold"]["mask_iou"] == pytest.approx(_iou_of(baselines.cut, test))
    assert measured["mask_threshold"]["threshold"] == baselines.threshold
    error = train.depth.numpy().mean(axis=0) / 255 - test.depth.numpy() / 255
    assert measured["depth_mean"]["depth_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    names = {name for part in measured.values() for name in part}
    assert names == (set(METRICS) - {"score"}) | {"threshold"}
    assert json.loads(json.dumps(measured)) == measured


def test_predictions_have_the_shape_of_a_networks():
    """They are shown next to those of a network."""
    batch = _batch()
    probability, depth = fit_baselines([batch]).predict(batch)
    assert probability.shape == depth.shape == (6, 1, 8, 8)
    assert set(probability.unique().tolist()) == {0.0, 1.0}


def test_training_split_without_images_is_an_input_error():
    """A split can be empty when a small data set is split by its backgrounds."""
    with pytest.raises(InputError, match="number of training images is 0"):
        fit_baselines([])
