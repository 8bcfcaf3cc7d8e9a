"""A run: its device, the sizes that fit it, the time that is left, rendered images, and the findings so far."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from data.dataset.dataset import write_dataset
from data.scenes.render import render
from data.scenes.scenes import SceneSet
from data.schema import Batch, EncodedSample
from tests.gpu.findings import Finding, Group, Measure
from trainable.job import TrialData
from trainable.loop.state import DistributedContext

DISTINCT = 8
"""Rendered images of `Session.images`; more are repetitions of them."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of all parts: sides in pixels, and numbers of images."""

    width_divisor: int
    """Networks have their published width divided by it."""
    checked_side: int
    checked_batch: int
    augmented_side: int
    augmented_count: int
    trial_sides: tuple[int, int]
    crowded_side: int
    crowded_batch: int
    """Of the batch that does not fit into memory."""
    step_side: int
    step_batch: int
    steps: int
    loader_rooms: int
    loader_copies: int
    """Each rendered sample is stored so many times, because rendering takes longer than loading."""
    loader_epochs: int


ON_GPU = Sizes(
    width_divisor=1,
    checked_side=64,
    checked_batch=4,
    augmented_side=224,
    augmented_count=256,
    trial_sides=(64, 96),
    crowded_side=128,
    crowded_batch=32,
    step_side=224,
    step_batch=32,
    steps=15,
    loader_rooms=16,
    loader_copies=64,
    loader_epochs=4,
)
ON_CPU = Sizes(
    width_divisor=4,
    checked_side=32,
    checked_batch=4,
    augmented_side=64,
    augmented_count=64,
    trial_sides=(32, 48),
    crowded_side=32,
    crowded_batch=8,
    step_side=32,
    step_batch=2,
    steps=3,
    loader_rooms=4,
    loader_copies=4,
    loader_epochs=2,
)


@dataclass(kw_only=True)
class Session:
    """What parts use: they add findings, and start nothing once the time is over."""

    device: torch.device
    directory: Path
    """For data sets and the cache, which the run removes."""
    ends: float
    """When the time is over, by `time.perf_counter`."""
    findings: list[Finding] = field(default_factory=list)
    part: str = ""
    """Name of the current part."""
    group: Group = "correctness"
    """Its group."""

    def __post_init__(self) -> None:
        self._datasets: dict[tuple[int, ...], TrialData] = {}

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def sizes(self) -> Sizes:
        """The sizes for the device."""
        return ON_GPU if self.on_gpu else ON_CPU

    @property
    def context(self) -> DistributedContext:
        """That of the only process of a trial."""
        return DistributedContext(device=self.device)

    def left(self) -> float:
        """Seconds until the time is over."""
        return self.ends - time.perf_counter()

    def add(self, check: str, *measures: Measure, note: str = "") -> None:
        """Add a finding of the current part, and print it."""
        self.record(Finding(part=self.part, group=self.group, check=check, measures=measures, note=note))

    def record(self, finding: Finding) -> None:
        """Add a finding, and print it."""
        self.findings.append(finding)
        write(f"    {finding.state:<8}  {finding.check}: {finding}")

    def each(self, checks: Iterable[str], *, seconds: float = 0.0) -> Iterator[str]:
        """Yield the names of checks while at least so many seconds are left; the others become skipped findings."""
        for check in checks:
            if self.left() > seconds:
                yield check
            else:
                self.add(check, note=f"no time left: {max(0.0, self.left()):.0f} s, but it takes about {seconds:.0f} s")

    def goal(self, limit: float) -> float | None:
        """A limit that holds on a GPU; None on a CPU, where nothing says how fast it should be."""
        return limit if self.on_gpu else None

    def wait(self) -> None:
        """Wait until the device has done everything."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)

    def images(self, side: int, count: int) -> Batch:
        """A batch of rendered samples on the CPU, photographs in channels-last format."""
        scenes = SceneSet(seed=5, backgrounds=2, per_background=DISTINCT // 2, size=side)
        samples = [scenes[index] for index in range(min(count, DISTINCT))]
        samples = [samples[number % len(samples)] for number in range(count)]
        bg, fg_bg, mask, depth = (
            torch.from_numpy(np.stack([getattr(sample, name) for sample in samples]))
            for name in ("bg", "fg_bg", "mask", "depth")
        )
        return Batch(
            bg=bg.permute(0, 3, 1, 2), fg_bg=fg_bg.permute(0, 3, 1, 2), mask=mask[:, None], depth=depth[:, None]
        )

    def dataset(self, side: int, *, rooms: int, per_room: int, copies: int = 1) -> TrialData:
        """A data set of rendered scenes, written once: `rooms` * `per_room` different samples, `copies` times."""
        key = side, rooms, per_room, copies
        if key not in self._datasets:
            path = self.directory / "-".join(map(str, key))
            scenes = SceneSet(seed=3, backgrounds=rooms, per_background=per_room, size=side)
            samples = list(render(scenes, processes=None if self.on_gpu else 1))
            info = write_dataset(_repeated(samples, copies), path, source={"kind": "scenes"})
            self._datasets[key] = TrialData(path=str(path), fingerprint=info.fingerprint)
        return self._datasets[key]


def _repeated(samples: list[EncodedSample], copies: int) -> Iterator[EncodedSample]:
    for copy in range(copies):
        for sample in samples:
            yield replace(sample, sample_id=f"{sample.sample_id}-{copy}")


def write(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
