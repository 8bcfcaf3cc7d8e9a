"""A training step by number of threads, beside a load and without, with OpenMP threads that spin and that sleep.

python tests/benchmarks/threads.py [--size 64] [--width 16] [--batch 16] [--steps 15] [--json FILE]

The load is one busy Python loop on each core. libgomp reads how its threads wait when it is loaded, so each way of
waiting has a process of its own; the processes take turns, and a figure is the median of their steps. 'default' is what
libgomp does where nothing is set; 'passive' is what `twinhead` sets for itself and for its trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from results import Row, arguments, publish

from search.run.cluster import ENVIRONMENT

WAITING: dict[str, dict[str, str]] = {"default": {}, "passive": {"OMP_WAIT_POLICY": ENVIRONMENT["OMP_WAIT_POLICY"]}}
PRECISIONS = ("fp32", "bf16")


def main() -> None:
    """Measure every combination in one run."""
    parser = arguments(__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        answer(options)
        return
    threads = sorted({1, 2, len(os.sched_getaffinity(0))})
    rows: list[Row] = []
    seconds: dict[tuple[str, str, str, int], float] = {}
    with workers(options) as processes:
        for load in ("none", "loops"):
            with busy_cores(load == "loops"):
                for precision in PRECISIONS:
                    taken = measure(processes, precision, threads, options.steps)
                    seconds |= {(load, precision, waiting, count): value for (waiting, count), value in taken.items()}
    for (load, precision, waiting, count), value in seconds.items():
        row: dict[str, str | float] = {"load": load, "precision": precision, "waiting": waiting, "threads": count}
        rows.append(row | {"ms": 1000 * value, "of 1 thread": value / seconds[load, precision, waiting, 1]})
    ratios = {}
    for load in ("none", "loops"):
        for precision in PRECISIONS:
            default, passive = (seconds[load, precision, waiting, threads[-1]] for waiting in WAITING)
            ratios[f"load {load} {precision} on {threads[-1]} threads, default / passive"] = default / passive
    publish(rows, ratios, options.json)


def measure(
    processes: dict[str, subprocess.Popen[str]], precision: str, threads: list[int], steps: int
) -> dict[tuple[str, int], float]:
    """The median seconds of a step of each process and number of threads, which take turns."""
    taken: dict[tuple[str, int], list[float]] = {}
    for number in range(1 + steps):
        for count in threads:
            for waiting, process in processes.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(f"{precision} {count}\n")
                process.stdin.flush()
                value = float(process.stdout.readline())
                if number > 0:
                    taken.setdefault((waiting, count), []).append(value)
    return {case: statistics.median(values) for case, values in taken.items()}


@contextmanager
def workers(options: argparse.Namespace) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """A process for each way of waiting, which answers `PRECISION THREADS` with the seconds of a step."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    given = [f"--{name}={getattr(options, name)}" for name in ("size", "width", "batch")]
    processes = {
        waiting: subprocess.Popen(
            [sys.executable, __file__, "--worker", *given],
            env=clean | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for waiting, variables in WAITING.items()
    }
    try:
        yield processes
    finally:
        for process in processes.values():
            process.kill()
            process.communicate()


@contextmanager
def busy_cores(wanted: bool) -> Iterator[None]:
    """Within it, a Python loop runs on every core, if that is wanted."""
    loop = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(loop) for _ in os.sched_getaffinity(0)] if wanted else []
    try:
        time.sleep(1)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def answer(options: argparse.Namespace) -> None:
    """Take a step for each line of standard input, and write its seconds."""
    import torch

    from trainable.config import TrialConfig, build
    from trainable.loop.precision import build_step

    values = {
        "data": {"image_size": options.size, "batch_size": options.batch},
        "model": {"family": "resunet", "width": options.width},
    }
    config = build(TrialConfig, values, source="the benchmark")
    step = build_step(config, torch.device("cpu"), images=options.batch)
    models = {precision: config.model.model_copy(update={"precision": precision}) for precision in PRECISIONS}
    for line in sys.stdin:
        precision, count = line.split()
        torch.set_num_threads(int(count))
        sys.stdout.write(f"{step(models[precision])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
