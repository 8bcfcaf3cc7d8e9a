"""The default search space: all published families, and the hyperparameters in which their authors differ."""

from __future__ import annotations

from typing import Any

WEIGHT = {"low": 0.0, "high": 2.0}
"""Weight of a head's first loss."""
OPTIONAL_WEIGHT = {"low": 0.1, "high": 2.0, "log": True, "or_zero": True}
"""Weight of another loss, which is 0 in half of the trials; then its parameters are not searched either."""
DROPOUT = {"low": 0.0, "high": 0.3}
NO_DROPOUT = {"choices": [0.0]}

DEFAULT_SPACE: dict[str, Any] = {
    "data": {
        "batch_size": {"choices": [8, 16, 32]},
        "augment": {
            "jitter": {"low": 0.05, "high": 0.4, "or_zero": True},
            "rotate": {"low": 2.0, "high": 20.0, "or_zero": True},
        },
    },
    "model": {
        "family": {
            "choices": [
                "resunet",
                "resunet-lite",
                "pair",
                "dmnet-cnn",
                "dmnet-cnn-v1",
                "dmnet-resnet",
                "resnet-dual",
                "sepunet",
            ]
        },
        "width": {
            "per": "model.family",
            "resunet": {"choices": [8, 16, 32]},
            "resunet-lite": {"choices": [16, 32, 64]},
            "pair": {"choices": [8, 16, 32]},
            "dmnet-cnn": {"choices": [8, 16]},
            "dmnet-cnn-v1": {"choices": [8, 16]},
            "dmnet-resnet": {"choices": [8, 16]},
            "resnet-dual": {"choices": [8, 16, 32]},
            "sepunet": {"choices": [16, 32, 64]},
            "debug": {"choices": [2, 4]},
        },
        "dropout": {
            "per": "model.family",
            "resunet": NO_DROPOUT,
            "resunet-lite": NO_DROPOUT,
            "pair": DROPOUT,
            "dmnet-cnn": DROPOUT,
            "dmnet-cnn-v1": DROPOUT,
            "dmnet-resnet": DROPOUT,
            "resnet-dual": DROPOUT,
            "sepunet": NO_DROPOUT,
            "debug": NO_DROPOUT,
        },
        "depth_activation": {"choices": ["linear", "sigmoid", "minmax"]},
    },
    "loss": {
        "mask": {"bce": WEIGHT, "dice": OPTIONAL_WEIGHT, "l1": OPTIONAL_WEIGHT},
        "depth": {"l1": WEIGHT, "ssim": OPTIONAL_WEIGHT, "edge": OPTIONAL_WEIGHT},
        "ssim": {"window": {"choices": [3, 7, 11]}},
        "combine": {"choices": ["sum", "sqrt", "uncertainty"]},
    },
    "optimizer": {
        "name": {"choices": ["sgd", "adam", "adamw"]},
        "lr": {
            "per": "optimizer.name",
            "sgd": {"low": 1e-2, "high": 1.0, "log": True},
            "adam": {"low": 3e-4, "high": 2e-2, "log": True},
            "adamw": {"low": 3e-4, "high": 2e-2, "log": True},
        },
        "weight_decay": {"choices": [0.0, 1e-5, 1e-4, 1e-3, 1e-2]},
    },
    "policy": {
        "name": {"choices": ["constant", "step", "plateau", "cyclic", "onecycle", "cosine"]},
        "warmup": {"low": 0.0, "high": 0.2},
        "step": {"every": {"low": 0.1, "high": 0.5}, "factor": {"low": 0.1, "high": 0.7}},
        "plateau": {"patience": {"low": 0.0, "high": 0.3}, "factor": {"low": 0.1, "high": 0.7}},
        "cyclic": {
            "period": {"low": 0.02, "high": 1.0, "log": True},
            "floor": {"low": 1e-3, "high": 0.1, "log": True},
            "halve": {"choices": [True, False]},
        },
        "onecycle": {
            "pct_start": {"low": 0.1, "high": 0.5},
            "div": {"low": 3.0, "high": 30.0, "log": True},
            "final_div": {"low": 1e2, "high": 1e4, "log": True},
            "anneal": {"choices": ["cos", "linear"]},
        },
        "cosine": {"floor": {"low": 0.0, "high": 0.1}},
    },
}
"""Nested like a spec; other leaves are fixed at the default of `TrialConfig`."""
