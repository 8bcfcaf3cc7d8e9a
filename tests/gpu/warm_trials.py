"""Trials one after the other in a process with a GPU, as a search runs them, without Ray: is the memory given back?

python tests/gpu/warm_trials.py

Each line is a trial: the megabytes that it left allocated and reserved on the device, its peak, and how it ended. All
are run twice, a third of them to their end, others stopped or diverging; the second round may leave no more than the
first one. The last line says whether it did. Where there is no GPU the script says so.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from data.dataset.dataset import Dataset, write_dataset
from data.loader import Loader
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.loop import EpochEnd, NonFiniteLossError
from trainable.loop.state import DistributedContext, Training

FAMILIES = {"resunet": 16, "pair": 16, "sepunet": 32, "dmnet-cnn": 8, "resnet-dual": 8}
HOW = ("to its end", "stopped", "diverging")
ROUNDS, EPOCHS = 2, 2
ROOM = 2**20
"""Bytes by which the second round may be above the first one."""


def main() -> int:
    """Run all trials; 1 if memory was left, else 0."""
    if not torch.cuda.is_available():
        _write("no GPU here: nothing was checked")
        return 0
    device = torch.device("cuda", 0)
    with tempfile.TemporaryDirectory() as directory:
        data = _dataset(Path(directory) / "set")
        left = [[_leaves(number, data, device) for number in range(15)] for _ in range(ROUNDS)]
    first, second = (tuple(map(max, zip(*each, strict=True))) for each in left)
    grew = any(later > earlier + ROOM for earlier, later in zip(first, second, strict=True))
    _write(f"{'FAILED' if grew else 'ok'}  the second round leaves no more than the first one")
    return int(grew)


def _leaves(number: int, data: TrialData, device: torch.device) -> tuple[int, int]:
    """Bytes allocated and reserved on the device after a trial."""
    how, (family, width) = HOW[number % len(HOW)], list(FAMILIES.items())[number % len(FAMILIES)]
    values: dict[str, Any] = {
        "data": {"image_size": (64, 96)[number % 2], "batch_size": (16, 32)[number // 2 % 2]},
        "model": {"family": family, "width": width, "precision": ("bf16", "fp32")[number % 2]},
        "optimizer": {"name": ("sgd", "adam", "adamw")[number % 3]},
        "epochs": EPOCHS,
    }
    if how == "diverging":
        values |= {"optimizer": {"name": "sgd", "lr": 1e30, "clip_norm": 0.0}, "policy": {"name": "constant"}}
    config = build(TrialConfig, values, source="this script")

    def report(end: EpochEnd, training: Training, val: Loader | None) -> None:
        if how == "stopped":
            sys.exit(0)  # as Ray Tune does it

    try:
        with trial.releasing_memory(device):
            trial.run(config, data, context=DistributedContext(device=device), report=report)
    except (SystemExit, NonFiniteLossError) as error:
        return _measured(f"{family}, {how}: {type(error).__name__}", device)
    return _measured(f"{family}, {how}", device)


def _measured(name: str, device: torch.device) -> tuple[int, int]:
    """While an error is still about."""
    allocated, reserved = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    peak = torch.cuda.max_memory_allocated(device)
    _write(f"{allocated / 1e6:8.1f} MB allocated {reserved / 1e6:8.1f} reserved {peak / 1e6:8.1f} peak  {name}")
    return allocated, reserved


def _dataset(path: Path) -> TrialData:
    scenes = SceneSet(seed=3, backgrounds=20, per_background=4, size=96)
    write_dataset(render(scenes), path, source={"kind": "scenes"})
    return TrialData(path=str(path), fingerprint=Dataset.open(path).info.fingerprint)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
