"""Compose a data set as a recipe: the source images, and a row for each sample, from which its images are computed.

sources = open_sources(composition)
compose(composition, sources, Path("footballers"))
"""

from __future__ import annotations

import os
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from data.compose.grounds import Scenes, read_background
from data.compose.materialise import source_entry
from data.compose.pieces import PieceFolder
from data.compose.placing import place
from data.compose.sources import read_cutout
from data.composed.columns import PLACEMENT_COLUMNS, Placements
from data.composed.writing import RecipeBackground, RecipeCutout, write_recipe
from data.dataset.publish import refuse_existing
from data.errors import InputError, UnfinishedError
from data.parallel import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import ProcessPoolExecutor

    from data.compose.composition import Composition
    from data.compose.sources import Sources
    from data.dataset.manifest import DatasetInfo
    from data.dataset.storage import AnyPath

MAX_BLOCK_PIXELS, MAX_BLOCK_SAMPLES = 128 * 224**2, 2**18
"""Pixels of the backgrounds in which a foreground is placed at once, and its samples in them: they take up to 24 bytes
and 350 bytes each."""
MIN_SAMPLES_PER_PROCESS = 50_000
"""For fewer, a process takes longer to start than it saves."""
TASKS_PER_PROCESS = 4


def compose(
    composition: Composition,
    sources: Sources,
    destination: AnyPath,
    *,
    processes: int | None = None,
    on_samples: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Compose a data set as a recipe. It appears when it is complete; an interrupted run starts again.

    Its samples are those of `materialise`, in the same order and with the same bytes. They depend neither on the number
    of processes nor on what else is in the folders.

    Args:
        composition: the options.
        sources: the result of `open_sources`.
        destination: a directory that does not exist yet, whose missing parents are created; or an address.
        processes: most processes that draw placements; default: the number of cores.
        on_samples: progress callback, called with the number of samples placed since the last call.

    Raises:
        InputError: if the destination exists or cannot be written, the images of an unfinished data set lie beside it,
            or a source has changed meanwhile.
    """
    refuse_existing(destination)
    refuse_unfinished(destination)
    cutouts = [
        RecipeCutout(fg_id=foreground.name, rgba=read_cutout(foreground, composition.longest))
        for foreground in sources.foregrounds
    ]
    samples = len(sources.backgrounds) * len(cutouts) * composition.per_foreground
    processes = min(processes or os.cpu_count() or 1, len(cutouts), samples // MIN_SAMPLES_PER_PROCESS)
    with ExitStack() as stack:
        pool = stack.enter_context(open_pool(processes)) if processes > 1 else None
        tasks = np.array_split(np.arange(len(cutouts)), min(len(cutouts), max(1, processes) * TASKS_PER_PROCESS))
        blocks = _blocks(composition, sources, cutouts, tasks, pool, on_samples or (lambda _: None))
        entry = source_entry(composition, sources)
        try:
            return write_recipe(blocks, cutouts, destination, samples=samples, source=entry)
        except BrokenProcessPool as error:
            raise UnfinishedError(
                "A worker process was killed, possibly because memory ran out; run the same command again, with fewer "
                "--workers if it happens again."
            ) from error


def refuse_unfinished(destination: AnyPath) -> None:
    """Refuse a destination beside which the images of an unfinished data set lie.

    Raises:
        InputError: if there are any.
    """
    folder = PieceFolder(destination)
    if folder.is_started:
        raise InputError(
            f"The folder '{folder.path}' has images of an unfinished data set; give --materialise to resume it, remove "
            "the folder, or choose another --out."
        )


def _blocks(
    composition: Composition,
    sources: Sources,
    cutouts: Sequence[RecipeCutout],
    tasks: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]],
    pool: ProcessPoolExecutor | None,
    on_samples: Callable[[int], None],
) -> Iterator[tuple[list[RecipeBackground], Placements]]:
    """Some backgrounds, with all placements in them."""
    step = max(1, min(MAX_BLOCK_PIXELS // composition.size**2, MAX_BLOCK_SAMPLES // composition.per_foreground))
    for first in range(0, len(sources.backgrounds), step):
        chosen = sources.backgrounds[first : first + step]
        read = [read_background(background, composition.size, sources.scale) for background in chosen]
        scenes = Scenes(read)
        calls = [
            partial(_place_some, composition, scenes, first, int(task[0]), [cutouts[row] for row in task.tolist()])
            for task in tasks
        ]
        placed = []
        for found in [pool.submit(call).result for call in calls] if pool else calls:
            placed.append(found())
            on_samples(len(placed[-1]))
        block = [
            RecipeBackground(bg_id=scene.bg_id, encoded=scene.encoded, bg=scene.bg, depth=scene.depth) for scene in read
        ]
        yield block, _in_order(placed)


def _place_some(
    composition: Composition, scenes: Scenes, first_background: int, first: int, cutouts: Sequence[RecipeCutout]
) -> Placements:
    """The placements of consecutive foregrounds in all backgrounds of a block."""
    placed = [
        place(composition, scenes, cutout.fg_id, cutout.rgba).placements(first_background, row)
        for row, cutout in enumerate(cutouts, start=first)
    ]
    return _joined(placed)


def _in_order(placed: Sequence[Placements]) -> Placements:
    """Join placements, and sort them by background; the order of foregrounds, directions and numbers is that given."""
    joined = _joined(placed)
    return joined.take(np.argsort(joined.background, kind="stable"))


def _joined(placed: Sequence[Placements]) -> Placements:
    return Placements(
        **{name: np.concatenate([getattr(part, name) for part in placed]) for name in PLACEMENT_COLUMNS.names}
    )
