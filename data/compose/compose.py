"""Compose a data set as the published ones were: every background with every foreground, mirrored too, in many places.

sources = open_sources(composition)
compose(composition, sources, Path("footballers"))
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import cv2

from data.compose.composition import Composition
from data.compose.pieces import PieceFolder, cut_pieces, make_piece
from data.compose.sources import Sources, open_sources
from data.dataset.dataset import Dataset, write_dataset
from data.dataset.partial import remove_abandoned
from data.dataset.publish import refuse_existing
from data.errors import UnfinishedError
from data.parallel import open_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from data.compose.pieces import Piece
    from data.dataset.manifest import DatasetInfo
    from data.schema import EncodedSample

__all__ = ["compose", "made_of", "open_sources", "refuse_other"]

METHOD = 2
"""Counts the changes of how samples are composed: pieces of another method are not gone on with."""


def compose(
    composition: Composition,
    sources: Sources,
    destination: Path,
    *,
    processes: int | None = None,
    on_sample: Callable[[int], None] | None = None,
) -> DatasetInfo:
    """Compose the data set in pieces, and write it; run again after an end half-way, it goes on with those.

    Samples are in the order of backgrounds, foregrounds, directions, placements. Neither they nor the files depend on
    the number of processes, or on how often the run was interrupted. In memory are some samples of each process, and
    what `write_dataset` holds: ids, and pictures of a row group. Pieces are kept in `.NAME.compose/` beside the
    destination, and removed at the end: until then they take as much of the disk as the data set.

    Args:
        composition: what is composed.
        sources: as `open_sources` gave them.
        destination: a directory that does not exist yet; its parents are made.
        processes: how many pieces to compose at a time; the machine's cores when left out.
        on_sample: called after each sample that is written with how many were written so far.

    Raises:
        InputError: if the destination exists or cannot be written, an unfinished set of other arguments or sources
            lies beside it, or a source is changed on the way.
    """
    refuse_existing(destination)
    remove_abandoned(destination.parent)
    pieces = cut_pieces(composition, sources)
    folder = PieceFolder(destination)
    with folder.held(made_of(composition, sources)):
        if not folder.whole.exists():
            with contextlib.closing(_all_samples(pieces, folder, processes)) as samples:
                write_dataset(samples, folder.whole, source=_described(composition, sources), on_sample=on_sample)
        # Before it is moved: of a run that is killed here, the next one must find what is left to do.
        folder.remove_pieces()
        info = _move(folder, destination)
        folder.remove()
    return info


def refuse_other(composition: Composition, sources: Sources, destination: Path) -> None:
    """See to it that what is unfinished there can be gone on with.

    Raises:
        InputError: if it was begun with other arguments or sources.
    """
    PieceFolder(destination).check(made_of(composition, sources))


def made_of(composition: Composition, sources: Sources) -> dict[str, Any]:
    """All that decides on the samples; where the folders lie does not."""
    return {
        "method": METHOD,
        "opencv": cv2.__version__,
        **_options(composition),
        "depth": sources.scale.described(),
        **sources.digests(),
    }


def _options(composition: Composition) -> dict[str, Any]:
    return {
        "placements": composition.placements,
        "flips": composition.flips,
        "size": composition.size,
        "scale": list(composition.scale),
        "seed": composition.seed,
    }


def _described(composition: Composition, sources: Sources) -> dict[str, Any]:
    """For `dataset.json`."""
    return {
        "kind": "compose",
        "backgrounds": str(composition.backgrounds),
        "foregrounds": str(composition.foregrounds),
        "depths": str(composition.depths),
        "method": METHOD,
        **_options(composition),
        "depth": sources.scale.described(),
    }


def _all_samples(pieces: tuple[Piece, ...], folder: PieceFolder, processes: int | None) -> Generator[EncodedSample]:
    """Samples of all pieces in order, each read from its file when that is finished."""
    finished = folder.finished(pieces)
    missing = [piece for piece in pieces if piece.number not in finished]
    processes = min(processes or os.cpu_count() or 1, len(missing))
    if processes <= 1:
        for piece in pieces:
            if piece.number not in finished:
                make_piece(piece, folder.file(piece.number))
            yield from folder.read(piece)
        return
    with open_pool(processes) as pool:
        composed: dict[int, Future[None]] = {
            piece.number: pool.submit(make_piece, piece, folder.file(piece.number)) for piece in missing
        }
        try:
            for piece in pieces:
                if piece.number in composed:
                    composed.pop(piece.number).result()
                yield from folder.read(piece)
        except BrokenProcessPool as error:
            raise UnfinishedError(
                "A process that composes was ended from outside, perhaps for want of memory; the same command goes on, "
                "with fewer --workers if need be."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _move(folder: PieceFolder, destination: Path) -> DatasetInfo:
    info = Dataset.open(folder.whole).info
    refuse_existing(destination)
    folder.whole.rename(destination)
    return info
