"""Number of CPU threads of a network: the fastest of several, measured, up to a limit.

On a busy machine, many threads can be slower than one, because each operation waits for its slowest thread
(`tests/benchmarks/threads.py`). The load changes, so the result is not stored.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from trainable.config import TrialConfig
from trainable.loop.precision import MAX_IMAGES, build_step

_ROUNDS = 5
"""In each round, one step is measured with each number of threads."""
_SECONDS = 6.0
"""No round starts after this time; a slow network is measured in fewer rounds."""
_GAIN = 1.1
"""Minimum speed-up for which more threads are used; the CPUs are also needed by other processes."""
_MIN_WORK = 10
"""The threads are measured only for training on at least this many times the samples of the measurement itself."""


@dataclass(frozen=True, kw_only=True)
class Threads:
    """The chosen number of threads, and the measurement behind it."""

    count: int
    seconds: Mapping[int, float] = field(default_factory=dict)
    """Median seconds of a training step by number of threads; empty if they were not measured."""


def use_fastest_threads(
    config: TrialConfig, device: torch.device, *, limit: int, samples: int | None = None
) -> Threads:
    """Set torch's number of threads to the fastest of 1, 2, 4, … and `limit`.

    `limit` is used without a measurement on a single core, on a GPU, and for short trainings.

    Args:
        config: the configuration of the network, with its precision resolved.
        device: the device of the network.
        limit: maximum number of threads.
        samples: total samples of the training, over all epochs; None to always measure.
    """
    counts = thread_counts(limit)
    images = min(MAX_IMAGES, config.data.batch_size)
    is_short = samples is not None and samples < _MIN_WORK * images * len(counts) * (1 + _ROUNDS)
    chosen = Threads(count=limit)
    if len(counts) > 1 and device.type == "cpu" and not is_short:
        seconds = _measure(config, device, counts, images)
        chosen = Threads(count=fastest(seconds), seconds=seconds)
    torch.set_num_threads(chosen.count)
    return chosen


def thread_counts(limit: int) -> list[int]:
    """The numbers of threads to measure: 1, 2, 4, … and `limit`."""
    return [*itertools.takewhile(lambda count: count < limit, (2**power for power in itertools.count())), limit]


def fastest(seconds: Mapping[int, float]) -> int:
    """The number of threads to use: a larger one only if it is faster by a margin.

    Args:
        seconds: seconds of a step by number of threads.
    """
    chosen, *larger = sorted(seconds)
    for count in larger:
        if seconds[chosen] >= _GAIN * seconds[count]:
            chosen = count
    return chosen


def _measure(config: TrialConfig, device: torch.device, counts: list[int], images: int) -> dict[int, float]:
    step = build_step(config, device, images=images)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    deadline = time.perf_counter() + _SECONDS
    for number in range(1 + _ROUNDS):
        for count in counts:
            torch.set_num_threads(count)
            seconds = step(config.model)
            if number > 0:  # the first step is slower
                taken[count].append(seconds)
        if number > 0 and time.perf_counter() > deadline:
            break
    return {count: statistics.median(values) for count, values in taken.items()}
