"""Metrics with validity masks, against numpy over the valid pixels of each image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view

from data.errors import InputError
from data.schema import Batch
from trainable.metrics.baselines import evaluate_baselines, fit_baselines
from trainable.metrics.bootstrap import intervals
from trainable.metrics.names import METRICS
from trainable.metrics.per_image import PUBLISHED, STATES, ImageFigures, figures, metrics_of
from trainable.metrics.pooled import MetricSums, pooled_figures
from trainable.metrics.published import PublishedMetrics, image_columns, similarities
from trainable.models.prediction import Prediction

SIDE = 24


def planes(images=6, seed=0):
    """Probability, depth, their truths as uint8, and validity: the last two images have no valid pixel."""
    rng = np.random.default_rng(seed)
    truths = [torch.from_numpy(rng.integers(0, 256, (images, 1, SIDE, SIDE), np.uint8)) for _ in range(2)]
    predictions = [
        torch.from_numpy((truth.numpy() / 255 + rng.normal(0, 0.15, truth.shape)).clip(0, 1)).float()
        for truth in truths
    ]
    coarse = rng.random((images, 1, 3, 3)) < 0.7
    valid = torch.from_numpy(np.kron(coarse, np.ones((8, 8), np.bool_)))
    valid[0], valid[-2:] = True, False
    return *predictions, *truths, valid


def batch_of(mask, depth, valid, seed=0):
    rng = np.random.default_rng(seed)
    photos = [torch.from_numpy(rng.integers(0, 256, (len(mask), 3, SIDE, SIDE), np.uint8)) for _ in range(2)]
    return Batch(bg=photos[0], fg_bg=photos[1], mask=mask, depth=depth, valid=valid.to(torch.uint8) * 255)


def pooled(given):
    sums = MetricSums()
    sums.update_values(*given)
    return sums.compute()


def depth_metrics(depth, truth, valid):
    """Pixel by pixel in numpy, over the valid pixels only."""
    p, t = depth.numpy()[valid.numpy()].astype(float), truth.numpy()[valid.numpy()] / 255
    low_p, low_t = (values.astype(np.float32).clip(0.1, 1) for values in (p, t))
    ratio = np.maximum(low_p / low_t, low_t / low_p)
    deltas = {f"depth_delta{k}": (ratio < 1.25**k).mean() for k in (1, 2, 3)}
    return {"depth_rmse": np.sqrt(((p - t) ** 2).mean()), "depth_mae": np.abs(p - t).mean()} | deltas


def test_depth_metrics_are_of_valid_pixels():
    """Pooled over all images; those of the mask are of all pixels."""
    probability, depth, mask, truth, valid = given = planes()
    plain = pooled((probability, depth, mask, truth))

    found = pooled(given)

    expected = depth_metrics(depth, truth, valid)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert {name: found[name] for name in METRICS if name.startswith("mask")} == {
        name: plain[name] for name in METRICS if name.startswith("mask")
    }
    assert found["score"] == pytest.approx((found["mask_iou"] + found["depth_delta1"]) / 2)
    assert found["depth_images"] == 4
    assert "depth_images" not in plain
    assert pooled_figures(table_of(given)) == pytest.approx(found, rel=1e-12)


def test_all_pixels_valid_are_the_metrics_without_a_mask():
    """To the last bit: only the denominators differ, and those are equal."""
    probability, depth, mask, truth, valid = planes()

    assert pooled((probability, depth, mask, truth, torch.ones_like(valid))) == pooled(
        (probability, depth, mask, truth)
    )


@pytest.mark.parametrize("value", [0.0, 1.0, math.inf, math.nan])
def test_invalid_pixels_have_no_influence(value):
    """Whatever the network predicts, or the file holds, where nothing was measured."""
    probability, depth, mask, truth, valid = given = planes()
    other = (
        torch.where(valid, depth, value),
        torch.where(valid, truth, torch.tensor(int(value == 1), dtype=torch.uint8)),
    )
    changed = probability, other[0], mask, other[1], valid

    assert pooled(changed) == pooled(given)
    assert torch.equal(image_columns(*changed), image_columns(*given))


def test_metrics_do_not_depend_on_the_batches():
    """An image without valid pixels in a batch of its own adds nothing to the depth."""
    given, sums = planes(), MetricSums()
    for index in range(6):
        sums.update_values(*(plane[index : index + 1] for plane in given))

    assert sums.compute() == pytest.approx(pooled(given), rel=1e-12)


def test_no_depth_at_all_is_an_input_error():
    """The score would not be a number."""
    *others, valid = planes()
    sums, published = MetricSums(), PublishedMetrics()
    sums.update_values(*others, torch.zeros_like(valid))
    published.update(Prediction(*others[:2], *others[:2]), *others[2:], torch.zeros_like(valid))

    with pytest.raises(InputError, match=r"No image .* depth was measured"):
        sums.compute()
    with pytest.raises(InputError, match=r"No image .* depth was measured"):
        published.compute()


def one_window(p, t):
    """Structural similarity of two windows of grey levels, with the sample covariance."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    covariance = np.cov(p.ravel(), t.ravel())
    similar = (2 * p.mean() * t.mean() + c1) * (2 * covariance[0, 1] + c2)
    return similar / ((p.mean() ** 2 + t.mean() ** 2 + c1) * (np.trace(covariance) + c2))


