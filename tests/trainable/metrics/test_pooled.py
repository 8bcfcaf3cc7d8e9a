"""The metrics against a slow reference, and their independence of how a split is cut into batches."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from trainable.metrics.names import METRICS, MODE, OBJECTIVE
from trainable.metrics.pooled import MetricSums, image_states
from trainable.models import Prediction


def _split(images=5, size=8, seed=0):
    """Logits and depth as a network might predict them, and uint8 truths with some empty and full masks."""
    rng = np.random.default_rng(seed)
    shape = (images, 1, size, size)
    logits = torch.from_numpy(rng.normal(0, 2, shape).astype(np.float32))
    depth = torch.from_numpy(rng.uniform(-0.2, 1.3, shape).astype(np.float32))
    mask = torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))
    mask[0], mask[1] = 0, 255
    return logits, depth, mask, torch.from_numpy(rng.integers(0, 256, shape, dtype=np.uint8))


def _metrics(logits, depth, mask, depth_truth):
    sums = MetricSums()
    sums.update(Prediction.of(logits, depth), mask, depth_truth)
    return sums.compute()


def _reference(logits, depth, mask, depth_truth):
    """Pixel by pixel."""
    ious = []
    for image, truth in zip(logits, mask, strict=True):
        predicted, actual = image.numpy() > 0, truth.numpy() > 127
        union = (predicted | actual).sum()
        ious.append((predicted & actual).sum() / union if union else 1.0)
    expected = {"mask_iou": float(np.mean(ious))}
    probability = 1 / (1 + np.exp(-logits.numpy().astype(np.float64)))
    heads = {
        "mask": (probability, (mask.numpy() > 127).astype(np.float64)),
        "depth": (depth.numpy().astype(np.float64), depth_truth.numpy() / 255),
    }
    for head, (prediction, truth) in heads.items():
        pairs = list(zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True))
        expected[f"{head}_rmse"] = math.sqrt(sum((p - t) ** 2 for p, t in pairs) / len(pairs))
        expected[f"{head}_mae"] = sum(abs(p - t) for p, t in pairs) / len(pairs)
        clamped = [(min(max(p, 0.1), 1.0), min(max(t, 0.1), 1.0)) for p, t in pairs]
        for k in (1, 2, 3):
            within = sum(max(p / t, t / p) < 1.25**k for p, t in clamped)
            expected[f"{head}_delta{k}"] = within / len(pairs)
    return expected | {"score": (expected["mask_iou"] + expected["depth_delta1"]) / 2}


def test_metrics_agree_with_a_pixel_by_pixel_reference():
    """They decide which network wins, so their definition must be exact."""
    split = _split()
    assert _metrics(*split) == pytest.approx(_reference(*split), rel=1e-6)


def test_depth_metrics_have_their_published_values():
    """Computed with the code that first reported these metrics for this task."""
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    b = torch.arange(2).view(2, 1, 1, 1)
    x, y = ((3 * i + 5 * j + b) % 17) / 16, ((7 * i + 2 * j + 3 * b) % 13) / 12
    sums = MetricSums()
    sums.update_values(x, x, y, y)
    metrics = sums.compute()
    found = [metrics[f"depth_{name}"] for name in ("delta1", "delta2", "delta3", "rmse", "mae")]
    assert found == pytest.approx([0.1953125, 0.3671875, 0.4960938, 0.4331429, 0.3536377], abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 7), max_size=4), order=st.permutations(range(7)), workers=st.integers(1, 3))
def test_metrics_do_not_depend_on_batches_order_or_workers(cuts, order, workers):
    """Trials with different batch sizes and numbers of workers are compared with each other."""
    split = _split(images=7)
    shuffled = [part[list(order)] for part in split]
    edges = [0, *sorted(cuts), 7]
    sums = [MetricSums() for _ in range(workers)]
    for number, (start, end) in enumerate(pairwise(edges)):
        logits, depth, mask, depth_truth = (part[start:end] for part in shuffled)
        sums[number % workers].update(Prediction.of(logits, depth), mask, depth_truth)
    whole = MetricSums()
    for worker in sums:
        whole.merge(worker.state())
    assert whole.compute() == pytest.approx(_metrics(*split), rel=1e-12)


def test_loaded_sums_replace_those_of_a_worker():
    """The sum over all workers already contains this worker's sums."""
    split, other, own, whole = _split(), _split(seed=1), MetricSums(), MetricSums()
    own.update(Prediction.of(*split[:2]), *split[2:])
    whole.update(Prediction.of(*other[:2]), *other[2:])
    own.load(whole.state())
    assert own.compute() == whole.compute()


