"""The parts of a run in their order. Another one is a function of a `Session` that adds findings, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.gpu.augmentation import check_augmentation
from tests.gpu.composition import check_composition, measure_composition
from tests.gpu.findings import Group
from tests.gpu.loading import measure_loader
from tests.gpu.memory import check_out_of_memory, check_trials
from tests.gpu.networks import check_families, check_precisions
from tests.gpu.session import Session
from tests.gpu.speed import measure_compiled, measure_steps


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a run."""

    group: Group
    run: Callable[[Session], None]
    seconds: float
    """What it needs on a GPU at least: with less time left it is not started."""


PARTS: dict[str, Part] = {
    "families": Part(group="correctness", run=check_families, seconds=10),
    "precision": Part(group="correctness", run=check_precisions, seconds=5),
    "augmentation": Part(group="correctness", run=check_augmentation, seconds=10),
    "composition": Part(group="correctness", run=check_composition, seconds=10),
    "trials": Part(group="correctness", run=check_trials, seconds=30),
    "out-of-memory": Part(group="correctness", run=check_out_of_memory, seconds=10),
    "step": Part(group="speed", run=measure_steps, seconds=10),
    "loader": Part(group="speed", run=measure_loader, seconds=60),
    "composing": Part(group="speed", run=measure_composition, seconds=20),
    "compile": Part(group="speed", run=measure_compiled, seconds=60),
}
"""By name. The last ones are skipped if the time is over: first what must be right, last what takes longest."""