def test_similarity_is_of_windows_without_an_invalid_pixel():
    """Window by window in numpy."""
    _, depth, _, truth, valid = planes()
    found = similarities(depth, truth, valid)

    for index in range(6):
        levels = (depth[index, 0].numpy() * 255).round(), truth[index, 0].numpy().astype(float)
        p, t, is_valid = (sliding_window_view(plane, (7, 7)) for plane in (*levels, valid[index, 0].numpy()))
        whole = is_valid.all(axis=(2, 3))
        expected = (
            np.mean([one_window(*pair) for pair in zip(p[whole], t[whole], strict=True)]) if whole.any() else math.nan
        )
        assert found[index].item() == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize("average", ["pictures", "batches"])
def test_published_depth_metrics_leave_images_out(average):
    """Two of six images have no depth; as published, batches count equally, but only those with depth."""
    probability, depth, mask, truth, valid = planes()
    metrics = PublishedMetrics(average=average)
    batches = [[0, 1], [2, 3], [4, 5]]
    for rows in batches:
        predicted = Prediction(probability[rows], depth[rows], probability[rows], depth[rows])
        metrics.update(predicted, mask[rows], truth[rows], valid[rows])

    found = metrics.compute()

    groups = batches[:2] if average == "batches" else [[0, 1, 2, 3]]
    expected = [depth_metrics(depth[rows], truth[rows], valid[rows]) for rows in groups]
    for name in ("depth_rmse", "depth_delta1"):
        assert found[name] == pytest.approx(np.mean([each[name] for each in expected]), rel=1e-6)
    similar = similarities(depth, truth, valid)
    with_windows = [[row for row in rows if similar[row].isfinite()] for rows in groups]
    shares = [(similar[rows] > 0.5).double().mean() for rows in with_windows if rows]
    assert found["ssim50_depth"] == pytest.approx(np.mean(shares))


def table_of(given):
    columns = image_columns(*given).numpy()
    published = dict(zip(PUBLISHED, columns[:, len(STATES) :].T, strict=True))
    ids = tuple(f"room{number // 2}" for number in range(len(columns)))
    return ImageFigures(bg_ids=ids, states=columns[:, : len(STATES)], published=published)


def test_figures_of_images_add_up_to_the_pooled_metrics():
    """The row of an image without depth is NaN for the depth alone, and does not spoil the others."""
    given = planes()
    table, found = table_of(given), pooled(given)
    of_image = metrics_of(table.columns())

    assert {name: figures(table)[name] for name in METRICS} == pytest.approx({name: found[name] for name in METRICS})
    assert np.isnan(of_image["depth_rmse"]).tolist() == [False] * 4 + [True] * 2
    assert np.isfinite(of_image["mask_iou"]).all()
    for index in range(4):
        expected = depth_metrics(*(given[which][index : index + 1] for which in (1, 3, 4)))
        assert of_image["depth_mae"][index] == pytest.approx(expected["depth_mae"], rel=1e-6)


def test_intervals_are_of_valid_pixels():
    """Resamples weigh each image by its valid pixels."""
    given = planes(images=40)
    found = intervals(table_of(given), draws=200)

    assert found["depth_rmse"].value == pytest.approx(
        depth_metrics(*(given[which] for which in (1, 3, 4)))["depth_rmse"]
    )
    assert found["depth_rmse"].low < found["depth_rmse"].value < found["depth_rmse"].high


def test_mean_depth_is_of_valid_pixels():
    """A pixel that is never valid gets the mean of all others."""
    _, _, mask, truth, valid = planes()
    valid[:, :, :2] = False
    batches = [batch_of(*(plane[rows] for plane in (mask, truth, valid))) for rows in ([0, 1, 2], [3, 4, 5])]
    levels = np.where(valid.numpy(), truth.numpy() / 255, np.nan)

    baselines = fit_baselines(batches)

    expected = np.full((1, SIDE, SIDE), np.nanmean(levels))
    seen = valid.numpy().any(axis=0)
    expected[seen] = np.nanmean(levels[:, seen], axis=0)
    np.testing.assert_allclose(baselines.depth_mean, expected, rtol=1e-6)
    depth = baselines.depth_mean.expand_as(truth)
    found = evaluate_baselines(baselines, batches)["depth_mean"]
    assert found["depth_mae"] == pytest.approx(depth_metrics(depth, truth, valid)["depth_mae"], rel=1e-6)


def test_training_split_without_depth_is_an_input_error():
    """The mean depth would not be a number."""
    _, _, mask, truth, valid = planes()

    with pytest.raises(InputError, match=r"No training image .* depth was measured"):
        fit_baselines([batch_of(mask, truth, torch.zeros_like(valid))])
