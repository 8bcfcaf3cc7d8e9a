"""A training step in fp32 and in bf16, by width: why `trainable/loop/precision.py` measures, and does not rule.

python tests/benchmarks/precision.py [--size 96] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

from trainable.config import LossConfig, ModelConfig, OptimizerConfig
from trainable.loop.precision import autocast
from trainable.loss.dual_loss import DualLoss
from trainable.models import build_model
from trainable.optim.optimizers import build_optimizer

BATCH = 16
STEPS = 5


def main() -> None:
    """Measure both sides of every width in one run, taking turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(width, options.size) for width in (8, 16, 32)]
    write(f"{'width':>5} {'fp32 samples/s':>15} {'bf16 samples/s':>15} {'bf16 / fp32':>12}")
    for row in rows:
        write(f"{row['width']:>5} {row['fp32']:>15.1f} {row['bf16']:>15.1f} {row['ratio']:>12.2f}")
    if options.json:
        ratios = {f"width {row['width']:.0f}": row["ratio"] for row in rows}
        options.json.write_text(json.dumps({"ratios": ratios, "rows": rows}, indent=2) + "\n")


def measure(width: int, size: int) -> dict[str, float]:
    """Samples a second of a whole training step in both precisions, by the median of steps that take turns."""
    sides = {name: Side(width, size, name) for name in ("fp32", "bf16")}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 + STEPS):
        for name, side in sides.items():
            seconds[name].append(side.step())
    rates = {name: BATCH / statistics.median(taken[1:]) for name, taken in seconds.items()}
    return {"width": width, **rates, "ratio": rates["bf16"] / rates["fp32"]}


class Side:
    """A network, its optimizer and a batch."""

    def __init__(self, width: int, size: int, precision: str) -> None:
        torch.manual_seed(0)
        self.config = ModelConfig.model_validate({"width": width, "precision": precision})
        self.network = build_model(self.config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer([list(self.network.parameters())], OptimizerConfig())
        self.loss = DualLoss(LossConfig())
        self.photo = torch.rand(BATCH, 3, size, size).contiguous(memory_format=torch.channels_last)
        self.plane = torch.rand(BATCH, 1, size, size)

    def step(self) -> float:
        """Seconds of a forward and backward pass and an optimizer step."""
        started = time.perf_counter()
        with autocast(self.config, torch.device("cpu")):
            prediction = self.network(self.photo, self.photo)
        total, _ = self.loss(prediction, self.plane, self.plane)
        self.optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return time.perf_counter() - started


def write(line: str) -> None:
    """A line of the table."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