def test_the_state_is_a_copy():
    """An in-place sum over workers must not change the sums that it was taken from."""
    split, sums = _split(), MetricSums()
    sums.update(Prediction.of(*split[:2]), *split[2:])
    before = sums.compute()
    sums.state().zero_()
    assert sums.compute() == before


def test_a_perfect_prediction_has_the_best_metrics():
    """The ends of the scales: 1 for shares, 0 for errors, also over images without a foreground."""
    _, _, mask, depth_truth = _split()
    logits = torch.where(mask > 127, 200.0, -200.0)
    metrics = _metrics(logits, depth_truth / 255, mask, depth_truth)
    assert metrics == {name: float("mae" not in name and "rmse" not in name) for name in METRICS}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("truth", [0, 255])
def test_non_finite_prediction_gets_the_worst_metrics(value, truth):
    """A network with infinite outputs must not win by chance: infinite depth is far, NaN is not foreground."""
    bad = torch.full((2, 1, 4, 4), value)
    target = torch.full((2, 1, 4, 4), truth, dtype=torch.uint8)
    metrics = _metrics(bad, bad, target, target)
    assert {name for name, value in metrics.items() if value == 0} == {
        name for name in METRICS if "delta" in name or name in ("mask_iou", "score")
    }
    assert {name for name, value in metrics.items() if math.isnan(value)} == {
        name for name in METRICS if "rmse" in name or "mae" in name
    }


def test_one_non_finite_pixel_is_one_wrong_pixel():
    """The rest of the split still counts, and the errors still show that something is broken."""
    _, _, mask, depth_truth = _split()
    logits, depth = torch.where(mask > 127, 200.0, -200.0), depth_truth / 255
    logits[1, 0, 0, 0] = depth[1, 0, 0, 0] = math.nan
    metrics = _metrics(logits, depth, mask, depth_truth)
    assert metrics["mask_iou"] == pytest.approx(1 - 1 / 64 / 5)
    assert metrics["depth_delta1"] == metrics["mask_delta3"] == pytest.approx(1 - 1 / 320)
    assert math.isnan(metrics["depth_rmse"])


@pytest.mark.parametrize(("level", "expected"), [(127, 0.0), (128, 1.0)])
def test_mask_target_is_thresholded_in_the_middle(level, expected):
    """Soft edges belong to the same side in every metric."""
    mask = torch.full((1, 1, 4, 4), level, dtype=torch.uint8)
    metrics = _metrics(torch.full(mask.shape, 200.0), torch.zeros(mask.shape), mask, mask)
    assert metrics["mask_iou"] == metrics["mask_delta1"] == 1 - metrics["mask_mae"] == expected


def test_bf16_predictions_are_accepted():
    """Under autocast a network's heads give bf16."""
    logits, depth, mask, depth_truth = _split()
    short = _metrics(logits.bfloat16(), depth.bfloat16(), mask, depth_truth)
    assert short == _metrics(logits.bfloat16().float(), depth.bfloat16().float(), mask, depth_truth)


def test_no_images_is_an_input_error():
    """A split can be empty when a small data set is split by its backgrounds."""
    with pytest.raises(InputError, match="number of images to be evaluated is 0"):
        MetricSums().compute()


def test_the_objective_is_one_of_the_metrics():
    """A search refers to a metric by name."""
    metrics = _metrics(*_split())
    assert tuple(metrics) == METRICS
    assert OBJECTIVE in METRICS
    assert MODE == "max"


def test_per_image_states_are_sums_of_that_image():
    """Intervals are computed from images, and must be around the metrics that the trial reported."""
    logits, depth, mask, depth_truth = split = _split()
    states = image_states(torch.sigmoid(logits), depth, mask, depth_truth)
    for row, *image in zip(states, *(part.split(1) for part in split), strict=True):
        alone = MetricSums()
        alone.update(Prediction.of(*image[:2]), *image[2:])
        assert torch.allclose(row, alone.state(), rtol=1e-14)
    added = MetricSums()
    added.load(states.sum(dim=0))
    assert added.compute() == pytest.approx(_metrics(*split), rel=1e-14)
