"""Wall time of a trial by phase, and its peak memory.

On a GPU the host runs ahead of the device. Device work is timed with CUDA events, which are read once an epoch to avoid
further synchronisation.
"""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

Phase = Literal["data", "transfer", "forward", "loss", "backward", "optimizer", "evaluation", "checkpoint"]
"""'data' is the wait for the next batch. 'transfer' is the conversion of uint8 to floats on the device; prefetched
batches are copied during the previous step. Time outside of all phases is 'other'."""

PHASES: tuple[Phase, ...] = get_args(Phase)
OTHER = "other"

_ON_DEVICE = frozenset(("transfer", "forward", "loss", "backward", "optimizer"))
_RESET_PEAK = "5"
"""Written to Linux's clear_refs, it resets the peak memory of the process."""


class Clock:
    """Adds up the seconds of each phase since the last `read`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start()

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Count the time in this context as `phase`. Phases must not be nested."""
        if self._device.type == "cuda" and phase in _ON_DEVICE:
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            first.record()
            yield
            last.record()
            self._events.append((phase, first, last))
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] += time.perf_counter() - started

    def read(self) -> tuple[float, dict[str, float]]:
        """Wall seconds since the last `read`, and the share of each phase in 0..1; then restart the clock.

        On a GPU, shares can add up to more than 1, because the device computes while the host waits for the next batch;
        'other' is then 0.
        """
        if self._events:
            torch.cuda.synchronize(self._device)
        for phase, first, last in self._events:
            self._seconds[phase] += first.elapsed_time(last) / 1000
        wall = time.perf_counter() - self._started
        shares = {name: seconds / wall for name, seconds in self._seconds.items()}
        self._start()
        return wall, shares | {OTHER: max(0.0, 1 - sum(shares.values()))}

    def _start(self) -> None:
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._events: list[tuple[Phase, torch.cuda.Event, torch.cuda.Event]] = []


def reset_peaks(device: torch.device) -> None:
    """Reset the peaks, because a process runs many trials one after the other."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="utf-8")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, float]:
    """Peak memory in GB: `host` of this process, including mapped files that were read; on a GPU also `device`."""
    found = {"host": _host_peak() / 1e9}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def _host_peak() -> int:
    """Peak memory in bytes; if the kernel does not report a peak that can be reset, the peak since process start."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
