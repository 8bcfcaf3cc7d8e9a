"""What composing a data set will take, told from a few samples of it: time, and room on the disk.

The samples that it looks at are thrown away.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data.byte_size import byte_size
from data.compose.pieces import PieceFolder, cut_pieces
from data.compose.placing import compose_sample, open_stage
from data.dataset.intake import Intake
from data.dataset.partial import nearest_parent
from data.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from data.compose.composition import Composition
    from data.compose.sources import Sources

BACKGROUNDS_TRIED, FOREGROUNDS_TRIED = 4, 8
MARGIN = 1.05
"""The disk must have this many times what is estimated."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """An estimate, but for the numbers of samples and pieces."""

    samples: int
    pieces: int
    pieces_finished: int
    """How many an earlier run left."""
    bytes: int
    """Of the data set; the pieces take as much until it is whole."""
    seconds: float
    """Until the data set is whole, if nothing else is computed meanwhile."""
    processes: int


def plan_composition(
    composition: Composition, sources: Sources, destination: Path, *, processes: int | None = None
) -> Plan:
    """Compose a few samples, and tell from them what all will take.

    Args:
        composition: what is composed.
        sources: as `open_sources` gave them.
        destination: where the data set is to be.
        processes: as for `compose`.

    Raises:
        InputError: if the disk has no room for it, or a source was changed.
    """
    pieces = cut_pieces(composition, sources)
    folder = PieceFolder(destination)
    finished = folder.finished(pieces)
    samples = sum(len(piece) for piece in pieces)
    left = sum(len(piece) for piece in pieces if piece.number not in finished)
    cores = os.cpu_count() or 1
    processes = max(1, min(processes or cores, len(pieces) - len(finished)))
    composing, writing, sample_bytes, bg_bytes = _try_some(composition, sources)
    total = round(samples * sample_bytes + len(sources.backgrounds) * bg_bytes)
    _check_room(destination, folder, total)
    # One process writes while the others compose; a single one does both in turns.
    side_by_side = min(processes + 1, cores) if processes > 1 else 1
    seconds = max(samples * writing, (left * composing + samples * writing) / side_by_side)
    return Plan(
        samples=samples,
        pieces=len(pieces),
        pieces_finished=len(finished),
        bytes=total,
        seconds=seconds,
        processes=processes,
    )


def _try_some(composition: Composition, sources: Sources) -> tuple[float, float, float, float]:
    """Means: seconds to compose a sample and to write it; bytes of a sample, and of a background."""
    backgrounds = [sources.backgrounds[index] for index in _spread(len(sources.backgrounds), BACKGROUNDS_TRIED)]
    foregrounds = [sources.foregrounds[index] for index in _spread(len(sources.foregrounds), FOREGROUNDS_TRIED)]
    stages = [open_stage(background, composition.size, sources.scale) for background in backgrounds]
    pairs = [(stage, foreground) for stage in stages for foreground in foregrounds]
    # The first of each foreground reads its file, which is done once for many samples.
    for foreground in foregrounds:
        compose_sample(composition, stages[0], foreground, flip=False, placement=0)
    started = time.perf_counter()
    tried = [compose_sample(composition, stage, foreground, flip=False, placement=0) for stage, foreground in pairs]
    composed = time.perf_counter()
    intake = Intake()
    for sample in tried:
        intake.take(sample)
    written = time.perf_counter()
    sizes = [len(sample.fg_bg) + len(sample.mask) + len(sample.depth) for sample in tried]
    return (
        (composed - started) / len(tried),
        (written - composed) / len(tried),
        float(np.mean(sizes)),
        float(np.mean([len(stage.encoded) for stage in stages])),
    )


def _spread(count: int, wanted: int) -> list[int]:
    return [int(index) for index in np.unique(np.linspace(0, count - 1, wanted).round())]


def _check_room(destination: Path, folder: PieceFolder, size: int) -> None:
    place = nearest_parent(destination)
    needed = 2 * size * MARGIN - folder.stored_bytes()
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"The disk of '{destination}' has {byte_size(free)} free, but composing takes about "
            f"{byte_size(needed)}, half of it until the set is whole; free {byte_size(needed - free)} more there, or "
            "give another --out."
        )
