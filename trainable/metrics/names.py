"""What a trial reports, by name; who only reads reports need not wait for torch."""

from __future__ import annotations

OBJECTIVE = "score"
"""Key of the metric that a search optimises: (mask_iou + depth_delta1) / 2, in 0..1."""
MODE = "max"
"""More of `OBJECTIVE` is better."""
WORST = 0.0
"""What a trial whose loss was not finite is told to have reached."""

METRICS = (
    "score",
    "mask_iou", "mask_rmse", "mask_mae", "mask_delta1", "mask_delta2", "mask_delta3",
    "depth_rmse", "depth_mae", "depth_delta1", "depth_delta2", "depth_delta3",
)  # fmt: skip
"""Keys of what `trainable.metrics.MetricSums.compute` returns."""

TRAINED, DIVERGED, CONSTRAINT = "trained", "diverged", "constraint"
"""Values of the metric `outcome`."""
TIME_ATTR = "epoch"
"""Key of the epoch, counted from 1."""
