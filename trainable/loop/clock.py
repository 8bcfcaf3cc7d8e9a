"""Where a trial's time goes, and how much memory it takes at its peak.

On a GPU the host runs ahead of the device: what runs there is timed by the device's own events, which are read once an
epoch, so that nobody waits for them in between.
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
"""data: waiting for the next batch. transfer: uint8 to floats on the device; where batches are made ahead, their copy
runs beside the step before. The others are what they say; what is none of them is 'other'."""

PHASES: tuple[Phase, ...] = get_args(Phase)
OTHER = "other"

_ON_DEVICE = frozenset(("transfer", "forward", "loss", "backward", "optimizer"))
_RESET_PEAK = "5"
"""What Linux's clear_refs takes to mean: forget the peak."""


class Clock:
    """Adds up the seconds of each phase since it was last read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start()

    @contextlib.contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """What runs within it counts as `phase`; phases do not nest."""
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
        """Wall seconds since the last reading, and each phase's share of them, 0..1; then it starts anew.

        On a GPU the device may work on one batch while the host waits for the next: shares may then add up to more
        than 1, and 'other' is 0.
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


def forget_peaks(device: torch.device) -> None:
    """Let `peaks` tell of what comes from now on: a process has many trials, one after the other."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="utf-8")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peaks(device: torch.device) -> dict[str, float]:
    """GB at the peak: `host`, of this process, mapped files that it touched among it; and on a GPU `device`."""
    found = {"host": _host_peak() / 1e9}
    if device.type == "cuda":
        found["device"] = torch.cuda.max_memory_allocated(device) / 1e9
    return found


def _host_peak() -> int:
    """Bytes; where the kernel does not say, those of the process since its start."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
