"""How many threads a network gets on a CPU: as many as are measured to be fastest, up to a limit.

On a busy machine, more threads are slower than one: each part of a step waits for the thread that the operating system
runs last (`tests/benchmarks/threads.py`). The load changes, so nothing is remembered.
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
"""A round is a step on each number of threads."""
_SECONDS = 6.0
"""No round begins later; a slow network is measured in fewer."""
_GAIN = 1.1
"""Twice the threads must make a step so many times as fast: what others need of the machine is worth something, too."""
_WORTH = 10
"""Work on fewer samples than so many times those of the measurement is not measured for."""


@dataclass(frozen=True, kw_only=True)
class Threads:
    """How many threads there are, and why."""

    count: int
    seconds: Mapping[int, float] = field(default_factory=dict)
    """Of a training step, by number of threads: the median of several. Empty where nothing was measured."""


def use_fastest_threads(
    config: TrialConfig, device: torch.device, *, limit: int, samples: int | None = None
) -> Threads:
    """Set torch's number of threads to the fastest of 1, 2, 4, … and `limit`, measured in turn.

    A single core, a GPU and little work are not measured: they get `limit`.

    Args:
        config: the network's; its precision is decided.
        device: where it runs.
        limit: of the threads.
        samples: how many the work goes through, each as often as it does; None is as many as it takes.
    """
    counts = thread_counts(limit)
    images = min(MAX_IMAGES, config.data.batch_size)
    little = samples is not None and samples < _WORTH * images * len(counts) * (1 + _ROUNDS)
    chosen = Threads(count=limit)
    if len(counts) > 1 and device.type == "cpu" and not little:
        seconds = _measure(config, device, counts, images)
        chosen = Threads(count=fastest(seconds), seconds=seconds)
    torch.set_num_threads(chosen.count)
    return chosen


def thread_counts(limit: int) -> list[int]:
    """1, 2, 4, … and `limit`."""
    return [*itertools.takewhile(lambda count: count < limit, (2**power for power in itertools.count())), limit]


def fastest(seconds: Mapping[int, float]) -> int:
    """The number of threads to use: a larger one only where it is faster than every smaller one by a margin.

    Args:
        seconds: of a step, by number of threads.
    """
    chosen, *larger = sorted(seconds)
    for count in larger:
        if seconds[chosen] >= _GAIN * seconds[count]:
            chosen = count
    return chosen


def _measure(config: TrialConfig, device: torch.device, counts: list[int], images: int) -> dict[int, float]:
    step = build_step(config, device, images=images)
    taken: dict[int, list[float]] = {count: [] for count in counts}
    ends = time.perf_counter() + _SECONDS
    for number in range(1 + _ROUNDS):
        for count in counts:
            torch.set_num_threads(count)
            seconds = step(config.model)
            if number > 0:  # the first one is slower
                taken[count].append(seconds)
        if number > 0 and time.perf_counter() > ends:
            break
    return {count: statistics.median(values) for count, values in taken.items()}
