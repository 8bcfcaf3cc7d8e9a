"""How much of a real training run waits for data: at 96 px on real pictures, by the run's own metrics.

python tests/benchmarks/wait.py [DATA] [--size 96] [--epochs 3] [--device cuda] [--json FILE]

DATA is a data set; without it, $TWINHEAD_REAL/nyu_composed is imported, and removed at the end. The other side is the
same run with the pictures decoded anew for every batch, as the published projects had it.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from results import arguments, publish, write

from data.dataset.dataset import Dataset, write_dataset
from data.importers.importers import import_source
from data.loader import Loader
from trainable import trial
from trainable.config import TrialConfig, build
from trainable.job import TrialData
from trainable.loop.clock import OTHER, PHASES
from trainable.loop.loop import EpochEnd
from trainable.loop.state import DistributedContext, Training

CPU_LIMIT, GPU_LIMIT = 0.02, 0.05
"""Share of wall time that may go into waiting."""


def main() -> None:
    """Train twice, with the cache and without, and print where the time went."""
    parser = arguments(__doc__)
    parser.add_argument("data", nargs="?")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    sections = {
        "data": {"image_size": options.size, "batch_size": options.batch, "augment": {"hflip": 0.5}},
        "model": {"family": "resunet", "width": options.width},
        "epochs": options.epochs,
    }
    config = build(TrialConfig, sections, source="the command line")
    rows = []
    with dataset(options.data) as data:
        rows.append({"way": "decoded once"} | shares(config, data, device))
        with no_cache():
            rows.append({"way": "decoded on the fly"} | shares(config, data, device))
    waits = [float(row["data"]) for row in rows]
    publish(rows, {"wait": waits[0], "saved": waits[1] / waits[0]}, options.json)
    limit = GPU_LIMIT if device.type == "cuda" else CPU_LIMIT
    write(f"waiting for data: {waits[0]:.2%} of wall time (limit {limit:.0%})")


def shares(config: TrialConfig, data: TrialData, device: torch.device) -> dict[str, str | float]:
    """Shares of the wall time of all epochs but the first, and samples a second."""
    ends: list[EpochEnd] = []

    def report(end: EpochEnd, training: Training, _: Loader | None) -> None:
        ends.append(end)
        if end.save is not None:
            with tempfile.TemporaryDirectory() as directory:
                end.save(Path(directory))

    trial.run(config, data, context=DistributedContext(device=device), report=report)
    counted = ends[1:] or ends
    seconds = sum(end.metrics["seconds"] for end in counted)
    found: dict[str, str | float] = {
        phase: sum(end.metrics[f"time_{phase}"] * end.metrics["seconds"] for end in counted) / seconds
        for phase in (*PHASES, OTHER)
    }
    return found | {"samples/s": counted[-1].metrics["samples_per_second"]}


@contextmanager
def dataset(path: str | None) -> Iterator[TrialData]:
    """The data set at `path`, or the real pictures as one."""
    with tempfile.TemporaryDirectory() as directory:
        if path is None:
            path = str(Path(directory) / "nyu")
            found = import_source(Path(os.environ["TWINHEAD_REAL"]) / "nyu_composed", layout=None, depth_polarity=None)
            write_dataset(found.samples(), path, source=found.source)
        yield TrialData(path=path, fingerprint=Dataset.open(path).info.fingerprint)


@contextmanager
def no_cache() -> Iterator[None]:
    """Within it nothing fits into the cache; it is left as it was."""
    before = {name: os.environ.get(name) for name in ("TWINHEAD_CACHE", "TWINHEAD_CACHE_GB")}
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings(action="ignore"):
        os.environ |= {"TWINHEAD_CACHE": root, "TWINHEAD_CACHE_GB": "0"}
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


if __name__ == "__main__":
    main()
