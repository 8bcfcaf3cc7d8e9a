"""Estimate the time and disk space that composing a data set needs, from a few trial samples."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data.compose.pieces import Piece, PieceFolder, cut_pieces, useful_processes
from data.compose.sources import read_cutout
from data.dataset.dataset import write_checked
from data.dataset.partial import nearest_parent
from data.dataset.storage import Location
from data.errors import InputError
from data.quantities import byte_size

if TYPE_CHECKING:
    from data.compose.composition import Composition
    from data.compose.sources import Sources
    from data.dataset.storage import AnyPath

TRIAL_BACKGROUNDS, TRIAL_FOREGROUNDS, TRIAL_PLACEMENTS = 4, 8, 4
SAFETY_FACTOR = 1.05
"""The free disk space must be the estimate times this factor."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do. Bytes and seconds are estimates, the other numbers are exact."""

    samples: int
    pieces: int
    pieces_finished: int
    """Pieces that an interrupted run left."""
    bytes: int
    """Size of the data set; until it is complete, the pieces need as much again, in the cache for a remote one."""
    seconds: float
    """Run time on an otherwise idle machine."""
    processes: int


def plan_composition(
    composition: Composition, sources: Sources, destination: AnyPath, *, processes: int | None = None
) -> Plan:
    """Compose a few samples, and extrapolate time and size from them.

    Args:
        composition: the options.
        sources: the result of `open_sources`.
        destination: the directory of the data set, or its address.
        processes: as for `compose`.

    Raises:
        InputError: if the data set does not fit on the disk, or a source has changed.
    """
    pieces = cut_pieces(composition, sources)
    folder = PieceFolder(destination)
    finished = folder.finished(pieces)
    samples = sum(len(piece) for piece in pieces)
    missing = [piece for piece in pieces if piece.number not in finished]
    remaining, processes = sum(map(len, missing)), useful_processes(missing, processes)
    composing, writing, sample_bytes, bg_bytes = _measure(composition, sources)
    total = round(samples * sample_bytes + len(sources.backgrounds) * bg_bytes)
    _check_free_space(destination, folder, total)
    # The main process writes while the workers compose; a single process does both in turn.
    parallel = min(processes + 1, os.cpu_count() or 1) if processes > 1 else 1
    seconds = max(samples * writing, (remaining * composing + samples * writing) / parallel)
    return Plan(
        samples=samples,
        pieces=len(pieces),
        pieces_finished=len(finished),
        bytes=total,
        seconds=seconds,
        processes=processes,
    )


def _measure(composition: Composition, sources: Sources) -> tuple[float, float, float, float]:
    """Mean seconds to compose a sample and to write it; mean bytes of a sample and of a background."""
    backgrounds = [sources.backgrounds[index] for index in _spaced(len(sources.backgrounds), TRIAL_BACKGROUNDS)]
    foregrounds = tuple(sources.foregrounds[index] for index in _spaced(len(sources.foregrounds), TRIAL_FOREGROUNDS))
    trial = replace(composition, placements=min(composition.placements, TRIAL_PLACEMENTS), flips=False)
    pieces = [
        Piece(number=0, composition=trial, background=background, foregrounds=foregrounds, scale=sources.scale)
        for background in backgrounds
    ]
    scenes = [piece.scene() for piece in pieces]
    # Not measured: files are read for their first sample only.
    for foreground in foregrounds:
        read_cutout(foreground, trial.longest)
    started = time.perf_counter()
    batches = [batch for piece, scene in zip(pieces, scenes, strict=True) for batch in piece.batches(scene)]
    composed = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_checked(batches, Path(folder) / "trial", source={})
    written = time.perf_counter()
    samples = [sample for batch in batches for sample in batch.samples]
    return (
        (composed - started) / len(samples),
        (written - composed) / len(samples),
        float(np.mean([len(sample.fg_bg) + len(sample.mask) + len(sample.depth) for sample in samples])),
        float(np.mean([len(scene.encoded) for scene in scenes])),
    )


def _spaced(count: int, wanted: int) -> list[int]:
    """Up to `wanted` evenly spaced indices below `count`."""
    return [int(index) for index in np.unique(np.linspace(0, count - 1, wanted).round())]


def _check_free_space(destination: AnyPath, folder: PieceFolder, size: int) -> None:
    local = Location.parse(destination).local
    needed = (2 if local else 1) * size * SAFETY_FACTOR - folder.stored_bytes()
    free = shutil.disk_usage(nearest_parent(folder.path)).free
    if needed > free and local is None:
        raise InputError(
            f"The disk of '{folder.path}' has {byte_size(free)} free, but composing takes about {byte_size(needed)} "
            f"there; free {byte_size(needed - free)} more, or set $TWINHEAD_CACHE to a larger disk."
        )
    if needed > free:
        raise InputError(
            f"The disk of '{destination}' has {byte_size(free)} free, but composing takes about "
            f"{byte_size(needed)}, half of it only until the data set is complete; free {byte_size(needed - free)} "
            "more there, or choose another --out."
        )
