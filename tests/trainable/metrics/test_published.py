"""The published projects' own metrics: their published values, plain references, and what was corrected."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from data.errors import InputError
from trainable.metrics.pooled import MetricSums
from trainable.metrics.published import PUBLISHED_METRICS, PublishedMetrics, similarities
from trainable.models import Prediction


def _golden():
    """Two patterned images x and y in 0..1, (2, 1, 16, 16)."""
    i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    b = torch.arange(2).view(2, 1, 1, 1)
    return ((3 * i + 5 * j + b) % 17) / 16, ((7 * i + 2 * j + 3 * b) % 13) / 12


def _smooth(seed, images=6, shape=(19, 24)):
    """Images like depths, (B, 1, H, W) uint8."""
    noise = np.random.default_rng(seed).normal(size=(images, *shape))
    blurred = gaussian_filter(noise, sigma=2, axes=(1, 2))
    levels = np.clip(blurred * 200 + 128, 0, 255).astype(np.uint8)
    return torch.from_numpy(levels).unsqueeze(1)


def _measured(*batches, on="probability", average="pictures"):
    metrics = PublishedMetrics(on=on, average=average)
    for mask_logits, depth, mask, depth_truth in batches:
        metrics.update(Prediction.of(mask_logits, depth), mask, depth_truth)
    return metrics.compute()


def test_rms_and_deltas_have_their_published_values():
    """Computed with the code that first reported them; the mask is compared with the truth as it is, not cut."""
    x, y = _golden()
    metrics = _measured((x, x, y, y), on="logits", average="batches")
    for head in ("soft_mask", "depth"):
        found = [metrics[f"{head}_{name}"] for name in ("delta1", "delta2", "delta3", "rmse")]
        assert found == pytest.approx([0.1953125, 0.3671875, 0.4960938, 0.4331429], abs=1e-7)


def test_iou_has_its_published_values():
    """As published a batch is one large image; corrected, each image counts by itself."""
    x, y = _golden()
    assert _measured((x, x, y, y), on="logits", average="batches")["iou75_mask"] == pytest.approx(0.1449275, abs=1e-7)
    for image, expected in enumerate([0.1919192, 0.1018519]):
        alone = tuple(part[image : image + 1] for part in (x, x, y, y))
        assert _measured(alone, on="logits")["iou75_mask"] == pytest.approx(expected, abs=1e-7)
    pooled = _measured((x, x, y, y), on="logits")
    assert pooled["iou75_mask"] == pytest.approx((0.1919192 + 0.1018519) / 2, abs=1e-7)


def test_similarity_agrees_with_scipy():
    """Written out in plain numpy as scikit-image has it by default, for images of 8 bits."""
    truth, prediction = _smooth(0), (0.8 * _smooth(0).float() + 0.5 * _smooth(1).float()) / 255
    assert prediction.max() > 1  # some of it is clipped
    p = (prediction.numpy().clip(0, 1) * 255).round().astype(np.float64)[:, 0]
    t = truth.numpy().astype(np.float64)[:, 0]

    def mean(images):
        return uniform_filter(images, size=7, axes=(1, 2))

    sample = 49 / 48
    var_p, var_t = (sample * (mean(z * z) - mean(z) ** 2) for z in (p, t))
    covariance = sample * (mean(p * t) - mean(p) * mean(t))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean(p) * mean(t) + c1) * (2 * covariance + c2)
    similarity /= (mean(p) ** 2 + mean(t) ** 2 + c1) * (var_p + var_t + c2)
    expected = similarity[:, 3:-3, 3:-3].mean(axis=(1, 2))
    found = similarities(prediction, truth).numpy()
    assert 0.2 < expected.min() < expected.max() < 0.95
    assert found == pytest.approx(expected, rel=1e-10)


def test_an_image_counts_if_it_is_similar_enough():
    """The share of images above a different level for each head."""
    truth = _smooth(0, images=3)
    near, far = (truth.float() + 12 * torch.randn(truth.shape, generator=torch.manual_seed(0))) / 255, 1 - truth / 255
    predicted = torch.stack([truth[0] / 255, near[1], far[2]])
    same, middle, other = similarities(predicted, truth).tolist()
    assert same == 1
    assert 0.5 < middle < 0.9
    assert other < 0.5
    metrics = _measured((predicted, predicted, truth, truth), on="logits")
    assert metrics["ssim90_mask"] == pytest.approx(1 / 3)
    assert metrics["ssim50_depth"] == pytest.approx(2 / 3)


def test_metrics_use_probabilities_where_published_used_logits():
    """As published, a perfect network trained with logits looked wrong."""
    truth = _smooth(0)
    logits = torch.logit((truth / 255).clamp(0.001, 0.999))
    heads = (logits, truth / 255, truth, truth)
    corrected, published = _measured(heads), _measured(heads, on="logits")
    assert corrected["ssim90_mask"] == corrected["iou75_mask"] == 1
    assert published["ssim90_mask"] == 0
    # A logit of 0.75 is a probability of 0.679.
    expected = [(plane > 0.75 * 255).sum() / (plane > 0.679179 * 255).sum() for plane in truth]
    assert published["iou75_mask"] == pytest.approx(np.mean(expected))
    assert published["soft_mask_rmse"] > 0.5 > corrected["soft_mask_rmse"]


def test_batches_have_equal_weight_as_published():
    """A last batch of one image weighs as much as all the others: the figures depend on how a part is cut."""
    x, y = _golden()
    batches = [tuple(part[rows] for part in (x, x, y, y)) for rows in ([0, 1, 1], [0])]
    published = _measured(*batches, average="batches")
    pooled = _measured(*batches)
    squares = ((x - y) ** 2).double().mean(dim=(1, 2, 3)).numpy()
    first = math.sqrt((squares[0] + 2 * squares[1]) / 3)
    assert published["depth_rmse"] == pytest.approx((first + math.sqrt(squares[0])) / 2, rel=1e-6)
    assert pooled["depth_rmse"] == pytest.approx(math.sqrt(squares.mean()), rel=1e-6)
    assert published["depth_rmse"] != pytest.approx(pooled["depth_rmse"], rel=1e-6)


def test_corrected_metrics_do_not_depend_on_the_batches():
    """One table compares networks that were evaluated with different batch sizes."""
    truth, predicted = _smooth(0), _smooth(1)
    parts = (predicted / 32 - 4.0, predicted / 255, truth, _smooth(2))
    cut = [tuple(part[start:end] for part in parts) for start, end in ((0, 1), (1, 5), (5, 6))]
    assert _measured(*cut) == pytest.approx(_measured(parts), rel=1e-6)  # float32


def test_corrected_depth_metric_is_the_reported_one():
    """The same names stand for the same figures."""
    truth, predicted = _smooth(0), _smooth(1)
    sums = MetricSums()
    sums.update(Prediction.of(predicted / 32 - 4.0, predicted / 255), truth, truth)
    every = sums.compute()
    own = _measured((predicted / 32 - 4.0, predicted / 255, truth, truth))
    shared = [name for name in PUBLISHED_METRICS["delta-rms"] if name.startswith("depth")]
    assert len(shared) == 4
    assert {name: own[name] for name in shared} == {name: every[name] for name in shared}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("truth", [0, 255])
@pytest.mark.parametrize("on", ["probability", "logits"])
def test_non_finite_prediction_gets_the_worst_metrics(value, truth, on):
    """A network with infinite outputs must not win by chance, for any metric."""
    bad = torch.full((2, 1, 8, 8), value)
    target = torch.full((2, 1, 8, 8), truth, dtype=torch.uint8)
    metrics = _measured((bad, bad, target, target), on=on)
    errors = {name for name in metrics if "rmse" in name}
    assert {name for name, value in metrics.items() if math.isnan(value)} == errors
    assert {name for name, value in metrics.items() if value == 0} == metrics.keys() - errors


def test_two_empty_masks_agree():
    """An image whose foreground is soft everywhere has nothing above 0.75, and is then predicted right."""
    soft = torch.full((1, 1, 8, 8), 180, dtype=torch.uint8)
    assert _measured((torch.zeros(soft.shape), soft / 255, soft, soft))["iou75_mask"] == 1


def test_no_images_is_an_input_error():
    """A split can be empty when a small data set is split by its backgrounds."""
    with pytest.raises(InputError, match="number of images to be evaluated is 0"):
        PublishedMetrics().compute()
