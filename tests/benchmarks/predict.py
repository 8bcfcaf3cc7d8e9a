"""Predictions a second from files: pairs together, one at a time, and one at a time with the network loaded each time.

python tests/benchmarks/predict.py [--pairs 64] [--size 224] [--device cuda] [--json FILE]

The network is a ResUNet of width 16 for 96 px with random weights. All sides read the same PNG files and write mask,
depth and overlay of their size. The sides take turns; a figure is the median of three rounds. `kept` is the same
command again, which finds every prediction made. The last side loads the network for each pair, as a command for each
pair does, without the start of its process.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from results import Row, arguments, publish

from data.images import encode_png
from trainable.config import TrialConfig, build
from trainable.evaluation.pairs import Pair, pair_of_files
from trainable.evaluation.predict import predict_pairs
from trainable.evaluation.predictor import Predictor
from trainable.loop import checkpoint
from trainable.loop.checkpoint_files import Origin
from trainable.models import build_model

ROUNDS = 3
ONE_BY_ONE = 16
"""Pairs of the sides that predict one at a time, which are slower."""


def main() -> None:
    """Measure all sides, and print them."""
    options = _options()
    with tempfile.TemporaryDirectory() as directory:
        rates = measure(Path(directory), options.pairs, options.size, torch.device(options.device))
    rows: list[Row] = [{"side": side, "pairs/s": rate} for side, rate in rates.items()]
    together = rates["together"]
    ratios = {f"together_over_{side}": together / rates[side] for side in ("one_by_one", "loaded_each_time")}
    publish(rows, ratios, options.json)


def _options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    return parser.parse_args()


def measure(root: Path, count: int, size: int, device: torch.device) -> dict[str, float]:
    """Pairs a second of each side."""
    pairs, saved = _pairs(root, count, size), _saved(root)
    predictor, few = Predictor(saved, device), pairs[:ONE_BY_ONE]
    out = root / "out"
    sides: dict[str, tuple[int, Callable[[], object]]] = {
        "together": (count, lambda: list(predict_pairs(predictor, pairs, out))),
        "kept": (count, lambda: list(predict_pairs(predictor, pairs, out))),
        "one_by_one": (len(few), lambda: [list(predict_pairs(predictor, [pair], out)) for pair in few]),
        "loaded_each_time": (
            len(few),
            lambda: [list(predict_pairs(Predictor(saved, device), [pair], out)) for pair in few],
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 + ROUNDS):
        for name, (_, side) in sides.items():
            if name != "kept":
                shutil.rmtree(out, ignore_errors=True)
            started = time.perf_counter()
            side()
            seconds[name].append(time.perf_counter() - started)
    return {name: sides[name][0] / statistics.median(taken[1:]) for name, taken in seconds.items()}


def _pairs(root: Path, count: int, size: int) -> list[Pair]:
    """Smooth pictures of noise, with a disc in front of them."""
    rng, pairs = np.random.default_rng(0), []
    for number in range(count):
        bg = cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (size, size))
        fg_bg = cv2.circle(bg.copy(), (size // 2, size // 2), size // 5, (200, 40, 40), thickness=-1)
        files = [root / f"{number}-{kind}.png" for kind in ("bg", "fg_bg")]
        for file, pixels in zip(files, (bg, fg_bg), strict=True):
            file.write_bytes(encode_png(np.asarray(pixels, np.uint8)))
        pairs.append(pair_of_files(*files, name=str(number)))
    return pairs


def _saved(root: Path) -> Path:
    values = {"data": {"image_size": 96}, "model": {"family": "resunet", "width": 16, "precision": "fp32"}}
    config = build(TrialConfig, values, source="the benchmark")
    origin = Origin(config=config, data_fingerprint="none", epoch=0)
    checkpoint.save(root / "network", build_model(config.model), origin, {})
    return root / "network"


if __name__ == "__main__":
    main()
