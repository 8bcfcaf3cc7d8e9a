"""Names of the metrics that a trial reports, in a module that does not import torch."""

from __future__ import annotations

OBJECTIVE = "score"
"""Key of the metric that a search maximises by default: (mask_iou + depth_delta1) / 2, in 0..1."""
MODE = "max"
"""Optimisation direction of `OBJECTIVE`."""
WORST = 0.0
"""Value of `OBJECTIVE` for a trial that diverged or violates a constraint."""

METRICS = (
    "score",
    "mask_iou", "mask_rmse", "mask_mae", "mask_delta1", "mask_delta2", "mask_delta3",
    "depth_rmse", "depth_mae", "depth_delta1", "depth_delta2", "depth_delta3",
)  # fmt: skip
"""Keys of the result of `trainable.metrics.pooled.MetricSums.compute`."""
DEPTH_IMAGES = "depth_images"
"""Key of the number of images with a measured depth, beside `METRICS` if others have none."""
ERRORS = tuple(name for name in METRICS if name.endswith(("_rmse", "_mae")))
"""Metrics of which smaller is better. All others are in 0..1, and larger is better."""

TRAINED, DIVERGED, CONSTRAINT = "trained", "diverged", "constraint"
"""Values of the metric `outcome`."""
TIME_ATTR = "epoch"
"""Key of the epoch, counted from 1."""
