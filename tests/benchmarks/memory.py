"""Peak memory of writing, reading, verifying and caching a data set, at two numbers of samples.

.venv/bin/python tests/benchmarks/memory.py [--json FILE] [--samples 2000 20000]

Each is a process of its own; what it has when it has only loaded the library is its base.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from results import arguments, publish

from data.cache.cache import decoded
from data.dataset.dataset import Dataset, write_dataset
from data.dataset.verify import verify
from data.images import encode_png
from data.schema import EncodedSample

SIDE = 48
VARIANTS = 16
"""Different pictures; they are stored anew with each sample."""
PART_BYTES = 8 * 2**20
TASKS = ("base", "write", "ids", "read", "verify", "on_the_fly")


def main() -> None:
    """Run every task at every number of samples, and compare the peaks."""
    parser = arguments(__doc__)
    parser.add_argument("--samples", type=int, nargs=2, default=(2000, 20000), metavar="N")
    parser.add_argument("--task", nargs=2, metavar=("TASK", "PATH"), help="run one here and print its peak")
    options = parser.parse_args()
    if options.task:
        print(_run(options.task[0], Path(options.task[1]), options.samples[0]))  # noqa: T201 - for the process above
        return
    few, many = options.samples
    rows: list[dict[str, str | float]] = []
    with tempfile.TemporaryDirectory() as directory:
        for task in TASKS:
            peaks = {count: _peak(task, Path(directory) / f"{count}", count) for count in (few, many)}
            rows.append({"task": task, f"MiB at {few}": peaks[few], f"MiB at {many}": peaks[many]})
        stored = sum(file.stat().st_size for file in (Path(directory) / f"{many}").iterdir()) / 2**20
    rows.append({"task": "data set", f"MiB at {few}": stored * few / many, f"MiB at {many}": stored})
    ratios = {f"{row['task']}_growth": float(row[f"MiB at {many}"]) / float(row[f"MiB at {few}"]) for row in rows}
    publish(rows, ratios, options.json)


def _peak(task: str, path: Path, count: int) -> float:
    command = [sys.executable, __file__, "--samples", str(count), str(count), "--task", task, str(path)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _run(task: str, path: Path, count: int) -> float:
    """Peak resident memory in MiB of this process."""
    if task == "write":
        write_dataset(_samples(count), path, source={}, part_bytes=PART_BYTES)
    elif task == "ids":
        _ = Dataset.open(path).ids
    elif task == "read":
        for _sample in Dataset.open(path).read():
            pass
    elif task == "verify":
        verify(path, threads=2)
    elif task == "on_the_fly":
        _decode_on_the_fly(path, count)
    status = Path("/proc/self/status").read_text()
    return float(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def _decode_on_the_fly(path: Path, count: int) -> None:
    """All samples in batches, where the cache has room for the encoded images alone."""
    stored = sum(file.stat().st_size for file in path.iterdir())
    os.environ["TWINHEAD_CACHE_GB"] = str(1.1 * stored / 1e9)
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings(action="ignore"):
        split = decoded(Dataset.open(path), [np.arange(count)], 2 * SIDE, root=Path(root))
        for rows in np.array_split(np.arange(count), -(-count // 32)):
            split.gather(rows)


def _samples(count: int) -> Iterator[EncodedSample]:
    generator = np.random.default_rng(0)
    photos = [encode_png(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)) for _ in range(VARIANTS)]
    planes = [encode_png(generator.integers(0, 256, (SIDE, SIDE), np.uint8)) for _ in range(VARIANTS)]
    for number in range(count):
        yield EncodedSample(
            sample_id=f"sample-{number}",
            bg_id=f"bg{number % VARIANTS}",
            fg_id=f"fg{number % 100}",
            bg=photos[number % VARIANTS],
            fg_bg=bytes(bytearray(photos[(number + 1) % VARIANTS])),
            mask=bytes(bytearray(planes[number % VARIANTS])),
            depth=bytes(bytearray(planes[(number + 1) % VARIANTS])),
        )


if __name__ == "__main__":
    main()
